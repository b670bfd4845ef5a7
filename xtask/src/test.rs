//! `cargo xtask test`: all tests, by nextest where it is installed, a turn of the benchmark, and the examples in the
//! documentation.

use anyhow::Result;

use crate::{context::Context, report::Outcome};

/// One selection for both runs, so that they share what was built.
pub(crate) const SELECTION: [&str; 2] = ["--workspace", "--all-features"];

/// Runs every test; the runner's own lines and its summary go straight to the output.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    if context.cargo(["nextest", "--version"]).succeeds() {
        let nextest = context.cargo(["nextest", "run", "--no-fail-fast"]);
        nextest.args(SELECTION).stream()?;
    } else {
        let targets = ["--lib", "--bins", "--tests", "--examples"];
        let test = context.cargo(["test", "--no-fail-fast"]).args(targets);
        test.args(SELECTION).stream()?;
    }
    // The benchmark measures nothing here; it only has to run.
    let bench = context.cargo(["test", "--bench", "local"]).args(SELECTION);
    bench.args(["--", "--test"]).stream()?;
    context.cargo(["test", "--doc"]).args(SELECTION).stream()?;
    Ok(Outcome::Passed)
}
