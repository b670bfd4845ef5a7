//! The suite on the fake below each layer: a layer changes nothing but its own concern.

use sandbox_conformance::Harness;
use sandbox_core::{ProviderExt, SandboxProvider, fake::FakeProvider};
use sandbox_layers::{TimeoutLayer, TracingLayer};
use std::{process::ExitCode, sync::Arc, time::Duration};

fn main() -> ExitCode {
    let timeout = TimeoutLayer::new(Duration::from_secs(60));
    let tracing = TracingLayer::new();
    sandbox_conformance::run_all([
        harness("timeout", FakeProvider::new().layer(timeout)),
        harness("tracing", FakeProvider::new().layer(tracing)),
    ])
}

fn harness(name: &str, provider: impl SandboxProvider) -> Harness {
    // Files of the fake are in memory.
    Harness::new(Arc::new(provider))
        .name(name)
        .large_file_bytes(16 * 1024 * 1024)
}
