//! Runs the real command on the local provider, as a person or a script would.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of an integration test for a program"
)]

mod copies;
mod exec;
mod forks;
mod full_disk;
mod interrupts;
mod lists;
mod look;
mod network;
mod run;
mod servers;
mod support;
mod templates;
mod terminal;
mod volumes;
