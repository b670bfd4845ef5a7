//! What a case is: a name, what it needs, and its code.

use crate::{case::Case, failure::Result};
use futures_util::future::BoxFuture;
use sandbox_core::Capabilities;
use std::sync::Arc;

/// One case of the suite.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    /// `group::what_holds`.
    pub(crate) name: &'static str,
    /// What a provider must be able to do.
    pub(crate) needs: &'static [Need],
    /// The code.
    pub(crate) run: fn(Arc<Case>) -> BoxFuture<'static, Result>,
}

impl Spec {
    /// The first thing that `capabilities` lack.
    pub(crate) fn missing(&self, capabilities: &Capabilities) -> Option<Need> {
        let lacks = |need: &&Need| !need.is_met(capabilities);
        self.needs.iter().find(lacks).copied()
    }
}

macro_rules! needs {
    ($($need:ident $flag:ident),* $(,)?) => {
        /// A capability that a case is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Need { $($need),* }

        impl Need {
            /// Whether a provider has it.
            pub(crate) fn is_met(self, capabilities: &Capabilities) -> bool {
                match self { $(Self::$need => capabilities.$flag),* }
            }

            /// The flag's name.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$need => stringify!($flag)),* }
            }
        }
    };
}
needs! {
    Shell shell, Pty pty, Attach attach, Stdin stdin, SplitStderr split_stderr, Signals signals,
    RangeRead range_read, Users users, Detached detached, Lifecycle lifecycle, Pause pause,
    Snapshots snapshots, Ports ports, Previews previews, Templates templates,
    Symlinks symlinks, Network network, Watch watch, Metrics metrics,
}

/// Declares a module's cases: `name [Need, Need],`. A case that is forgotten here is dead code, and so a warning.
macro_rules! cases {
    ($group:literal: $($name:ident $([$($need:ident),*])?,)*) => {
        pub(crate) const CASES: &[$crate::spec::Spec] = &[$($crate::spec::Spec {
            name: concat!($group, "::", stringify!($name)),
            needs: &[$($($crate::spec::Need::$need),*)?],
            run: |case| Box::pin(async move { $name(&case).await }),
        }),*];
    };
}
pub(crate) use cases;
