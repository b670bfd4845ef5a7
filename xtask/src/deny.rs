//! `cargo xtask deny`: may we ship with these dependencies? Licences against `deny.toml`, and where they come from.
//!
//! Known vulnerabilities are another step, `advisories`.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use spdx::{Expression, ParseMode};

use crate::{context::Context, metadata::Package, report::Outcome};

/// The parts of `deny.toml` that are read here.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    /// Licences, possibly with an exception, as `Apache-2.0 WITH LLVM-exception`.
    allow: BTreeSet<String>,
}

/// Checks every package that the workspace depends on, for all systems and features.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let file = context.root().join("deny.toml");
    let policy: Policy = toml::from_str(&fs::read_to_string(file)?).context("deny.toml")?;
    let metadata = context.metadata()?;
    let mut problems = Vec::new();
    let mut count = 0;
    for package in metadata.externals() {
        count += 1;
        let found = [origin(package), licence(package, &policy.licenses.allow)];
        let named = |problem| format!("{} {}: {problem}", package.name, package.version);
        problems.extend(found.into_iter().flatten().map(named));
    }
    if problems.is_empty() {
        return Ok(Outcome::PassedOn(format!("{count} packages")));
    }
    bail!("{}", problems.join("\n"))
}

/// What is wrong with where the package comes from.
fn origin(package: &Package) -> Option<String> {
    let source = package.source.as_deref().unwrap_or_default();
    let released = source.starts_with("registry+") || source.starts_with("sparse+");
    let message = "comes from neither a registry nor the workspace; use a released version";
    (!released).then(|| message.to_owned())
}

/// What is wrong with the package's licence.
fn licence(package: &Package, allowed: &BTreeSet<String>) -> Option<String> {
    let Some(text) = &package.license else {
        return Some("names no licence; use another crate".to_owned());
    };
    // Old crates write `MIT/Apache-2.0`.
    let expression = match Expression::parse_mode(text, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("licence `{text}` cannot be read: {}", error.reason)),
    };
    if expression.evaluate(|licence| allowed.contains(&licence.to_string())) {
        return None;
    }
    Some(format!(
        "licence `{text}` is not allowed by deny.toml; use another crate"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata;

    fn package(license: Option<&str>, source: Option<&str>) -> Package {
        metadata::package(serde_json::json!({ "license": license, "source": source }))
    }

    fn is_allowed(license: Option<&str>) -> bool {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
        let allowed = allowed.map(str::to_owned).into();
        licence(&package(license, None), &allowed).is_none()
    }

    #[test]
    fn one_of_several_licences_is_enough() {
        assert!(is_allowed(Some("MIT OR GPL-3.0-only")));
        assert!(is_allowed(Some("GPL-3.0-only OR (MIT AND Apache-2.0)")));
        assert!(is_allowed(Some("MIT/GPL-3.0-only")));
    }

    #[test]
    fn all_of_several_licences_are_needed() {
        assert!(is_allowed(Some("MIT AND Apache-2.0")));
        assert!(!is_allowed(Some("MIT AND GPL-3.0-only")));
        assert!(!is_allowed(Some("(MIT OR Apache-2.0) AND MPL-2.0")));
    }

    #[test]
    fn an_exception_belongs_to_the_licence() {
        assert!(is_allowed(Some("Apache-2.0 WITH LLVM-exception")));
        assert!(!is_allowed(Some("MIT WITH LLVM-exception")));
    }

    #[test]
    fn no_licence_and_nonsense_are_refused() {
        assert!(!is_allowed(None));
        assert!(!is_allowed(Some("")));
        assert!(!is_allowed(Some("MIT OR")));
        assert!(!is_allowed(Some("my own words")));
    }

    #[test]
    fn only_registries_are_an_origin() {
        let git = "git+https://example.com/x";
        assert!(origin(&package(None, Some(git))).is_some());
        assert!(origin(&package(None, None)).is_some());
        let registry = "registry+https://example.com/index";
        assert!(origin(&package(None, Some(registry))).is_none());
    }
}
