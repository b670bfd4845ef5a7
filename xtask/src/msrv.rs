//! `cargo xtask msrv`: the workspace compiles with the oldest compiler it promises, where that one is installed.

use anyhow::{Context as _, Result};

use crate::{context::Context, report::Outcome};

/// Checks all crates with the toolchain of `rust-version`.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let members = context.metadata()?.members();
    let versions = members
        .values()
        .filter_map(|member| member.rust_version.as_deref());
    let version = versions.max().context("no crate has a `rust-version`")?;
    let toolchain = ["run", version, "cargo"];
    if !context
        .command("rustup")
        .args(toolchain)
        .arg("--version")
        .succeeds()
    {
        let why =
            format!("toolchain {version} is not installed (`rustup toolchain install {version}`)");
        return Ok(Outcome::Skipped(why));
    }
    context
        .command("rustup")
        .args(toolchain)
        .args(["check", "--quiet", "--workspace", "--all-features"])
        .run()?;
    Ok(Outcome::PassedOn(version.to_owned()))
}
