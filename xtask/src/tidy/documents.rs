//! Rules for the documents: links lead somewhere, and what repeats the workspace's manifest agrees with it.

use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::Problem;

/// The document that gives the reasons.
pub(super) const DESIGN: &str = "docs/DESIGN.md";

/// The front page.
pub(super) const README: &str = "README.md";

/// Checks that relative links of a Markdown file lead to files that exist.
pub(super) fn check_links(root: &Path, path: &str, text: &str) -> Vec<Problem> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut problems = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let targets = links(text).filter(|target| !target.contains(':'));
        for target in targets {
            let file = target.split('#').next().unwrap_or_default();
            let found = normal(&folder.join(file)).is_some_and(|file| root.join(file).exists());
            if !found {
                let message = format!("the link to {target} leads nowhere; correct or remove it");
                problems.push(Problem::new(path, message).at(line));
            }
        }
    }
    problems
}

/// Checks that the table of dependencies in [`DESIGN`] is that of the workspace's manifest.
pub(super) fn check_reasons(manifest: &str, design: &str) -> Vec<Problem> {
    let manifest: Table = manifest.parse().unwrap_or_default();
    let dependencies = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies")?.as_table());
    let external = |asked: &Value| asked.get("path").is_none();
    let used: Vec<_> = dependencies
        .into_iter()
        .flatten()
        .filter(|(_, asked)| external(asked))
        .map(|(name, _)| name.as_str())
        .collect();
    let explained = explained(design);
    let missing = used.iter().filter(|name| !explained.contains(*name));
    let missing = missing.map(|name| format!("add a row for `{name}`: why it is needed"));
    let stale = explained.iter().filter(|name| !used.contains(*name));
    let stale = stale.map(|name| format!("remove the row of `{name}`, which is not used"));
    missing
        .chain(stale)
        .map(|message| Problem::new(DESIGN, format!("table of dependencies: {message}")))
        .collect()
}

/// Checks that the README promises the compiler of the workspace's manifest.
pub(super) fn check_version(manifest: &str, readme: &str) -> Option<Problem> {
    let manifest: Table = manifest.parse().unwrap_or_default();
    let package = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("package"));
    let version = package.and_then(|package| package.get("rust-version")?.as_str());
    let promise = format!("Rust {} or newer", version?);
    let message = format!("does not say \"{promise}\", as `rust-version` in the workspace does");
    (!readme.contains(&promise)).then(|| Problem::new(README, message))
}

/// Names in backticks in the first column of the table below the heading `Dependencies`.
fn explained(design: &str) -> Vec<&str> {
    let section = design
        .split_once("\n## Dependencies\n")
        .map_or("", |(_, section)| section);
    let section = section.split("\n## ").next().unwrap_or_default();
    let first_columns = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    // Every second piece stands between backticks.
    let names = first_columns.flat_map(|column| column.split('`').skip(1).step_by(2));
    names.collect()
}

/// Targets of `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let ends = line.split("](").skip(1);
    ends.filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

/// The path without `..`; `None` if it leads out of the workspace.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir if normal.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn links_to_files_are_followed() {
        let good = "[a](../Cargo.toml#x) and [b](https://example.com/) and [c](#here)";
        assert_eq!(check_links(root(), "src/x.md", good), []);
        let bad = "text\n[a](main.rs), [b](gone.rs), [c](../../Cargo.toml)";
        let found = check_links(root(), "src/x.md", bad);
        let lines: Vec<_> = found.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(2), Some(2)]);
    }

    #[test]
    fn the_oldest_compiler_is_named() {
        let manifest = "[workspace.package]\nrust-version = \"1.89\"\n";
        assert_eq!(check_version(manifest, "x. Rust 1.89 or newer."), None);
        assert!(check_version(manifest, "x. Rust 1.8 or newer.").is_some());
    }

    #[test]
    fn each_dependency_has_one_reason() {
        let manifest =
            "[workspace.dependencies]\na = \"1\"\nb = { version = \"1\" }\nc = { path = \"c\" }\n";
        let table = "# D\n\n## Dependencies\n\n| Crate | Reason |\n|---|---|\n| `a`, `b` | no `z` |\n\n## E\n| `y` |";
        assert_eq!(check_reasons(manifest, table), []);
        let found = check_reasons(manifest, &table.replace("`b`", "`x`"));
        let messages: Vec<_> = found.iter().map(Problem::to_string).collect();
        assert_eq!(messages.len(), 2);
        assert!(messages[0].contains("add a row for `b`"));
        assert!(messages[1].contains("remove the row of `x`"));
    }
}
