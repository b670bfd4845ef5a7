//! PID 1 of a sandbox as the host sees it: real sandboxes, made by the zygote, and commands in them.
//!
//! Needs real root on Linux: it makes namespaces, mounts and processes, all of which end with the test.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod begin;
mod claim;
mod client;
mod end;
#[path = "../zygote/harness.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the zygote, which need more of it"
)]
mod harness;
mod limits;
mod network;
mod output;
mod pause;
mod peers;
mod share;
mod start;
mod stdin;
mod terminal;
mod timeout;
mod world;
