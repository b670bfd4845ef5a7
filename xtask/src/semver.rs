//! `cargo xtask semver`: API changes since the last release, where there is one to compare with.

use anyhow::Result;

use crate::{context::Context, report::Outcome};

/// Compares the published crates with their last release.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let tags = context
        .command("git")
        .args(["tag", "--list", "v*", "--sort=-version:refname"]);
    let tags = tags.read().unwrap_or_default();
    let Some(last) = tags.lines().next() else {
        return Ok(Outcome::Skipped(
            "there is no release to compare with".to_owned(),
        ));
    };
    if !context.cargo(["semver-checks", "--version"]).succeeds() {
        let why = "cargo-semver-checks is not installed (`cargo install cargo-semver-checks`)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    context
        .cargo(["semver-checks", "--workspace", "--baseline-rev", last])
        .run()?;
    Ok(Outcome::PassedOn(format!("since {last}")))
}
