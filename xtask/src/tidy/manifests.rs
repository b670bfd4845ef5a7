//! Rules for each manifest: what is the same everywhere is said once, in the workspace's own.

use toml::{Table, Value};

use super::Problem;

/// Keys of `[package]` that members inherit.
const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];

/// Tables of dependencies, at the top and below `[target.*]`.
const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Checks one manifest. The workspace's own has no `[package]`, and one that is a workspace by itself has nothing to
/// inherit from; both are left alone.
pub(super) fn check(path: &str, text: &str) -> Vec<Problem> {
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![Problem::new(path, format!("cannot be read: {error}"))],
    };
    let Some(package) = manifest.get("package").and_then(Value::as_table) else {
        return Vec::new();
    };
    if manifest.contains_key("workspace") {
        return Vec::new();
    }
    let mut problems = check_package(path, package);
    if !inherits(manifest.get("lints")) {
        problems.push(Problem::new(path, "add `[lints]` with `workspace = true`"));
    }
    problems.extend(check_dependencies(path, &manifest));
    problems
}

fn check_package(path: &str, package: &Table) -> Vec<Problem> {
    let own = INHERITED.iter().filter(|key| !inherits(package.get(**key)));
    let mut problems: Vec<_> = own
        .map(|key| {
            Problem::new(
                path,
                format!("write `{key}.workspace = true` in `[package]`"),
            )
        })
        .collect();
    let private = package.get("publish").and_then(Value::as_bool) == Some(false);
    if !private && !package.contains_key("description") {
        problems.push(Problem::new(
            path,
            "a published crate needs a `description` in `[package]`",
        ));
    }
    problems
}

fn check_dependencies(path: &str, manifest: &Table) -> Vec<Problem> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets
        .into_iter()
        .flat_map(Table::values)
        .filter_map(Value::as_table);
    let mut problems = Vec::new();
    for table in targets.chain([manifest]) {
        let kinds = DEPENDENCIES
            .iter()
            .filter_map(|kind| table.get(*kind)?.as_table());
        let own = kinds.flatten().filter(|(_, asked)| !inherits(Some(asked)));
        problems.extend(own.map(|(name, _)| {
            let message = format!(
                "write `{name}.workspace = true` and give its version in the workspace's \
                 `[workspace.dependencies]`"
            );
            Problem::new(path, message)
        }));
    }
    problems
}

fn inherits(value: Option<&Value>) -> bool {
    let workspace = value.and_then(|value| value.get("workspace"));
    workspace.and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [package]
        name = "a"
        description = "A"
        version.workspace = true
        edition.workspace = true
        rust-version.workspace = true
        license.workspace = true

        [dependencies]
        b.workspace = true
        c = { workspace = true, features = ["d"] }

        [target.'cfg(unix)'.dependencies]
        winapi.workspace = true

        [lints]
        workspace = true
    "#;

    fn messages(text: &str) -> Vec<String> {
        let problems = check("Cargo.toml", text);
        problems
            .into_iter()
            .map(|problem| problem.message)
            .collect()
    }

    #[test]
    fn a_member_inherits_everything() {
        assert_eq!(messages(GOOD), [""; 0]);
        assert_eq!(messages("[workspace]\nmembers = []\n"), [""; 0]);
        let alone = "[workspace]\n[package]\nedition = \"2024\"\n[dependencies]\na = \"1\"\n";
        assert_eq!(messages(alone), [""; 0]);
    }

    #[test]
    fn each_own_value_is_named() {
        for (good, bad, named) in [
            ("edition.workspace = true", "edition = \"2021\"", "edition"),
            ("license.workspace = true", "", "license"),
            ("b.workspace = true", "b = \"1\"", "`b.workspace"),
            (
                "winapi.workspace = true",
                "winapi = { version = \"1\" }",
                "`winapi.workspace",
            ),
            ("[lints]", "[other]", "[lints]"),
            ("description = \"A\"", "", "description"),
        ] {
            let found = messages(&GOOD.replace(good, bad));
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
            assert!(found[0].contains(named), "{bad}: {found:?}");
        }
    }

    #[test]
    fn a_private_crate_needs_no_description() {
        let private = GOOD.replace("description = \"A\"", "publish = false");
        assert_eq!(messages(&private), [""; 0]);
    }

    #[test]
    fn nonsense_is_reported() {
        assert_eq!(messages("[package").len(), 1);
    }
}
