//! The suite on the fake below each layer, and on real sandboxes below all of them: a layer changes nothing but its own concern.

use sandbox_conformance::Harness;
use sandbox_core::{ProviderExt, SandboxProvider, fake::FakeProvider};
use sandbox_layers::{RetryLayer, TracingLayer};
use sandbox_local::LocalProvider;
use std::{path::Path, process::ExitCode, sync::Arc};

mod layers;

use layers::{audit, concurrency, policy, timeout};

const MIB: u64 = 1024 * 1024;

fn main() -> ExitCode {
    // One state for all, because a test runner may start a process for each case, and the template takes a while.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layers");
    let local = Harness::from_factory(move || {
        let builder = LocalProvider::builder().state_dir(&path);
        async move {
            let provider = builder
                .build()?
                .layer(timeout())
                .layer(RetryLayer::new())
                .layer(concurrency())
                .layer(policy()?)
                .layer(audit())
                .layer(TracingLayer::new());
            Ok(Arc::new(provider) as Arc<dyn SandboxProvider>)
        }
    });
    // Sizes as they are would show nothing about layers that smaller ones do not.
    let local = local
        .name("local")
        .large_file_bytes(128 * MIB)
        .output_bytes(32 * MIB);
    let Ok(allowed) = policy() else {
        return ExitCode::FAILURE;
    };
    sandbox_conformance::run_all([
        fake("timeout", FakeProvider::new().layer(timeout())),
        fake("audit", FakeProvider::new().layer(audit())),
        fake("concurrency", FakeProvider::new().layer(concurrency())),
        fake("policy", FakeProvider::new().layer(allowed)),
        fake("retry", FakeProvider::new().layer(RetryLayer::new())),
        fake("tracing", FakeProvider::new().layer(TracingLayer::new())),
        local,
    ])
}

fn fake(name: &str, provider: impl SandboxProvider) -> Harness {
    // Its files are in memory.
    Harness::new(Arc::new(provider))
        .name(name)
        .large_file_bytes(16 * MIB)
}
