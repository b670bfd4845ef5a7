//! Sandboxes that wait to be taken: nobody sees them, nobody gets one twice, and nothing is left of them.

use crate::support::{State, example, processes, sh, until};
use futures_util::TryStreamExt;
use sandbox_core::{ConnectOptions, Existing, ListOptions, SandboxInfo, prelude::*};
use sandbox_local::LocalProvider;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, SystemTime},
};

const MIB: u64 = 1024 * 1024;

async fn list(provider: &LocalProvider) -> Vec<SandboxInfo> {
    let listed = SandboxProvider::list(provider, ListOptions::new());
    listed.try_collect().await.unwrap()
}

/// Takes a sandbox of a pool that has some.
async fn take(provider: &LocalProvider, options: CreateOptions) -> std::sync::Arc<dyn Sandbox> {
    let before = provider.pool_status().taken;
    let sandbox = provider.create(options).await.unwrap();
    assert_eq!(provider.pool_status().taken, before + 1);
    sandbox
}

#[tokio::test]
async fn a_hundred_creations_at_once_never_share_a_sandbox() {
    let state = State::new();
    let provider = state.pooled(8).await;
    let create = |provider: LocalProvider| async move {
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        let seen = sh(
            &sandbox,
            "hostname; test ! -e taken && touch taken && echo mine",
        )
        .await;
        assert_eq!(seen, format!("{}\nmine\n", sandbox.id()));
        sandbox.id().to_string()
    };
    let tasks: Vec<_> = (0..100)
        .map(|_| tokio::spawn(create(provider.clone())))
        .collect();
    let mut ids = BTreeSet::new();
    for task in tasks {
        assert!(ids.insert(task.await.unwrap()), "one was handed out twice");
    }
    let status = provider.pool_status();
    assert!(status.taken >= 8, "{status:?}");
    assert_eq!(status.taken + status.missed, 100);
    until("the pool is full again", || {
        provider.pool_status().ready == 8
    })
    .await;
    drop(provider);
    assert_eq!(state.records(), BTreeSet::new());
    for id in ids {
        assert_eq!(state.traces(&id), BTreeSet::new());
    }
}

#[tokio::test]
async fn two_programs_never_share_a_pool() {
    let state = State::new();
    let (one, two) = (state.pooled(2).await, state.pooled(2).await);
    let waiting = state.records();
    assert_eq!(waiting.len(), 4);
    let mut taken = BTreeSet::new();
    for provider in [&one, &two, &one, &two] {
        let sandbox = take(provider, CreateOptions::new()).await;
        assert!(waiting.contains(sandbox.id().as_str()));
        assert!(taken.insert(sandbox.id().to_string()));
    }
    assert_eq!(taken, waiting);
}

#[tokio::test]
async fn what_was_asked_for_is_what_the_sandbox_has() {
    let state = State::new();
    let provider = state.pooled(1).await;
    let before = SystemTime::now() - Duration::from_secs(1);
    let options = CreateOptions::new()
        .name("wanted")
        .env_var("GIVEN", "a b=c")
        .label("task", "42")
        .lifetime(Duration::from_secs(600))
        .limits(Limits::new().memory(64 * MIB).cpus(0.5).processes(32));
    let sandbox = take(&provider, options).await;
    for _ in 0..2 {
        assert_eq!(sh(&sandbox, "echo $GIVEN").await, "a b=c\n");
    }
    let info = sandbox.info().await.unwrap();
    assert_eq!(info.name.as_deref(), Some("wanted"));
    assert_eq!(info.metadata["task"], "42");
    assert_eq!(info.ownership, Some(Ownership::Owned));
    assert_eq!(info.limits.memory, Some(64 * MIB));
    assert_eq!(info.limits.cpus, Some(0.5));
    assert_eq!(info.limits.processes, Some(32));
    assert!(info.created_at.unwrap() > before);
    let left = info.expires_at.unwrap().duration_since(SystemTime::now());
    assert!(left.is_ok_and(|left| left > Duration::from_secs(500)));
    assert_eq!(list(&provider).await.len(), 1);
    // A name that is taken spends nothing.
    until("the pool is full again", || {
        provider.pool_status().ready == 1
    })
    .await;
    let waiting = state.records();
    let error = provider.create(CreateOptions::new().name("wanted")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(provider.pool_status().ready, 1);
    let next = take(&provider, CreateOptions::new()).await;
    assert!(waiting.contains(next.id().as_str()));
    assert_eq!(sh(&next, "echo ${GIVEN-none}").await, "none\n");
}

#[tokio::test]
async fn a_lifetime_counts_from_when_it_was_taken() {
    let state = State::new();
    let provider = state.pooled(1).await;
    let short = CreateOptions::new().lifetime(Duration::from_millis(300));
    let sandbox = take(&provider, short).await;
    let id = sandbox.id().clone();
    until("the sandbox is gone with all its traces", || {
        state.traces(id.as_str()).is_empty()
    })
    .await;
    assert!(!sandbox.kill().await.unwrap());
}

#[tokio::test]
async fn limits_hold_that_came_with_who_took_it() {
    let state = State::new();
    let provider = state.pooled(2).await;
    let small = CreateOptions::new().limits(Limits::new().memory(64 * MIB));
    let sandbox = take(&provider, small).await;
    let hog = Command::new("python3")
        .args(["-c", "b = bytearray(1 << 30); print(len(b))"])
        .timeout(Duration::from_secs(60));
    let output = sandbox.exec(hog).await.unwrap();
    assert_eq!(output.status, ExitStatus::OutOfMemory, "{output:?}");
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");

    let few = CreateOptions::new().limits(Limits::new().processes(8));
    let sandbox = take(&provider, few).await;
    let mut running = Vec::new();
    let refused = loop {
        match sandbox.spawn(Command::new("sleep").arg("1000")).await {
            Ok(process) => running.push(process),
            Err(error) => break error,
        }
        assert!(running.len() < 64);
    };
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded, "{refused}");
    assert!(running.len() >= 8, "{}", running.len());
}

#[tokio::test]
async fn one_that_was_detached_outlives_the_pool() {
    let state = State::new();
    let provider = state.pooled(2).await;
    let options = CreateOptions::new()
        .ownership(Ownership::Detached)
        .lifetime(Duration::from_secs(60));
    let id = take(&provider, options).await.id().clone();
    drop(provider);
    assert_eq!(state.records(), [id.to_string()].into());
    let other = state.provider();
    let sandbox = other.connect(&id, ConnectOptions::new()).await.unwrap();
    assert_eq!(sh(&sandbox, "hostname").await.trim(), id.as_str());
    let info = sandbox.info().await.unwrap();
    assert_eq!(info.ownership, Some(Ownership::Detached));
    assert!(sandbox.kill().await.unwrap());
    assert_eq!(state.traces(id.as_str()), BTreeSet::new());
}

#[tokio::test]
async fn nobody_sees_or_removes_one_that_waits() {
    let state = State::new();
    let provider = state.pooled(2).await;
    let waiting = state.records();
    let other = state.provider();
    for from in [&provider, &other] {
        assert_eq!(list(from).await, Vec::new());
        assert_eq!(from.leftovers().unwrap().sandboxes, Vec::new());
        assert_eq!(from.prune().unwrap().sandboxes, Vec::new());
    }
    for id in &waiting {
        let id = id.as_str().into();
        let error = other.connect(&id, ConnectOptions::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SandboxNotFound);
        let error = other.sandbox(&id).exec(Command::new("true")).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::SandboxNotFound);
    }
    assert_eq!(state.records(), waiting);
    assert_eq!(provider.pool_status().ready, 2);
    take(&provider, CreateOptions::new()).await;
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_of_its_pool() {
    let state = State::new();
    let mut program = std::process::Command::new(example("owner"))
        .args(["1", "owned", "4"])
        .env("SANDBOX_STATE_DIR", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ids = BufReader::new(program.stdout.take().unwrap()).lines();
    assert_eq!(ids.take(1).count(), 1);
    let seen = state.records();
    assert!(seen.len() >= 4, "{seen:?}");
    program.kill().unwrap();
    program.wait().unwrap();
    let running = || processes().iter().any(|(_, of)| seen.contains(of));
    until("no process of the pool is left", || !running()).await;
    // The zygote may be on its way out, with the lock of what it was making.
    until("the next program has removed the rest", || {
        drop(state.provider());
        state.records().is_empty()
    })
    .await;
    for id in &seen {
        assert_eq!(state.traces(id), BTreeSet::new());
    }
}

#[tokio::test]
async fn who_no_longer_waits_for_one_leaves_none_behind() {
    let state = State::new();
    let provider = state.pooled(8).await;
    for moment in 0..40 {
        let ownership = [Ownership::Detached, Ownership::Owned][moment % 2];
        let create = provider.create(CreateOptions::new().ownership(ownership));
        let patience = Duration::from_micros(moment as u64 * 50);
        if let Ok(sandbox) = tokio::time::timeout(patience, create).await {
            sandbox.unwrap().kill().await.unwrap();
        }
    }
    drop(provider);
    until("nothing is left of any sandbox", || {
        state.records().is_empty()
    })
    .await;
}

#[test]
fn a_pool_that_is_too_large_is_refused() {
    let state = State::new();
    let builder = LocalProvider::builder().state_dir(state.path()).pool(257);
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn those_with_a_network_wait_by_themselves_and_have_the_policy_of_who_takes_them() {
    /// An address for documentation, which no policy opens: caught it is reset, else there is no way to it.
    const TRIED: &str = "python3 -c '
import socket
try:
    with socket.create_connection((\"198.51.100.1\", 80), 30) as s:
        print(s.recv(1))
except OSError as error:
    print(type(error).__name__)'";

    let state = State::new();
    let provider = state.pooled(2).await;
    let listed: NetworkPolicy = "allow a.example".parse().unwrap();
    let with = |policy: &NetworkPolicy| CreateOptions::new().network(policy.clone());
    // None of this kind is asked for before.
    drop(provider.create(with(&NetworkPolicy::Public)).await.unwrap());
    assert_eq!(provider.pool_status().taken, 0);
    for policy in [&listed, &NetworkPolicy::Public] {
        until("both kinds wait", || provider.pool_status().ready == 4).await;
        let sandbox = take(&provider, with(policy)).await;
        let network = sandbox.require_network().unwrap();
        assert_eq!(network.policy().await.unwrap(), *policy);
        assert_eq!(sh(&sandbox, TRIED).await, "ConnectionResetError\n");
        let events: Vec<_> = network
            .events(false)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
    }
    let without = take(&provider, CreateOptions::new()).await;
    let network = without.require_network().unwrap();
    assert_eq!(network.policy().await.unwrap(), NetworkPolicy::Off);
    assert_eq!(sh(&without, TRIED).await, "OSError\n");
    let opened = network.set_policy(NetworkPolicy::Public, Existing::Keep);
    assert_eq!(opened.await.unwrap_err().kind(), ErrorKind::Unsupported);
}
