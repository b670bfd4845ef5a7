//! Who keeps a sandbox alive, and who may end it.

use crate::ordinary;
use crate::support::{State, example, sh, until};
use futures_util::TryStreamExt;
use sandbox_core::{ConnectOptions, ListOptions, prelude::*};
use sandbox_local::LocalProvider;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

#[tokio::test]
async fn a_detached_sandbox_is_reached_by_id_from_another_provider() {
    let state = State::new();
    let maker = state.provider();
    let options = CreateOptions::new()
        .ownership(Ownership::Detached)
        .lifetime(Duration::from_secs(60))
        .name("box-1");
    let id = maker.create(options).await.unwrap().id().clone();
    drop(maker);

    let other = state.provider();
    let sandbox = other.connect(&id, ConnectOptions::new()).await.unwrap();
    assert_eq!(sh(&sandbox, "echo here").await, "here\n");
    let info = sandbox.info().await.unwrap();
    assert_eq!(info.name.as_deref(), Some("box-1"));
    assert_eq!(info.ownership, Some(Ownership::Detached));
    let listed: Vec<_> = other.list(ListOptions::new()).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(sandbox.kill().await.unwrap());
    assert!(!sandbox.kill().await.unwrap());
    assert_eq!(state.traces(id.as_str()), Default::default());
}

#[tokio::test]
async fn an_owned_sandbox_ends_with_its_provider_and_leaves_nothing() {
    let state = State::new();
    let (provider, sandbox) = state.sandbox().await;
    sh(&sandbox, "sleep 1000 & touch file").await;
    let id = sandbox.id().clone();
    assert!(
        state.traces(id.as_str()).len() >= if ordinary::is_ordinary() { 3 } else { 4 },
        "{:?}",
        state.traces(id.as_str())
    );
    drop((provider, sandbox));
    assert_eq!(state.traces(id.as_str()), Default::default());
}

#[tokio::test]
async fn the_end_of_a_lifetime_ends_the_sandbox_and_cleans_up() {
    let state = State::new();
    let provider = state.provider();
    let sandbox = provider
        .create(CreateOptions::new().lifetime(Duration::from_millis(300)))
        .await
        .unwrap();
    let id = sandbox.id().clone();
    until("the sandbox is gone with all its traces", || {
        state.traces(id.as_str()).is_empty()
    })
    .await;
    assert_eq!(
        sandbox.info().await.unwrap_err().kind(),
        ErrorKind::SandboxNotFound
    );
    assert!(!provider.kill(&id).await.unwrap());
}

#[tokio::test]
async fn who_no_longer_waits_for_a_sandbox_leaves_none_behind() {
    let state = State::new();
    let provider = state.provider();
    // Makes the template.
    let first = provider.create(CreateOptions::new()).await.unwrap();
    first.kill().await.unwrap();
    for moment in 0..40 {
        let ownership = [Ownership::Detached, Ownership::Owned][moment % 2];
        let create = provider.create(CreateOptions::new().ownership(ownership));
        let patience = Duration::from_micros(moment as u64 * 500);
        if let Ok(sandbox) = tokio::time::timeout(patience, create).await {
            sandbox.unwrap().kill().await.unwrap();
        }
    }
    let records = || {
        fs::read_dir(state.path().join("sandboxes"))
            .unwrap()
            .count()
    };
    until("nothing is left of any sandbox", || records() == 0).await;
}

#[tokio::test]
async fn a_name_is_free_again_when_its_sandbox_has_ended() {
    let state = State::new();
    let provider = state.provider();
    let named = || CreateOptions::new().name("only-one");
    let first = provider.create(named()).await.unwrap();
    let error = provider.create(named()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    first.kill().await.unwrap();
    provider.create(named()).await.unwrap();
}

/// The example that makes sandboxes and holds them.
fn owner(state: &State, args: &[&str]) -> (Child, Vec<String>) {
    let program = example("owner");
    let mut child = std::process::Command::new(&program)
        .args(args)
        .env("SANDBOX_STATE_DIR", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let count = args[0].parse().unwrap();
    let ids = stdout
        .lines()
        .take(count)
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    (child, ids)
}

#[tokio::test]
async fn owned_sandboxes_end_when_their_program_is_killed() {
    let state = State::new();
    let (mut program, ids) = owner(&state, &["3"]);
    program.kill().unwrap();
    program.wait().unwrap();
    let running = || {
        ids.iter()
            .flat_map(|id| state.traces(id))
            .filter(|trace| trace.starts_with("process"))
            .count()
    };
    until("no process of the sandboxes is left", || running() == 0).await;
    // The next program removes what the killed one could not.
    let next = state.provider();
    for id in &ids {
        assert_eq!(state.traces(id), Default::default());
    }
    drop(next);
}

#[tokio::test]
async fn detached_sandboxes_outlive_a_killed_program() {
    let state = State::new();
    let (mut program, ids) = owner(&state, &["2", "detached"]);
    program.kill().unwrap();
    program.wait().unwrap();
    let provider = state.provider();
    for id in &ids {
        let sandbox = provider.sandbox(&id.as_str().into());
        assert_eq!(sh(&sandbox, "cat started").await, "started\n");
        assert!(sandbox.kill().await.unwrap());
        assert_eq!(state.traces(id), Default::default());
    }
}

#[tokio::test]
async fn programs_and_prunes_at_once_never_take_each_others() {
    let state = State::new();
    let done = AtomicBool::new(false);
    let ((mut one, ones), (mut two, twos), pruned) = thread::scope(|scope| {
        let one = scope.spawn(|| owner(&state, &["4"]));
        let two = scope.spawn(|| owner(&state, &["4"]));
        let prunes = scope.spawn(|| {
            let provider = state.provider();
            let mut pruned = Vec::new();
            while !done.load(Ordering::Relaxed) {
                pruned.extend(provider.prune().unwrap().sandboxes);
            }
            pruned
        });
        let programs = (one.join(), two.join());
        done.store(true, Ordering::Relaxed);
        let pruned = prunes.join().unwrap();
        (programs.0.unwrap(), programs.1.unwrap(), pruned)
    });
    // Records that nobody has put a sandbox into yet may go: their makers try again.
    let of_living =
        |id: &&sandbox_core::SandboxId| ones.iter().chain(&twos).any(|one| one == id.as_str());
    assert_eq!(pruned.iter().find(of_living), None);
    let provider = state.provider();
    for id in ones.iter().chain(&twos) {
        provider.sandbox(&id.as_str().into()).info().await.unwrap();
    }
    for program in [&mut one, &mut two] {
        drop(program.stdin.take());
        while program.try_wait().unwrap().is_none() {
            provider.prune().unwrap();
        }
        assert!(program.wait().unwrap().success());
    }
    for id in ones.iter().chain(&twos) {
        assert_eq!(state.traces(id), Default::default());
    }
}

#[tokio::test]
async fn a_hundred_creations_at_once_all_work() {
    let state = State::new();
    let provider = state.provider();
    let create =
        |provider: LocalProvider| async move { provider.create(CreateOptions::new()).await };
    let tasks: Vec<_> = (0..100)
        .map(|_| tokio::spawn(create(provider.clone())))
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        let sandbox = task.await.unwrap().unwrap();
        assert_eq!(sh(&sandbox, "hostname").await.trim(), sandbox.id().as_str());
        ids.push(sandbox.id().clone());
    }
    drop(provider);
    for id in ids {
        assert_eq!(state.traces(id.as_str()), Default::default());
    }
}
