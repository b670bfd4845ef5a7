//! The parts of `cargo metadata` that the checks read.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::context::Context;

/// The workspace and everything it depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
}

/// A package of the workspace or of a registry.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as the manifest asks for it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal one; else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Asks Cargo.
    pub(crate) fn read(context: &Context) -> Result<Self> {
        let json = context
            .cargo(["metadata", "--format-version", "1", "--all-features"])
            .read()?;
        serde_json::from_str(&json).context("`cargo metadata` printed something unexpected")
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
