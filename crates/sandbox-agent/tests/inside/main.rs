//! What works inside a real sandbox: `sudo`, and the file worker as the host uses it.
//!
//! Needs real root on Linux: it makes namespaces, mounts and processes, all of which end with the test.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../pid1/client.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of PID 1, which need more of it"
)]
mod client;
mod files;
#[path = "../zygote/harness.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the zygote, which need more of it"
)]
mod harness;
mod sudo;
#[path = "../pid1/world.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of PID 1, which need more of it"
)]
mod world;
