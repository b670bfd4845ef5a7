//! `cargo xtask fmt`: is everything formatted? It changes nothing.

use anyhow::{Context as _, Result};

use crate::{context::Context, report::Outcome};

/// Compares every file with what rustfmt would write.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    // The fuzz targets are a workspace of their own.
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        context
            .cargo(["fmt", "--all", "--check", "--manifest-path", manifest])
            .run()
            .with_context(|| format!("run `cargo fmt --all --manifest-path {manifest}`"))?;
    }
    Ok(Outcome::Passed)
}
