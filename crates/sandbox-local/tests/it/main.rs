//! The local provider beyond the contract: who keeps a sandbox alive, what is left of it, and what limits it.
//!
//! Needs root, who also runs it again as an ordinary user. Each test has a state directory of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../ordinary/alone.rs"]
mod alone;
mod as_ordinary;
mod as_subordinate;
mod crowds;
mod doctor;
mod filesystems;
#[path = "../ordinary/ids.rs"]
mod ids;
mod images;
mod imports;
mod leftovers;
mod life;
mod limits;
mod network;
mod odd_imports;
#[path = "../ordinary/mod.rs"]
mod ordinary;
mod own_limits;
#[path = "../ordinary/pass.rs"]
mod pass;
mod pool;
mod rotations;
mod snapshots;
mod support;
mod template;
mod trees;
mod volumes;
