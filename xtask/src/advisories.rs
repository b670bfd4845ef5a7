//! `cargo xtask advisories`: known vulnerabilities of the dependencies, where cargo-deny and its database can be had.

use anyhow::Result;

use crate::{context::Context, report::Outcome};

/// Fetches the database and compares `Cargo.lock` with it.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let skipped = |why: &str| Ok(Outcome::Skipped(why.to_owned()));
    if !context.cargo(["deny", "--version"]).succeeds() {
        return skipped("cargo-deny is not installed (`cargo install cargo-deny`)");
    }
    if !context.cargo(["deny", "fetch", "db"]).succeeds() {
        return skipped("the advisory database cannot be fetched");
    }
    context
        .cargo(["deny", "--offline", "check", "advisories"])
        .run()?;
    Ok(Outcome::Passed)
}
