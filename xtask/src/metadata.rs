//! The parts of `cargo metadata` that the checks read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::context::Context;

/// The workspace and everything it depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    /// Where all that is built lies.
    pub(crate) target_directory: PathBuf,
}

/// A package of the workspace or of a registry.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    /// Where it comes from; `None` is the workspace.
    pub(crate) source: Option<String>,
    /// Registries it may be published to: `None` is any, an empty list is none.
    publish: Option<Vec<String>>,
    pub(crate) rust_version: Option<String>,
    /// Features and what each turns on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as the manifest asks for it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal one; else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Package {
    /// Whether it is meant for a registry.
    pub(crate) fn is_published(&self) -> bool {
        self.publish
            .as_ref()
            .is_none_or(|registries| !registries.is_empty())
    }
}

impl Metadata {
    /// Asks Cargo.
    pub(crate) fn read(context: &Context) -> Result<Self> {
        let json = context
            .cargo(["metadata", "--format-version", "1", "--all-features"])
            .read()?;
        serde_json::from_str(&json).context("`cargo metadata` printed something unexpected")
    }

    /// The packages that come from elsewhere.
    pub(crate) fn externals(&self) -> impl Iterator<Item = &Package> {
        let external = |package: &&Package| !self.workspace_members.contains(&package.id);
        self.packages.iter().filter(external)
    }

    /// The packages of the workspace by name.
    pub(crate) fn members(&self) -> BTreeMap<&str, &Package> {
        let member = |package: &&Package| self.workspace_members.contains(&package.id);
        let members = self.packages.iter().filter(member);
        members
            .map(|package| (package.name.as_str(), package))
            .collect()
    }
}

/// A package with these fields of `cargo metadata`, for the tests of the checks.
#[cfg(test)]
pub(crate) fn package(fields: serde_json::Value) -> Package {
    let mut json = serde_json::json!({
        "id": "x", "name": "x", "version": "1.0.0", "dependencies": [], "features": {},
    });
    let fields = fields.as_object().unwrap().clone();
    json.as_object_mut().unwrap().extend(fields);
    serde_json::from_value(json).unwrap()
}
