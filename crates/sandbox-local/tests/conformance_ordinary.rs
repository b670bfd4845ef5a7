//! The shared suite on the local provider of an ordinary user. Started by root, it becomes one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ordinary;

use sandbox_conformance::Harness;
use sandbox_core::SandboxProvider;
use sandbox_local::LocalProvider;
use std::{env, os::unix::process::CommandExt, process::ExitCode, sync::Arc};

const MIB: u64 = 1024 * 1024;

fn main() -> ExitCode {
    if !ordinary::is_ordinary() {
        let failed = ordinary::this_program(None)
            .args(env::args_os().skip(1))
            .exec();
        panic!("this program could not be started again: {failed}");
    }
    let provider = || async {
        LocalProvider::new().map(|provider| Arc::new(provider) as Arc<dyn SandboxProvider>)
    };
    // Sizes as they are would show nothing that they do not show for root.
    let harness = Harness::from_factory(provider).name("ordinary");
    sandbox_conformance::run(harness.large_file_bytes(64 * MIB).output_bytes(16 * MIB))
}
