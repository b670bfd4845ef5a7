//! The zygote as its library sees it, and the sandboxes it makes as the host sees them.
//!
//! Needs real root on Linux: it makes namespaces, mounts and processes, all of which end with the test.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod harness;
mod lifetimes;
mod rotation;
mod walls;
#[cfg(feature = "weaken")]
mod weakened;
