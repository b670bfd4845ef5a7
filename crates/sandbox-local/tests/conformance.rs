//! The shared suite on the local provider, without and with a pool.

use sandbox_conformance::Harness;
use sandbox_core::SandboxProvider;
use sandbox_local::LocalProvider;
use std::{path::Path, process::ExitCode, sync::Arc};

const MIB: u64 = 1024 * 1024;

fn main() -> ExitCode {
    // Sizes as they are would show nothing about a pool that smaller ones do not.
    let pooled = harness(4)
        .name("pool")
        .large_file_bytes(64 * MIB)
        .output_bytes(16 * MIB);
    sandbox_conformance::run_all([harness(0), pooled])
}

fn harness(pool: usize) -> Harness {
    // One state for all runs, because a test runner may start a process for each case, and the template takes a while.
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    Harness::from_factory(move || {
        let builder = LocalProvider::builder().state_dir(&state).pool(pool);
        async move {
            builder
                .build()
                .map(|provider| Arc::new(provider) as Arc<dyn SandboxProvider>)
        }
    })
}
