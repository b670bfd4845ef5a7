//! The shared suite on the local provider.

use sandbox_conformance::Harness;
use sandbox_core::SandboxProvider;
use sandbox_local::LocalProvider;
use std::{path::Path, process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    // One state for all runs, because a test runner may start a process for each case, and the template takes a while.
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    sandbox_conformance::run(Harness::from_factory(move || {
        let builder = LocalProvider::builder().state_dir(&state);
        async move {
            builder
                .build()
                .map(|provider| Arc::new(provider) as Arc<dyn SandboxProvider>)
        }
    }))
}
