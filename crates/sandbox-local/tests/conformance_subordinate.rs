//! The shared suite on the local provider of an ordinary user with subordinate ids. Started by root, it becomes one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ordinary;

use sandbox_conformance::Harness;
use sandbox_core::SandboxProvider;
use sandbox_local::LocalProvider;
use std::{env, os::unix::process::CommandExt, process::ExitCode, sync::Arc};

const MIB: u64 = 1024 * 1024;

fn main() -> ExitCode {
    if !ordinary::is_ordinary() {
        let mut program = ordinary::this_program(Some("1600000000:65536"));
        let failed = program.args(env::args_os().skip(1)).exec();
        panic!("this program could not be started again: {failed}");
    }
    let provider = || async {
        LocalProvider::new().map(|provider| Arc::new(provider) as Arc<dyn SandboxProvider>)
    };
    let harness = Harness::from_factory(provider).name("subordinate");
    sandbox_conformance::run(harness.large_file_bytes(64 * MIB).output_bytes(16 * MIB))
}
