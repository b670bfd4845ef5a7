//! What sandboxes reach, in a world of the test's own: network namespaces from which there is no way out, with servers
//! on all addresses there are. A connection that should not be made would arrive, and be seen.
//!
//! The tests proper are run by `runs`, once for each kind of user, and are ignored elsewhere. Needs root, python3 and iproute2.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod changes;
mod crowds;
mod detached;
#[expect(dead_code, reason = "other tests need the rest of it")]
#[path = "../ordinary/ids.rs"]
mod ids;
mod names;
#[path = "../ordinary/mod.rs"]
mod ordinary;
mod packages;
#[expect(dead_code, reason = "other tests need the rest of it")]
#[path = "../ordinary/pass.rs"]
mod pass;
mod runs;
mod world;
