//! `cargo xtask package`: the published crates build from what a registry would hand out.

use anyhow::Result;

use crate::{context::Context, report::Outcome};

/// Packages all published crates and builds each from its package, with nothing fetched.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let members = context.metadata()?.members();
    let names = members.values().filter(|member| member.is_published());
    let packages: Vec<_> = names
        .flat_map(|member| ["--package", &member.name])
        .collect();
    // Whatever is being worked on is packaged as well.
    context
        .cargo(["package", "--quiet", "--offline", "--allow-dirty"])
        .args(&packages)
        .run()?;
    Ok(Outcome::PassedOn(format!("{} crates", packages.len() / 2)))
}
