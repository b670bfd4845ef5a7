//! `cargo xtask portable`: the library crates compile where there are no Linux namespaces.

use anyhow::Result;

use crate::{context::Context, report::Outcome};

/// What a program on any system may use. `sandbox-local` answers `Unsupported` there.
const CRATES: [&str; 6] = [
    "sandbox-core",
    "sandbox-egress",
    "sandbox-layers",
    "sandbox-local",
    "sandbox-proxy",
    "sandbox",
];

/// Checks these crates for every installed target of another system.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let targets = match context
        .command("rustup")
        .args(["target", "list", "--installed"])
        .read()
    {
        Ok(list) => list,
        Err(_) => return Ok(Outcome::Skipped("rustup is not installed".to_owned())),
    };
    let targets: Vec<_> = targets
        .lines()
        .filter(|target| !target.contains("linux"))
        .collect();
    if targets.is_empty() {
        let why =
            "no target of another system is installed (`rustup target add aarch64-apple-darwin`)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    let members = context.metadata()?.members();
    let packages = CRATES.iter().filter(|name| members.contains_key(*name));
    let packages: Vec<_> = packages.flat_map(|name| ["--package", name]).collect();
    for target in &targets {
        context
            .cargo(["clippy", "--quiet", "--all-features", "--target", target])
            .args(&packages)
            .args(["--", "-D", "warnings"])
            .run()?;
    }
    Ok(Outcome::PassedOn(targets.join(", ")))
}
