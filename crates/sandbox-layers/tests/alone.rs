//! The whole suite on real sandboxes below each layer alone. All layers together are in `conformance.rs`.

use sandbox_conformance::Harness;
use sandbox_core::{Layer, ProviderExt, SandboxProvider};
use sandbox_layers::{RetryLayer, TracingLayer};
use sandbox_local::LocalProvider;
use std::{path::Path, sync::Arc};

mod layers;

const MIB: u64 = 1024 * 1024;

/// Most cases wait for a clock or a program, and not for a processor.
const AT_ONCE: usize = 12;

/// Fewer cases than this are not the suite.
const FEWEST: usize = 200;

#[track_caller]
fn changes_nothing(name: &str, layer: impl Layer + Clone) {
    // Each has its own, for names that cases give are the same in all.
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("alone-{name}"));
    let harness = Harness::from_factory(move || {
        let builder = LocalProvider::builder().state_dir(&state);
        let layer = layer.clone();
        async move { Ok(Arc::new(builder.build()?.layer(layer)) as Arc<dyn SandboxProvider>) }
    });
    // Sizes as they are would show nothing about a layer that smaller ones do not.
    let harness = harness.large_file_bytes(8 * MIB).output_bytes(4 * MIB);
    match sandbox_conformance::check(harness, AT_ONCE) {
        Ok(passed) => assert!(passed >= FEWEST, "only {passed} cases were run"),
        Err(failed) => panic!("{failed}"),
    }
}

#[test]
fn timeout() {
    changes_nothing("timeout", layers::timeout());
}

#[test]
fn retry() {
    changes_nothing("retry", RetryLayer::new());
}

#[test]
fn concurrency() {
    changes_nothing("concurrency", layers::concurrency());
}

#[test]
fn policy() {
    changes_nothing("policy", layers::policy().unwrap());
}

#[test]
fn audit() {
    changes_nothing("audit", layers::audit());
}

#[test]
fn tracing() {
    changes_nothing("tracing", TracingLayer::new());
}
