//! What hostile code tries from inside a sandbox, and that it gets nowhere.
//!
//! Each attempt is a small program that shows its success by what it prints. It runs in a sandbox with all walls and
//! must fail in exactly the expected way. So that a failure means the wall and not a mistake in the attempt, each has a
//! control: the same program succeeds in a sandbox from which the walls in question are taken away (feature `weaken`),
//! or on the host, where that is harmless: it reads a planted decoy, or makes a call that can only fail later.
//!
//! Needs root and python3. Destructive attempts run inside sandboxes only, and under limits.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod agent;
#[path = "../ordinary/alone.rs"]
mod alone;
mod archives;
mod as_ordinary;
mod as_subordinate;
mod attempt;
mod bombs;
mod calls;
mod common;
mod devices;
mod disks;
mod environment;
mod file_races;
mod file_types;
mod forks;
mod host_files;
#[path = "../ordinary/ids.rs"]
mod ids;
#[path = "../it/images.rs"]
mod images;
mod lab;
mod mounts;
mod namespaces;
mod neighbours;
mod network;
#[path = "../ordinary/mod.rs"]
mod ordinary;
mod output;
#[path = "../ordinary/pass.rs"]
mod pass;
mod pauses;
mod privileges;
mod proc_files;
mod programs;
mod sudo;
mod terminals;
mod walls;
mod way_out;
