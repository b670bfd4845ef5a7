//! The suite on the fake, which has files and everything but commands.

use sandbox_conformance::Harness;
use sandbox_core::fake::FakeProvider;
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    // Its files are in memory.
    let harness = Harness::new(Arc::new(FakeProvider::new())).large_file_bytes(32 * 1024 * 1024);
    sandbox_conformance::run(harness)
}
