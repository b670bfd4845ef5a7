//! What a caller may ask for. Every field is optional, and only what is set counts as asked for.

use crate::{
    Error, NetworkPolicy, Result, SandboxId, SnapshotId, TemplateId, command::validate_variable,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Settings that only some providers know, by names such as `e2b.auto_resume`. A provider refuses what it does not know.
pub type Extensions = BTreeMap<String, serde_json::Value>;

/// Declares an options struct of `Option` fields with a chained setter for each.
macro_rules! options {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        #[non_exhaustive]
        pub struct $name { $($(#[$fmeta])* pub $field: Option<$ty>),* }

        impl $name {
            /// Asks for nothing: the provider's defaults.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $(
                #[doc = concat!("Sets [`Self::", stringify!($field), "`].")]
                #[must_use]
                pub fn $field(mut self, value: impl Into<$ty>) -> Self {
                    self.$field = Some(value.into());
                    self
                }
            )*
        }
    };
}
pub(crate) use options;

/// What a new sandbox starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A prepared file tree.
    Template(TemplateId),
    /// The state of a sandbox at some moment.
    Snapshot(SnapshotId),
    /// The present state of another sandbox.
    Fork(SandboxId),
}

/// Who keeps a sandbox alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ownership {
    /// It ends with the provider value that made it, and so with the program, however that ends.
    Owned,
    /// It lives to the end of its lifetime, and any program may reach it by id.
    Detached,
}

/// What happens at the end of a lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Expiry {
    /// The sandbox is gone.
    Kill,
    /// The sandbox is paused and can be resumed.
    Pause,
}

/// Ceilings on what a sandbox uses. `None` is the provider's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Memory in bytes, page cache of its own files included.
    pub memory: Option<u64>,
    /// Processor time, in whole processors' worth; fractions are fine.
    pub cpus: Option<f64>,
    /// Processes and threads at a time.
    pub processes: Option<u64>,
    /// Bytes of files that differ from the template.
    pub disk: Option<u64>,
    /// Number of files that differ from the template.
    pub inodes: Option<u64>,
}

impl Limits {
    /// Asks for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Self::memory`], in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Sets [`Self::cpus`].
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// Sets [`Self::processes`].
    #[must_use]
    pub fn processes(mut self, processes: u64) -> Self {
        self.processes = Some(processes);
        self
    }

    /// Sets [`Self::disk`], in bytes.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// Sets [`Self::inodes`].
    #[must_use]
    pub fn inodes(mut self, inodes: u64) -> Self {
        self.inodes = Some(inodes);
        self
    }
}

options! {
    /// How to make a sandbox.
    ///
    /// Only what is set counts as asked for: what the provider cannot honour of that is `Unsupported` before
    /// anything happens. A default that cannot be enforced is reported by
    /// [`SandboxProvider::enforcement`](crate::SandboxProvider::enforcement), not refused.
    pub struct CreateOptions {
        /// What it starts from.
        pub source: Source,
        /// A name for people, unique among the provider's living sandboxes.
        pub name: String,
        /// How long the sandbox lives, from its creation.
        pub lifetime: Duration,
        /// How long it may go without traffic from outside: somebody who follows a command, works with its files or reaches
        /// its ports. To ask what it does is none. It is not idle while it is paused.
        pub idle_timeout: Duration,
        /// What happens when one of the two is over.
        pub on_expiry: Expiry,
        /// Who keeps it alive.
        pub ownership: Ownership,
        /// Ceilings.
        pub limits: Limits,
        /// What it may reach.
        pub network: NetworkPolicy,
        /// Environment of every command.
        pub env: BTreeMap<String, String>,
        /// Labels to find it by.
        pub metadata: BTreeMap<String, String>,
        /// Settings that only this provider knows.
        pub extensions: Extensions,
    }
}

impl CreateOptions {
    /// Longest environment, in bytes of names and values and two for each variable: no system could give more to a
    /// program.
    pub const MAX_ENV: usize = 1024 * 1024;

    /// Most labels, in bytes of keys and values and two for each label.
    pub const MAX_METADATA: usize = 64 * 1024;

    /// Starts from a template.
    #[must_use]
    pub fn template(self, template: impl Into<TemplateId>) -> Self {
        self.source(Source::Template(template.into()))
    }

    /// Adds one variable to [`Self::env`].
    #[must_use]
    pub fn env_var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env
            .get_or_insert_default()
            .insert(name.into(), value.into());
        self
    }

    /// Adds one label to [`Self::metadata`].
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    /// Refuses what makes no sense whatever the provider is. Providers call it first, so that all of them refuse the
    /// same.
    ///
    /// # Errors
    /// `InvalidArgument` for a lifetime, an idle timeout or a limit that is zero, processors that are no positive number,
    /// a variable that no program could be given, and more than [`Self::MAX_ENV`] of them or [`Self::MAX_METADATA`] of
    /// labels.
    pub fn validate(&self) -> Result<()> {
        let times = [
            ("lifetime", self.lifetime),
            ("idle timeout", self.idle_timeout),
        ];
        for (what, time) in times {
            if time == Some(Duration::ZERO) {
                return Err(Error::invalid(format!("the {what} must not be zero")));
            }
        }
        let limits = self.limits.unwrap_or_default();
        let numbers = [
            ("memory", limits.memory),
            ("processes", limits.processes),
            ("disk", limits.disk),
            ("inodes", limits.inodes),
        ];
        for (what, number) in numbers {
            if number == Some(0) {
                return Err(Error::invalid(format!(
                    "the limit on {what} must not be zero"
                )));
            }
        }
        if limits
            .cpus
            .is_some_and(|cpus| !cpus.is_finite() || cpus <= 0.0)
        {
            return Err(Error::invalid(
                "the limit on processors must be a positive number",
            ));
        }
        for (name, value) in self.env.iter().flatten() {
            validate_variable(name, value)?;
        }
        validate_size("the environment", self.env.as_ref(), Self::MAX_ENV)?;
        validate_size("metadata", self.metadata.as_ref(), Self::MAX_METADATA)
    }
}

fn validate_size(what: &str, map: Option<&BTreeMap<String, String>>, most: usize) -> Result<()> {
    let pairs = map.into_iter().flatten();
    let size = pairs.map(|(key, value)| key.len() + value.len() + 2);
    if size.sum::<usize>() > most {
        let message = format!("{what} must not be longer than {} KiB in all", most / 1024);
        return Err(Error::invalid(message));
    }
    Ok(())
}

options! {
    /// How to reach a sandbox that exists. Connecting may resume it and may extend its life.
    pub struct ConnectOptions {
        /// How long it lives from now on.
        pub lifetime: Duration,
    }
}

options! {
    /// Which sandboxes to list.
    pub struct ListOptions {
        /// Only those that carry all these labels.
        pub metadata: BTreeMap<String, String>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_makes_no_sense_anywhere_is_invalid() {
        let limited = |limits| CreateOptions::new().limits(limits);
        let senseless = [
            CreateOptions::new().lifetime(Duration::ZERO),
            CreateOptions::new().idle_timeout(Duration::ZERO),
            limited(Limits::new().memory(0)),
            limited(Limits::new().inodes(0)),
            limited(Limits::new().cpus(0.0)),
            limited(Limits::new().cpus(f64::NAN)),
            limited(Limits::new().cpus(f64::INFINITY)),
            CreateOptions::new().env_var("A=B", ""),
            CreateOptions::new().env_var("A", "x".repeat(CreateOptions::MAX_ENV - 2)),
            CreateOptions::new().label("", "x".repeat(CreateOptions::MAX_METADATA - 1)),
        ];
        for options in senseless {
            let error = options.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{options:?}");
        }
    }

    #[test]
    fn asking_for_nothing_or_little_is_fine() {
        let little = Limits::new().memory(1).cpus(0.001).processes(1);
        let options = CreateOptions::new()
            .limits(little)
            .env_var("A", "x".repeat(CreateOptions::MAX_ENV - 3))
            .label("", "x".repeat(CreateOptions::MAX_METADATA - 2));
        assert!(options.validate().is_ok());
        assert!(CreateOptions::new().validate().is_ok());
    }
}
