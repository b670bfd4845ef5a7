//! `cargo xtask fmt`: is everything formatted? It changes nothing.

use anyhow::{Context as _, Result};

use crate::{context::Context, report::Outcome};

/// Compares every file with what rustfmt would write.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    context
        .cargo(["fmt", "--all", "--check"])
        .run()
        .context("run `cargo fmt --all`")?;
    Ok(Outcome::Passed)
}
