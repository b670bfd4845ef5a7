//! `cargo xtask bench`: what a provider costs beside other tools, which are installed where that is possible.
//!
//! Nothing is measured here: a benchmark prints its own table, and fails if a row misses its aim.

use std::path::{PathBuf, absolute};

use anyhow::Result;

use crate::{context::Context, prerequisites, report};

/// Debian packages of the tools that `local` is compared with. Docker's is not among them: it would bring a daemon.
const PEERS: [&str; 2] = ["bubblewrap", "crun"];

/// What to measure.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Bench {
    /// The local provider, as root.
    Local {
        /// Also writes the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// What carries the connections of sandboxes, alone and as the local provider's.
    Egress,
}

/// Runs a benchmark; false if a row missed its aim.
pub(crate) fn run(context: &Context, bench: &Bench) -> Result<bool> {
    let Bench::Local { json } = bench else {
        return egress(context);
    };
    if let Err(error) = prerequisites::install(context, &PEERS) {
        report::note(&format!("some rows will be skipped: {error:#}"));
    }
    let build = ["bench", "--quiet", "--package", "sandbox-local"];
    let mut command = context.cargo(build).args(["--bench", "local"]);
    if let Some(file) = json {
        command = command.args(["--", "--json"]).arg(absolute(file)?);
    }
    command.succeeds_aloud()
}

/// Both are run, whatever the first one says.
fn egress(context: &Context) -> Result<bool> {
    let relay = ["bench", "--quiet", "--package", "sandbox-egress"];
    let relay = context.cargo(relay).succeeds_aloud()?;
    let local = ["bench", "--quiet", "--package", "sandbox-local", "--bench"];
    let local = context.cargo(local).args(["local", "--", "--network"]);
    Ok(local.succeeds_aloud()? && relay)
}
