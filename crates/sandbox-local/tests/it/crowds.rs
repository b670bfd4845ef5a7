//! Many at once, on one sandbox.

use crate::support::State;
use futures_util::{StreamExt, TryStreamExt, stream};
use sandbox_core::{ListOptions, StatOptions, WatchOptions, prelude::*};

#[tokio::test]
async fn however_many_commands_are_followed_the_sandbox_answers_and_ends() {
    let state = State::new();
    let (provider, sandbox) = state.sandbox().await;
    let sleep = || sandbox.spawn(Command::new("sleep").arg("1000"));
    let followed: Vec<Process> = stream::iter(0..300)
        .map(|_| sleep())
        .buffer_unordered(20)
        .try_collect()
        .await
        .unwrap();
    sandbox.info().await.unwrap();
    let listed: Vec<_> = provider
        .list(ListOptions::new())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    assert!(sandbox.kill().await.unwrap());
    assert_eq!(state.traces(sandbox.id().as_str()), Default::default());
    drop(followed);
}

#[tokio::test]
async fn however_many_file_calls_there_are_each_has_its_turn() {
    let state = State::new();
    let (provider, sandbox) = state.sandbox().await;
    let root = SandboxPath::new("/").unwrap();
    let other = provider.sandbox(sandbox.id());
    // From two handles, which know nothing of each other.
    let calls = [&sandbox, &other]
        .into_iter()
        .flat_map(|handle| (0..200).map(|_| handle.files().stat(&root, StatOptions::new())));
    let failed: Vec<_> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn however_many_directories_are_watched_file_calls_go_on() {
    let state = State::new();
    let (provider, sandbox) = state.sandbox().await;
    let home = SandboxPath::new("/home/user").unwrap();
    let mut watches = Vec::new();
    let refused = loop {
        // Each is a handle of its own, which knows nothing of the others.
        let handle = provider.sandbox(sandbox.id());
        let watch = handle.require_watch().unwrap();
        match watch.watch(&home, WatchOptions::new()).await {
            Ok(events) => watches.push(events),
            Err(error) => break error,
        }
        assert!(watches.len() < 500);
    };
    assert_eq!(refused.kind(), sandbox_core::ErrorKind::QuotaExceeded);
    assert!(watches.len() >= 32, "{}", watches.len());
    sandbox
        .files()
        .stat(&home, StatOptions::new())
        .await
        .unwrap();
    drop(watches);
    let again = || async {
        let watch = sandbox.require_watch().unwrap();
        watch.watch(&home, WatchOptions::new()).await.is_ok()
    };
    while !again().await {}
}

#[tokio::test]
async fn where_no_process_is_left_for_it_a_file_call_says_so() {
    let state = State::new();
    let provider = state.provider();
    let few = CreateOptions::new().limits(Limits::new().processes(8));
    let sandbox = provider.create(few).await.unwrap();
    let mut running = Vec::new();
    let refused = loop {
        match sandbox.spawn(Command::new("sleep").arg("1000")).await {
            Ok(process) => running.push(process),
            Err(error) => break error,
        }
        assert!(running.len() < 64);
    };
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded, "{refused}");
    let root = SandboxPath::new("/").unwrap();
    let error = sandbox.files().stat(&root, StatOptions::new()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
    assert!(error.to_string().contains("limit on processes"), "{error}");
}
