//! Opaque identifiers. Only the provider that made one knows what it means.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Wraps what a provider, a user or a file called the id. Whether it exists shows when it is used.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into().into_boxed_str())
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self::new(id)
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self::new(id)
            }
        }
    )*};
}

ids! {
    /// Names a sandbox at its provider.
    SandboxId,
    /// Names a template: what a new sandbox starts from.
    TemplateId,
    /// Names a snapshot of a sandbox.
    SnapshotId,
    /// Names a process within its sandbox; never used again there.
    ProcessId,
    /// Names a background job.
    JobId,
    /// Names a slot of a manager.
    SlotId,
}
