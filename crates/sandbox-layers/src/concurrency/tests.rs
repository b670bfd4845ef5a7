//! Bounds around the fake: who waits, for whom, and who never does.

use super::*;
use crate::testing::{Stage, operations};
use futures_util::{FutureExt, TryStreamExt, future::join_all};
use sandbox_core::{
    CreateOptions, ListFilesOptions, ReadOptions, SandboxPath, WriteOptions,
    fake::{FakeProvider, Fault, Gate, Script},
    prelude::*,
};
use std::pin::pin;

const LONG: Duration = Duration::from_secs(3600);

/// Begins a call, or goes on with it, as far as it goes now.
fn waits(call: &mut (impl Future + Unpin)) -> bool {
    call.now_or_never().is_none()
}

fn began(fake: &FakeProvider, operation: &str) -> usize {
    let calls = fake.calls();
    calls
        .iter()
        .filter(|call| call.operation == operation)
        .count()
}

#[tokio::test(start_paused = true)]
async fn the_tightest_bounds_let_every_call_pass() {
    let layer = ConcurrencyLayer::new().calls(0).calls_per_sandbox(1);
    // The stage holds a process that never ends.
    let stage = Stage::new(layer.processes(2).processes_per_sandbox(2)).await;
    for operation in operations() {
        let ended = tokio::time::timeout(LONG, stage.call(operation)).await;
        ended.expect(operation).expect(operation);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_than_allowed_begin_and_all_end() {
    let fake = FakeProvider::new();
    let provider = fake
        .clone()
        .layer(ConcurrencyLayer::new().calls(5).calls_per_sandbox(2));
    let first = provider.create(CreateOptions::new()).await.unwrap();
    let second = provider.create(CreateOptions::new()).await.unwrap();
    // Another handle to the same sandbox shares its bound.
    let again = provider.sandbox(first.id());
    let gate = Gate::new();
    for _ in 0..8 {
        fake.fault("info", Fault::Gate(gate.clone()));
    }
    let handles = [&first, &first, &again, &again];
    let mut calls = Box::pin(join_all(handles.map(|sandbox| sandbox.info())));
    assert!(waits(&mut calls));
    assert_eq!(began(&fake, "info"), 2, "of one sandbox");
    let others = (0..4).map(|_| second.info());
    let mut others = Box::pin(join_all(others));
    assert!(waits(&mut others));
    assert_eq!(began(&fake, "info"), 4, "of two sandboxes");
    let third = provider.create(CreateOptions::new()).await.unwrap();
    let mut third = pin!(third.info());
    assert!(waits(&mut third));
    assert_eq!(began(&fake, "info"), 5, "of all");
    let mut create = pin!(provider.create(CreateOptions::new()));
    assert!(waits(&mut create));
    assert_eq!(began(&fake, "create"), 3, "the provider is full");
    gate.open();
    let (calls, others, third, create) = tokio::join!(calls, others, third, create);
    assert!(calls.into_iter().chain(others).all(|info| info.is_ok()));
    assert!(third.is_ok() && create.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_has_called_nothing_and_stops_nobody() {
    let fake = FakeProvider::new();
    let provider = fake.clone().layer(ConcurrencyLayer::new().calls(1));
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    let gate = Gate::new();
    fake.fault("info", Fault::Gate(gate.clone()));
    let mut first = pin!(sandbox.info());
    assert!(waits(&mut first));
    let mut waiting = Box::pin(sandbox.info());
    assert!(waits(&mut waiting));
    let mut last = pin!(sandbox.info());
    assert!(waits(&mut last));
    drop(waiting);
    gate.open();
    first.await.unwrap();
    last.await.unwrap();
    assert_eq!(began(&fake, "info"), 2);
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let fake = FakeProvider::new();
    let provider = fake.clone().layer(ConcurrencyLayer::new().calls(1));
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    let gate = Gate::new();
    fake.fault("info", Fault::Gate(gate.clone()));
    let mut first = pin!(sandbox.info());
    assert!(waits(&mut first));
    let files = sandbox.files();
    let mut write = pin!(files.write_bytes("a", "x"));
    assert!(waits(&mut write));
    let mut read = pin!(files.read_text("a"));
    assert!(waits(&mut read));
    gate.open();
    let (info, read, write) = tokio::join!(first, read, write);
    info.unwrap();
    write.unwrap();
    assert_eq!(read.unwrap(), "x", "the write came first");
}

#[tokio::test(start_paused = true)]
async fn patience_ends_before_anything_has_happened() {
    let fake = FakeProvider::new();
    let layer = ConcurrencyLayer::new().calls(1).processes(1);
    let provider = fake.clone().layer(layer.patience(LONG));
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    fake.script(Script::any().gate(&Gate::new()));
    let _process = sandbox.spawn(Command::new("x")).await.unwrap();
    let error = sandbox.spawn(Command::new("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.operation(), Some("spawn"));
    assert_eq!(began(&fake, "spawn"), 1);
    fake.fault("files.stat", Fault::Gate(Gate::new()));
    let mut held = pin!(sandbox.files().exists("x"));
    assert!(waits(&mut held));
    let options = ListFilesOptions::new();
    let home = SandboxPath::new(".").unwrap();
    let listed = sandbox.files().list(&home, options).try_collect::<Vec<_>>();
    assert_eq!(listed.await.unwrap_err().kind(), ErrorKind::RateLimited);
    assert_eq!(began(&fake, "files.list"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_counts_until_its_exit_or_until_it_is_dropped() {
    let fake = FakeProvider::new();
    let layer = ConcurrencyLayer::new().processes_per_sandbox(1);
    let provider = fake.clone().layer(layer);
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    let gate = Gate::new();
    fake.script(Script::program("wait").gate(&gate).exit(0));
    fake.script(Script::program("fail").fail(ErrorKind::Internal, "broken"));
    fake.script(Script::any().exit(0));
    let mut process = sandbox.spawn(Command::new("wait")).await.unwrap();
    let mut next = Box::pin(sandbox.spawn(Command::new("x")));
    assert!(waits(&mut next));
    assert_eq!(began(&fake, "spawn"), 1);
    gate.open();
    process.wait().await.unwrap();
    // It has ended, and is still there.
    let mut next = next.await.unwrap();
    let mut third = Box::pin(sandbox.spawn(Command::new("fail")));
    assert!(waits(&mut third));
    next.try_next().await.unwrap();
    drop(next);
    let mut third = third.await.unwrap();
    third.wait().await.unwrap_err();
    sandbox.exec(Command::new("x")).await.unwrap();
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn what_ends_something_never_waits() {
    let fake = FakeProvider::new();
    let layer = ConcurrencyLayer::new().calls(1).processes(1);
    let provider = fake.clone().layer(layer);
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    fake.script(Script::any().until_stdin("go").exit(0));
    let command = Command::new("x").stdin(Stdin::Open);
    let mut process = sandbox.spawn(command).await.unwrap();
    fake.fault("files.stat", Fault::Gate(Gate::new()));
    let mut held = pin!(sandbox.files().exists("x"));
    assert!(waits(&mut held));
    let control = process.control();
    control.write_stdin("go".into()).await.unwrap();
    assert!(process.wait().await.unwrap().success());
    assert!(sandbox.kill().await.unwrap());
    assert!(!provider.kill(sandbox.id()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_made_while_others_are_read_do_not_wait_for_them() {
    let fake = FakeProvider::new();
    let layer = ConcurrencyLayer::new().calls(1).calls_per_sandbox(1);
    let provider = fake.clone().layer(layer);
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    let files = sandbox.files();
    let path = |name: &str| SandboxPath::new(name).unwrap();
    let (c, d) = (path("c"), path("d"));
    for name in ["a", "b"] {
        files.write_bytes(name, "text").await.unwrap();
    }
    // A look at each entry while the listing goes on.
    let mut listed = files.list(&path("."), ListFilesOptions::new());
    while let Some(entry) = listed.try_next().await.unwrap() {
        assert!(files.exists(&entry.path).await.unwrap());
    }
    // A copy: what is written is read at the same time.
    let contents = files.read(&path("a"), ReadOptions::new()).await.unwrap();
    let body = Body::stream(contents.into_stream(), None);
    let written = files.write(&c, body, WriteOptions::new());
    tokio::time::timeout(LONG, written).await.unwrap().unwrap();
    // The same, where reading begins only with the writing.
    let inner = Arc::clone(&sandbox);
    let read = async move {
        let from = SandboxPath::new("c")?;
        let contents = inner.files().read(&from, ReadOptions::new()).await?;
        Ok(contents.into_stream())
    };
    let body = Body::stream(read.into_stream().try_flatten().boxed(), None);
    let written = files.write(&d, body, WriteOptions::new());
    tokio::time::timeout(LONG, written).await.unwrap().unwrap();
    assert_eq!(files.read_text("d").await.unwrap(), "text");
}

#[tokio::test(start_paused = true)]
async fn sandboxes_that_nobody_holds_are_forgotten() {
    let layer = ConcurrencyLayer::new().calls_per_sandbox(1);
    let provider = FakeProvider::new().layer(layer.clone());
    for _ in 0..10 {
        provider.create(CreateOptions::new()).await.unwrap();
    }
    let known = layer.sandboxes.lock().unwrap().len();
    assert!(known <= 1, "{known}");
}
