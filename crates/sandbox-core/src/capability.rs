//! What a provider can do, and what of a sandbox's walls and limits really holds.

use serde::Serialize;
use std::{borrow::Cow, time::Duration};

/// What a provider or a sandbox can do.
///
/// The flags repeat the accessors of [`Sandbox`](crate::Sandbox) and of its provider, so that they can be read before one exists;
/// the conformance suite compares the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`Sandbox::pty`](crate::Sandbox::pty).
    pub pty: bool,
    /// [`Sandbox::attach`](crate::Sandbox::attach).
    pub attach: bool,
    /// [`Sandbox::lifecycle`](crate::Sandbox::lifecycle).
    pub lifecycle: bool,
    /// [`Sandbox::pause`](crate::Sandbox::pause).
    pub pause: bool,
    /// [`Sandbox::snapshots`](crate::Sandbox::snapshots).
    pub snapshots: bool,
    /// [`Sandbox::ports`](crate::Sandbox::ports).
    pub ports: bool,
    /// [`Sandbox::previews`](crate::Sandbox::previews).
    pub previews: bool,
    /// [`Sandbox::network`](crate::Sandbox::network). Sandboxes can be made with a policy that lets them reach something,
    /// which can be changed later.
    pub network: bool,
    /// [`Sandbox::watch`](crate::Sandbox::watch).
    pub watch: bool,
    /// [`Sandbox::metrics`](crate::Sandbox::metrics).
    pub metrics: bool,
    /// [`SandboxProvider::templates`](crate::SandboxProvider::templates).
    pub templates: bool,
    /// Commands run for real: there is a shell with the usual tools.
    pub shell: bool,
    /// Standard input can be kept open.
    pub stdin: bool,
    /// Standard error comes apart from standard output.
    pub split_stderr: bool,
    /// Signals other than KILL reach a process.
    pub signals: bool,
    /// A range of a file is read without reading all of it.
    pub range_read: bool,
    /// Symbolic links can be made by [`Files::symlink`](crate::Files::symlink).
    pub symlinks: bool,
    /// Commands and file calls can act as another user.
    pub users: bool,
    /// Sandboxes can outlive the program that made them.
    pub detached: bool,
    /// Longest lifetime, if there is one.
    pub max_lifetime: Option<Duration>,
}

impl Capabilities {
    /// Nothing but spawn, files and kill. Set the rest field by field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// How far a wall or limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Enforcement {
    /// It holds.
    Enforced,
    /// It holds with the exceptions that the detail names.
    Partial,
    /// It does not hold.
    NotEnforced,
}

/// One wall or limit of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Wall {
    /// Which one: `memory`, `seccomp`, `network`.
    pub name: Cow<'static, str>,
    /// How far it holds.
    pub enforcement: Enforcement,
    /// By what, or why not and what would help.
    pub detail: String,
}

impl Wall {
    /// Names a wall, how far it holds, and by what or why not.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        enforcement: Enforcement,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            enforcement,
            detail: detail.into(),
        }
    }
}

/// What would hold, partly hold, or not hold of a sandbox made with given options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EnforcementReport {
    /// Each wall and limit once.
    pub walls: Vec<Wall>,
}

impl EnforcementReport {
    /// A report of these walls.
    #[must_use]
    pub fn new(walls: Vec<Wall>) -> Self {
        Self { walls }
    }

    /// The wall of this name.
    #[must_use]
    pub fn wall(&self, name: &str) -> Option<&Wall> {
        self.walls.iter().find(|wall| wall.name == name)
    }

    /// Whether everything holds without exception.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.walls
            .iter()
            .all(|wall| wall.enforcement == Enforcement::Enforced)
    }
}
