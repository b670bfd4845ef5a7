//! Which crate may use which: dependencies point down only. Dev-dependencies are exempt.

use super::Problem;
use crate::metadata::{Metadata, Package};

/// Contract, wire types and the helper process: they know nothing of each other.
const LEVEL_0: &[&str] = &["sandbox-core", "sandbox-wire", "sandbox-agent"];
/// Pieces that providers and tools share.
const LEVEL_1: &[&str] = &[
    "sandbox-egress",
    "sandbox-http",
    "sandbox-layers",
    "sandbox-code",
    "sandbox-proxy",
];
/// Providers; never each other.
const LEVEL_2: &[&str] = &["sandbox-e2b", "sandbox-daytona", "sandbox-local"];
/// What manages sandboxes of any provider.
const LEVEL_3: &[&str] = &["sandbox-manager", "sandbox-tools"];
/// Adapters and the server; providers are injected.
const LEVEL_4: &[&str] = &["sandbox-mcp", "sandbox-tools-rig", "sandbox-server"];
/// The facade, the command, and what only builds and tests.
const LEVEL_5: &[&str] = &["sandbox", "sandbox-cli", "xtask"];

const CORE: &[&str] = &["sandbox-core"];

/// The first row that names a crate says which groups of crates it may use.
const TABLE: &[(&[&str], &[&[&str]])] = &[
    (&["sandbox-conformance"], &[CORE]),
    (LEVEL_0, &[]),
    (LEVEL_1, &[CORE]),
    (LEVEL_2, &[LEVEL_0, LEVEL_1]),
    (&["sandbox-manager"], &[CORE, &["sandbox-code"]]),
    (
        &["sandbox-tools"],
        &[CORE, &["sandbox-code", "sandbox-manager"]],
    ),
    (LEVEL_4, &[LEVEL_0, LEVEL_1, LEVEL_3]),
    (
        LEVEL_5,
        &[LEVEL_0, LEVEL_1, LEVEL_2, LEVEL_3, LEVEL_4, LEVEL_5],
    ),
];

/// Compares the workspace's dependencies with the table.
pub(super) fn check(metadata: &Metadata) -> Vec<Problem> {
    let members = metadata.members();
    let is_member = |name: &str| members.contains_key(name);
    members
        .values()
        .flat_map(|package| check_package(package, is_member))
        .collect()
}

fn check_package(package: &Package, is_member: impl Fn(&str) -> bool) -> Vec<Problem> {
    let Some((_, allowed)) = TABLE
        .iter()
        .find(|(crates, _)| crates.contains(&&*package.name))
    else {
        let message = "is not in the table of levels; add it to xtask/src/tidy/levels.rs";
        return vec![Problem::new(&package.name, message)];
    };
    let allowed = |name: &str| allowed.iter().any(|group| group.contains(&name));
    let used = package.dependencies.iter();
    used.filter(|used| used.kind.as_deref() != Some("dev"))
        .filter(|used| is_member(&used.name) && !allowed(&used.name))
        .map(|used| {
            let message = format!(
                "may not depend on {}: dependencies point down only (xtask/src/tidy/levels.rs); \
                 move the shared part down, or make it a dev-dependency",
                used.name
            );
            Problem::new(&package.name, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies: Vec<_> = dependencies
            .iter()
            .map(|(name, kind)| serde_json::json!({ "name": name, "kind": kind }))
            .collect();
        metadata::package(serde_json::json!({ "name": name, "dependencies": dependencies }))
    }

    fn problems(name: &str, dependencies: &[(&str, Option<&str>)]) -> usize {
        let is_member = |name: &str| name.starts_with("sandbox");
        check_package(&package(name, dependencies), is_member).len()
    }

    #[test]
    fn a_provider_uses_core_and_its_helper_but_no_other_provider() {
        let normal = [
            ("sandbox-core", None),
            ("sandbox-agent", Some("build")),
            ("libc", None),
        ];
        assert_eq!(problems("sandbox-local", &normal), 0);
        assert_eq!(problems("sandbox-local", &[("sandbox-e2b", None)]), 1);
    }

    #[test]
    fn nothing_points_up_but_dev_dependencies() {
        assert_eq!(
            problems("sandbox-core", &[("sandbox-conformance", Some("dev"))]),
            0
        );
        assert_eq!(problems("sandbox-core", &[("sandbox-layers", None)]), 1);
        assert_eq!(problems("sandbox-local", &[("sandbox", Some("build"))]), 1);
        assert_eq!(problems("sandbox-cli", &[("sandbox", None)]), 0);
    }

    #[test]
    fn an_unknown_crate_must_be_added_to_the_table() {
        assert_eq!(problems("sandbox-new", &[]), 1);
    }
}
