//! `cargo xtask fuzz`: runs the fuzz targets of `fuzz/` for a while, where cargo-fuzz and a nightly compiler are there.
//!
//! What they have found before is kept below the target directory and is where the next run starts.

use anyhow::{Context as _, Result};

use crate::{command::Command, context::Context, report, report::Outcome};

/// The targets, each a file in `fuzz/fuzz_targets`.
const TARGETS: [&str; 4] = ["protocol", "accounts", "archives", "layouts"];

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Installs cargo-fuzz if it is missing.
    #[arg(long)]
    install: bool,
}

/// Runs each target; an input that breaks one is kept and named in its output.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    if !nightly(context).arg("--version").succeeds() {
        let why = "there is no nightly compiler (`rustup toolchain install nightly`)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    if !nightly(context).args(["fuzz", "--version"]).succeeds() {
        if !args.install {
            let why = "cargo-fuzz is not installed (`cargo xtask fuzz --install` does that)";
            return Ok(Outcome::Skipped(why.to_owned()));
        }
        report::note("installing cargo-fuzz");
        context.cargo(["install", "--locked", "cargo-fuzz"]).run()?;
    }
    let directory = context.metadata()?.target_directory.join("fuzz");
    let (corpus, temporary) = (directory.join("corpus"), directory.join("tmp"));
    std::fs::create_dir_all(&temporary)?;
    let seeds = ["run", "--quiet", "--bin", "seeds", "--manifest-path"];
    let seeds = nightly(context).args(seeds).arg("fuzz/Cargo.toml");
    seeds
        .env("CARGO_TARGET_DIR", &directory)
        .arg(&corpus)
        .run()?;
    let mut done = Vec::new();
    for target in TARGETS {
        let output = nightly(context)
            .args(["fuzz", "run", "--fuzz-dir", "fuzz", "--target-dir"])
            .arg(&directory)
            .arg(target)
            .arg(corpus.join(target))
            .arg("--")
            .args(["-print_final_stats=1", "-malloc_limit_mb=64"])
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-artifact_prefix={}/", directory.display()))
            .env("TMPDIR", &temporary)
            .read_all()?;
        let count = executions(&output).context("libFuzzer did not say how much it has done")?;
        done.push(format!("{target} {count} times"));
    }
    std::fs::remove_dir_all(&temporary)?;
    Ok(Outcome::PassedOn(done.join(", ")))
}

/// Nightly's cargo, which must not hear of the one that runs us.
fn nightly(context: &Context) -> Command {
    let cargo = context
        .command("rustup")
        .args(["run", "nightly", "cargo"])
        .without_env("CARGO");
    cargo.without_env("RUSTUP_TOOLCHAIN")
}

/// How many inputs were tried, of libFuzzer's last lines.
fn executions(output: &str) -> Option<u64> {
    let mut lines = output.lines().rev();
    let count = lines.find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_number_of_executions() {
        let output = "#12 DONE\nstat::number_of_executed_units: 12345\nstat::peak_rss_mb: 50\n";
        assert_eq!(executions(output), Some(12_345));
        assert_eq!(executions("error: no\n"), None);
    }
}
