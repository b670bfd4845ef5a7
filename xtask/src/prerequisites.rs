//! `cargo xtask prerequisites`: the Debian packages that building and testing need, from `.ci/packages`.
//!
//! Root on a system with apt gets them installed; everybody else is told which ones are missing.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::{context::Context, report, report::Outcome};

/// The list, below the workspace.
const LIST: &str = ".ci/packages";

/// Installs what the list has and is missing, or names it.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let list = fs::read_to_string(context.root().join(LIST)).context(LIST)?;
    let wanted = packages(&list);
    if !is_debian(context) {
        let names = wanted.join(" ");
        return Ok(Outcome::Skipped(format!(
            "not a Debian system; the tests need what these packages hold: {names}"
        )));
    }
    install(context, &wanted)?;
    Ok(Outcome::Passed)
}

/// Installs those of the packages that are missing.
///
/// # Errors
/// Which ones are missing, if they cannot be installed.
pub(crate) fn install(context: &Context, packages: &[&str]) -> Result<()> {
    if !is_debian(context) {
        bail!(
            "not a Debian system; what these packages hold is needed: {}",
            packages.join(" ")
        );
    }
    let missing: Vec<_> = packages
        .iter()
        .copied()
        .filter(|package| !installed(context, package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root(context) {
        bail!("these packages are missing; as root, run: apt-get install {names}");
    }
    report::note(&format!("installing {names}"));
    apt_get(context, &["update"])?;
    let options = ["install", "--yes", "--no-install-recommends"];
    apt_get(context, &[&options, missing.as_slice()].concat())
}

fn is_debian(context: &Context) -> bool {
    context.command("dpkg-query").arg("--version").succeeds()
}

/// One package a line; `#` starts a comment.
fn packages(list: &str) -> Vec<&str> {
    let names = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    names.filter(|name| !name.is_empty()).collect()
}

fn installed(context: &Context, package: &str) -> bool {
    context
        .command("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .read()
        .is_ok_and(|status| status == "installed")
}

fn apt_get(context: &Context, args: &[&str]) -> Result<()> {
    context
        .command("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--quiet", "-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .run()
}

pub(crate) fn is_root(context: &Context) -> bool {
    let id = context.command("id").arg("-u").read();
    id.is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_packages() {
        let list = "# for the build\nlibc6-dev\n\n  python3  # examples/sales.py\n";
        assert_eq!(packages(list), ["libc6-dev", "python3"]);
    }
}
