//! The local provider beyond the contract: who keeps a sandbox alive, what is left of it, and what limits it.
//!
//! Needs root, as the provider does so far. Each test has a state directory of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crowds;
mod doctor;
mod images;
mod imports;
mod leftovers;
mod life;
mod limits;
mod pool;
mod snapshots;
mod support;
mod template;
mod trees;
