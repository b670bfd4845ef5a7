//! `cargo xtask lint`: clippy on everything, with all features. `features` does it for the other combinations.

use anyhow::Result;

use crate::{context::Context, report::Outcome};

/// Denies every warning of the compiler and of clippy.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    context
        .cargo([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--all-features",
        ])
        .args(["--", "-D", "warnings"])
        .run()?;
    Ok(Outcome::Passed)
}
