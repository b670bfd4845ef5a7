//! The suite on the fake below each layer, and on real sandboxes below all of them: a layer changes nothing but its own concern.

use sandbox_conformance::Harness;
use sandbox_core::{ProviderExt, Result, SandboxProvider, fake::FakeProvider};
use sandbox_layers::{
    AuditLayer, ConcurrencyLayer, Effect, MemorySink, PolicyConfig, PolicyLayer, PolicyRule,
    RetryLayer, TimeoutLayer, TracingLayer,
};
use sandbox_local::LocalProvider;
use std::{process::ExitCode, sync::Arc, time::Duration};

const MIB: u64 = 1024 * 1024;

fn main() -> ExitCode {
    let state = tempfile::TempDir::with_prefix("sandbox-layers-");
    let path = state
        .as_ref()
        .map(|directory| directory.path().to_owned())
        .unwrap_or_default();
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

fn timeout() -> TimeoutLayer {
    TimeoutLayer::new(Duration::from_secs(60))
}

/// One call at a time to a sandbox, so that one that waits for another would hang.
fn concurrency() -> ConcurrencyLayer {
    ConcurrencyLayer::new()
        .calls(64)
        .calls_per_sandbox(1)
        .processes(1024)
}

fn audit() -> AuditLayer {
    AuditLayer::new(MemorySink::new())
        .command_lines()
        .fail_closed()
}

/// Rules that are looked at for every call, and deny none of the suite's.
fn policy() -> Result<PolicyLayer> {
    PolicyConfig::new(Effect::Deny)
        .home("/home/user")
        .rule(PolicyRule::new("somewhere", Effect::Allow).paths(["/home/user", "/tmp"]))
        .rule(PolicyRule::new("nothing", Effect::Deny).programs(["program of a policy"]))
        .rule(PolicyRule::new("all else", Effect::Allow))
        .build()
}

fn fake(name: &str, provider: impl SandboxProvider) -> Harness {
    // Its files are in memory.
    Harness::new(Arc::new(provider))
        .name(name)
        .large_file_bytes(16 * MIB)
}
