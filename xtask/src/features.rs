//! `cargo xtask features`: every crate with no feature, each alone and all; and what must stay out of some crates.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::{context::Context, metadata::Package, report::Outcome};

/// What may be below a crate, with all its features, not counting what only its tests use.
#[derive(Debug)]
enum Rule {
    /// These crates and nothing else.
    Only(&'static [&'static str]),
    /// Anything but these crates.
    Without(&'static [&'static str]),
}

/// The contract knows no transport (`mio` is what brings sockets to tokio), the helper process only the system.
const RULES: [(&str, Rule); 2] = [
    ("sandbox-agent", Rule::Only(&["libc"])),
    (
        "sandbox-core",
        Rule::Without(&[
            "h2", "http", "hyper", "mio", "openssl", "reqwest", "rustls", "socket2",
        ]),
    ),
];

/// Checks all combinations with clippy, which shares its work with `lint` and denies warnings.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    for (name, rule) in &RULES {
        check_rule(context, name, rule)?;
    }
    let mut count = 0;
    for package in context.metadata()?.members().values() {
        for features in combinations(package) {
            check(context, &package.name, &features)?;
            count += 1;
        }
    }
    Ok(Outcome::PassedOn(format!("{count} combinations")))
}

/// Arguments for no feature, each alone, and all.
fn combinations(package: &Package) -> Vec<Vec<&str>> {
    let mut all = vec![vec!["--no-default-features"]];
    for feature in package.features.keys() {
        all.push(vec!["--no-default-features", "--features", feature]);
    }
    if package.features.len() > 1 {
        all.push(vec!["--all-features"]);
    }
    all
}

fn check(context: &Context, name: &str, features: &[&str]) -> Result<()> {
    context
        .cargo(["clippy", "--quiet", "--package", name])
        .args(features)
        .args(["--", "-D", "warnings"])
        .run()
}

fn check_rule(context: &Context, name: &str, rule: &Rule) -> Result<()> {
    let tree = context
        .cargo([
            "tree",
            "--package",
            name,
            "--all-features",
            "--target",
            "all",
        ])
        .args([
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .read()?;
    let found = violations(&tree, name, rule);
    if found.is_empty() {
        return Ok(());
    }
    bail!(
        "{name} must not depend on {}; `cargo tree --package {name} --all-features --invert CRATE` shows why it does",
        found.join(", ")
    )
}

/// The crates of `cargo tree` that the rule forbids.
fn violations<'a>(tree: &'a str, name: &str, rule: &Rule) -> Vec<&'a str> {
    let crates: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|found| *found != name)
        .collect();
    let forbidden = |found: &&str| match rule {
        Rule::Only(allowed) => !allowed.contains(found),
        Rule::Without(forbidden) => forbidden.contains(found),
    };
    crates.into_iter().filter(forbidden).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata;

    const TREE: &str = "a v0.1.0 (/srv/a)\nlibc v0.2.1\n\nmio v1.0.0\nlibc v0.2.1 (*)\n";

    #[test]
    fn forbidden_crates_are_named_once() {
        assert_eq!(violations(TREE, "a", &Rule::Only(&["libc"])), ["mio"]);
        assert_eq!(violations(TREE, "a", &Rule::Only(&[])), ["libc", "mio"]);
        assert_eq!(violations(TREE, "a", &Rule::Without(&["libc"])), ["libc"]);
        assert_eq!(violations(TREE, "a", &Rule::Without(&["hyper"])), [""; 0]);
    }

    #[test]
    fn every_feature_stands_alone_once() {
        let features = serde_json::json!({ "default": ["a"], "a": [] });
        let package = metadata::package(serde_json::json!({ "features": features }));
        let lines: Vec<_> = combinations(&package)
            .iter()
            .map(|arguments| arguments.join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "--no-default-features",
                "--no-default-features --features a",
                "--no-default-features --features default",
                "--all-features",
            ]
        );
    }
}
