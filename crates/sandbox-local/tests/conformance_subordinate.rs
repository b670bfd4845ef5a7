//! The shared suite on the local provider of an ordinary user who has both subordinate ids and a cgroup of version 2.
//! Started by root, it becomes one; where there is no version 2 to delegate, what needs it shows as ignored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "ordinary/delegated.rs"]
mod delegated;
mod ordinary;

use sandbox_conformance::Harness;
use sandbox_core::SandboxProvider;
use sandbox_local::LocalProvider;
use std::{env, process::ExitCode, sync::Arc};

const MIB: u64 = 1024 * 1024;

fn main() -> ExitCode {
    if !ordinary::is_ordinary() {
        let mut program = ordinary::this_program(Some("1600000000:65536"));
        let mut program = delegated::delegated(program.args(env::args_os().skip(1)));
        let status = program.status().unwrap();
        return ExitCode::from(status.code().map_or(1, |code| code as u8));
    }
    let provider = || async {
        LocalProvider::new().map(|provider| Arc::new(provider) as Arc<dyn SandboxProvider>)
    };
    let harness = Harness::from_factory(provider).name("subordinate");
    sandbox_conformance::run(harness.large_file_bytes(64 * MIB).output_bytes(16 * MIB))
}
