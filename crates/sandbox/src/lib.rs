#![doc = include_str!("../README.md")]

mod registry;

/// The program in the workspace's README is compiled as the examples here are.
#[cfg(all(doctest, feature = "local"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub use registry::{Open, Registry};
pub use sandbox_core::*;

/// Behaviour that goes around any provider: time limits, retries, bounds on concurrency, policies, audit records and traces.
#[cfg(feature = "layers")]
pub use sandbox_layers as layers;
/// Sandboxes on this machine.
#[cfg(feature = "local")]
pub use sandbox_local as local;
/// Servers in sandboxes: by name over HTTP, by a port of this machine, and as soon as they are ready.
#[cfg(feature = "proxy")]
pub use sandbox_proxy as proxy;

/// What a program that uses sandboxes needs in scope.
pub mod prelude {
    pub use crate::Registry;
    pub use sandbox_core::prelude::*;
}
