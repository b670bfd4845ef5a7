//! A policy as it is written down, and the check that it makes sense.

use super::{PolicyLayer, path, rules::Rules};
use crate::call::OPERATIONS;
use sandbox_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a rule does with the calls that it fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Effect {
    /// They are made.
    Allow,
    /// They are refused.
    #[default]
    Deny,
}

/// What a call does to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Access {
    /// It looks: read, stat, list, glob; also at what is renamed, and through a link that is made.
    Read,
    /// It changes: write, mkdir, rename, symlink, remove, set_permissions; also through a link that is made.
    Write,
}

/// What happens to a limit or lifetime that is above its ceiling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Excess {
    /// The creation is refused.
    #[default]
    Refuse,
    /// The ceiling is asked for instead.
    Clamp,
}

/// A kind of network policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Network {
    /// [`NetworkPolicy::Off`](sandbox_core::NetworkPolicy::Off).
    Off,
    /// [`NetworkPolicy::Public`](sandbox_core::NetworkPolicy::Public).
    Public,
    /// [`NetworkPolicy::Rules`](sandbox_core::NetworkPolicy::Rules), whatever they are.
    Rules,
}

/// A policy as it comes from a file: any format that serde reads. What is not known is an error.
///
/// ```
/// # use sandbox_layers::PolicyConfig;
/// let policy: PolicyConfig = serde_json::from_str(r#"{
///     "default": "allow",
///     "home": "/home/user",
///     "rules": [
///         { "name": "keys stay", "effect": "deny", "paths": ["/home/user/.ssh"] },
///         { "name": "tools", "effect": "allow", "operations": ["spawn"], "programs": ["python3", "cargo"] },
///         { "name": "no other programs", "effect": "deny", "operations": ["spawn", "pty.spawn"] }
///     ],
///     "create": { "networks": ["off"], "limits": { "memory": 536870912 }, "metadata": ["task"] }
/// }"#).unwrap();
/// let layer = policy.build().unwrap();
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicyConfig {
    /// What happens to calls that no rule fits. It has no default.
    pub default: Effect,
    /// The home directory of the sandboxes' default user, at which relative paths start. Without it they could be
    /// anywhere: every rule with paths that denies fits them, and none that allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// The first one that fits decides.
    #[serde(default)]
    pub rules: Vec<PolicyRule>,
    /// What new sandboxes may be.
    #[serde(default)]
    pub create: CreateRules,
}

/// A rule fits a call if all that it names does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicyRule {
    /// What errors call it. Unique.
    pub name: String,
    /// What it does.
    pub effect: Effect,
    /// Operations by the names that errors use, or `files.*` for a whole group. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// Programs of commands that are no scripts. A name without `/` is one that is looked up in `PATH`; a rule that denies
    /// fits it at any path. Empty: all commands, and what is no command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// Only commands that are scripts (`true`) or programs (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<bool>,
    /// Absolute paths, each with all that is below it. Empty: all file calls, and what is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Only file calls that look, or that change something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// What new sandboxes may be. What is not set is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CreateRules {
    /// Templates to start from. Who asks for none gets the first. Snapshots and forks are then refused unless
    /// [`Self::snapshots`] and [`Self::forks`] allow them.
    pub templates: Option<Vec<String>>,
    /// Whether a sandbox may start from a snapshot.
    pub snapshots: Option<bool>,
    /// Whether a sandbox may start from another one.
    pub forks: Option<bool>,
    /// Kinds of network to ask for. Who asks for none gets the first, which must not be `rules`.
    pub networks: Option<Vec<Network>>,
    /// Ceilings. Who asks for no limit gets the ceiling.
    pub limits: LimitRules,
    /// Longest lifetime in seconds, also by `connect` and `set_lifetime`. Who asks for none gets it.
    pub lifetime: Option<u64>,
    /// What happens above a ceiling.
    pub excess: Excess,
    /// Whether sandboxes may outlive the program that makes them.
    pub detached: Option<bool>,
    /// Labels that each sandbox must carry, with a value that is not empty.
    pub metadata: Vec<String>,
    /// Extensions that may be asked for.
    pub extensions: Option<Vec<String>>,
}

/// Ceilings, as [`Limits`](sandbox_core::Limits) has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitRules {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processor time, in whole processors' worth.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Bytes of files.
    pub disk: Option<u64>,
    /// Number of files.
    pub inodes: Option<u64>,
}

impl PolicyConfig {
    /// No rules yet.
    #[must_use]
    pub fn new(default: Effect) -> Self {
        Self {
            default,
            ..Self::default()
        }
    }

    /// Sets [`Self::home`].
    #[must_use]
    pub fn home(mut self, home: impl Into<String>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// Adds a rule, after those that are there.
    #[must_use]
    pub fn rule(mut self, rule: PolicyRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Sets [`Self::create`].
    #[must_use]
    pub fn create(mut self, create: CreateRules) -> Self {
        self.create = create;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    /// `InvalidArgument`, which names the rule, for one that has no name or that of another, an operation that does not
    /// exist, a path that is not absolute, conditions that can never hold together, an empty list of what is allowed, and
    /// a ceiling that is no positive number.
    pub fn build(self) -> Result<PolicyLayer> {
        if let Some(home) = &self.home {
            check_path(home).map_err(|error| error.with_context("rule", "home"))?;
        }
        let mut names = Vec::new();
        for rule in &self.rules {
            let name = rule.name.as_str();
            let reserved = name.is_empty() || name == "default" || name.starts_with("create.");
            if reserved || names.contains(&name) {
                let message = "a rule needs a name of its own, other than `default` and `create.…`";
                return Err(Error::invalid(message).with_context("rule", name.escape_debug()));
            }
            names.push(name);
            let named = |error: Error| error.with_context("rule", name.escape_debug());
            rule.check().map_err(named)?;
        }
        self.create.check()?;
        Ok(PolicyLayer::of(Rules::new(self)))
    }
}

impl PolicyRule {
    /// A rule that fits every call.
    #[must_use]
    pub fn new(name: impl Into<String>, effect: Effect) -> Self {
        Self {
            name: name.into(),
            effect,
            ..Self::default()
        }
    }

    /// Sets [`Self::operations`].
    #[must_use]
    pub fn operations(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.operations = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`Self::programs`].
    #[must_use]
    pub fn programs(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.programs = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`Self::shell`].
    #[must_use]
    pub fn shell(mut self, scripts: bool) -> Self {
        self.shell = Some(scripts);
        self
    }

    /// Sets [`Self::paths`].
    #[must_use]
    pub fn paths(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.paths = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`Self::access`].
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    fn check(&self) -> Result<()> {
        for operation in &self.operations {
            let group = operation.strip_suffix('*');
            let known = |name: &str| match group {
                Some(group) => group.ends_with('.') && name.starts_with(group),
                None => name == operation,
            };
            if !OPERATIONS.iter().any(|name| known(name)) {
                let message = format!("there is no operation `{}`", operation.escape_debug());
                return Err(Error::invalid(message));
            }
        }
        for path in &self.paths {
            check_path(path)?;
        }
        if self.programs.iter().any(String::is_empty) {
            return Err(Error::invalid("a program must have a name"));
        }
        let command = !self.programs.is_empty() || self.shell.is_some();
        let file = !self.paths.is_empty() || self.access.is_some();
        let never = (command && file) || (!self.programs.is_empty() && self.shell == Some(true));
        if never {
            return Err(Error::invalid(
                "its conditions can never hold together, make a rule of each",
            ));
        }
        Ok(())
    }
}

impl CreateRules {
    fn check(&self) -> Result<()> {
        let invalid = |rule: &str, message: &'static str| {
            Err(Error::invalid(message).with_context("rule", rule))
        };
        if self.templates.as_ref().is_some_and(Vec::is_empty) {
            return invalid("create.templates", "name at least one template");
        }
        match self.networks.as_deref() {
            Some([]) => return invalid("create.networks", "name at least one kind"),
            Some([Network::Rules, ..]) => {
                let message =
                    "the first kind is what is asked for by default, and must not be rules";
                return invalid("create.networks", message);
            }
            _ => {}
        }
        let LimitRules {
            memory,
            cpus,
            processes,
            disk,
            inodes,
        } = self.limits;
        let numbers = [memory, processes, disk, inodes, self.lifetime];
        let positive = cpus.is_none_or(|cpus| cpus.is_finite() && cpus > 0.0);
        if numbers.contains(&Some(0)) || !positive {
            return invalid("create.limits", "a ceiling must be a positive number");
        }
        Ok(())
    }
}

fn check_path(text: &str) -> Result<()> {
    let path = sandbox_core::SandboxPath::new(text)?;
    match path::normal(&path, None) {
        Some(_) => Ok(()),
        None => Err(Error::invalid("a path of a policy must be absolute")
            .with_context("path", text.escape_debug())),
    }
}
