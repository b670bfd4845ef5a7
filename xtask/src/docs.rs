//! `cargo xtask docs`: the workspace's documentation. Its examples are run by `test`.

use anyhow::Result;

use crate::{context::Context, report::Outcome};

/// Builds the documentation; a broken link is an error.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    context
        .cargo([
            "doc",
            "--quiet",
            "--workspace",
            "--no-deps",
            "--all-features",
        ])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()?;
    Ok(Outcome::Passed)
}
