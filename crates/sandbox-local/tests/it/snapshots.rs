//! Snapshots and forks on this machine: what is shared, what is refused, and what stays.

use crate::support::{State, until};
use sandbox_core::{Enforcement, Metrics, SnapshotOptions, Source, TemplateId, prelude::*};
use std::{collections::BTreeSet, fs, path::Path};

fn kept(state: &State) -> BTreeSet<String> {
    let entries = fs::read_dir(state.path().join("snapshots"));
    let entries = entries.into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with(".lock")).collect()
}

async fn sh(sandbox: &dyn Sandbox, script: &str) -> String {
    let output = sandbox.exec(Command::shell(script)).await.unwrap();
    let output = output.check().unwrap();
    output.stdout_text().trim_end().to_owned()
}

async fn disk(sandbox: &dyn Sandbox) -> u64 {
    let metrics: &dyn Metrics = sandbox.metrics().unwrap();
    metrics.usage().await.unwrap().disk.unwrap()
}

#[tokio::test]
async fn forks_share_what_they_have_not_changed_and_it_goes_with_the_last() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    sh(&*parent, "head -c 4000000 /dev/urandom > data").await;
    let options = CreateOptions::new;
    let report = provider.enforcement(&options().source(Source::Fork(parent.id().clone())));
    let memory = report.wall("memory_of_source").unwrap();
    assert_eq!(memory.enforcement, Enforcement::NotEnforced);
    assert!(memory.detail.contains("without a copy"), "{memory:?}");
    let forks = provider.fork(parent.id(), 3, options()).await.unwrap();
    // One copy for all three.
    assert_eq!(kept(&state).len(), 1);
    for fork in &forks {
        assert!(disk(&**fork).await < 100_000);
        assert_eq!(sh(&**fork, "stat -c %s data").await, "4000000");
    }
    assert!(parent.kill().await.unwrap());
    let (last, others) = forks.split_last().unwrap();
    for fork in others {
        assert!(fork.kill().await.unwrap());
    }
    assert_eq!(kept(&state).len(), 1);
    assert_eq!(sh(&**last, "stat -c %s data").await, "4000000");
    assert!(last.kill().await.unwrap());
    assert_eq!(kept(&state), BTreeSet::new());
}

#[tokio::test]
async fn what_ran_with_an_owner_of_files_keeps_them_in_another_range_of_ids() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    let root = |script: &str| Command::shell(script).user("root");
    let made = "touch /srv/a && chown 33:44 /srv/a && chmod 4755 /srv/a && rm -r /usr/share/doc && \\
        mkdir /usr/share/doc && echo x > /usr/share/doc/x";
    parent.exec(root(made)).await.unwrap().check().unwrap();
    let forks = provider
        .fork(parent.id(), 1, CreateOptions::new())
        .await
        .unwrap();
    let look = "stat -c '%u:%g %a' /srv/a; ls /usr/share/doc; test -e /usr/bin/env && echo more";
    assert_eq!(sh(&*forks[0], look).await, "33:44 4755\nx\nmore");
}

#[tokio::test]
async fn a_snapshot_keeps_its_template_and_what_is_under_it() {
    let state = State::without_template();
    let (provider, sandbox) = state.sandbox().await;
    sh(&*sandbox, "echo kept > note").await;
    let options = SnapshotOptions::new().name("base-2");
    let snapshots = sandbox.require_snapshots().unwrap();
    let snapshot = snapshots.snapshot(options).await.unwrap();
    assert!(!snapshot.processes);
    sandbox.kill().await.unwrap();
    // The template of a machine that has changed since.
    let templates = state.path().join("templates");
    let name = fs::read_dir(&templates).unwrap().flatten();
    let mut names = name.map(|entry| entry.file_name().into_string().unwrap());
    let current = names.find(|name| name.starts_with("host-")).unwrap();
    let old = "host-0000000000000000";
    fs::rename(templates.join(&current), templates.join(old)).unwrap();
    let manifest = state
        .path()
        .join(format!("snapshots/{}/manifest.json", snapshot.id));
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(&current, old)).unwrap();
    provider.prune().unwrap();
    assert!(templates.join(old).exists());
    let copy = provider
        .create(CreateOptions::new().template("base-2"))
        .await
        .unwrap();
    assert_eq!(sh(&*copy, "cat note").await, "kept");
    let name = TemplateId::new("base-2");
    let removal = provider.templates().unwrap().remove(&name);
    assert!(removal.await.unwrap());
    provider.prune().unwrap();
    assert!(templates.join(old).exists());
    copy.kill().await.unwrap();
    assert_eq!(kept(&state), BTreeSet::new());
    let pruned = provider.prune().unwrap();
    assert_eq!(pruned.templates, [old]);
}

#[tokio::test]
async fn names_of_others_are_refused_and_nothing_is_kept() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let snapshots = sandbox.require_snapshots().unwrap();
    let take = |name: &str| snapshots.snapshot(SnapshotOptions::new().name(name));
    for name in ["host", "base"] {
        let error = take(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}");
    }
    for name in ["", "../x", "snap-abcdefabcdef", "a/b", "x\0"] {
        let error = take(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name:?}");
    }
    take("mine").await.unwrap();
    let error = take("mine").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(kept(&state).len(), 1);
}

#[tokio::test]
async fn a_provider_opens_its_own_templates_only() {
    let state = State::new();
    let (provider, _sandbox) = state.sandbox().await;
    let templates = provider.templates().unwrap();
    let error = templates.remove(&"base".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for id in ["", "..", "../sandboxes", "snap-aaaaaaaaaaaa", "host-0"] {
        assert!(!templates.remove(&id.into()).await.unwrap(), "{id}");
        let source = Source::Snapshot(id.into());
        let error = provider.create(CreateOptions::new().source(source)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound, "{id}");
    }
}

#[tokio::test]
async fn a_sandbox_that_ends_while_it_is_copied_leaves_no_snapshot() {
    let state = State::new();
    let (provider, sandbox) = state.sandbox().await;
    let many = "import os\nos.makedirs('d')\nfor n in range(20000): open(f'd/{n}', 'w').close()";
    let made = Command::new("python3").args(["-c", many]);
    sandbox.exec(made).await.unwrap().check().unwrap();
    // With nothing in it, it would not be copied.
    sh(&*sandbox, "sleep 1000 >/dev/null 2>&1 &").await;
    let keeper = provider.sandbox(sandbox.id());
    let keep = tokio::spawn(async move {
        let snapshots = keeper.require_snapshots()?;
        snapshots.snapshot(SnapshotOptions::new()).await
    });
    let begun = || {
        let new = kept(&state)
            .into_iter()
            .find(|name| name.starts_with(".new-"));
        new.is_some_and(|new| {
            Path::new(&state.path().join("snapshots").join(new).join("0")).exists()
        })
    };
    until("the copy has begun", || begun() || keep.is_finished()).await;
    sandbox.kill().await.unwrap();
    match keep.await.unwrap() {
        // It was quicker.
        Ok(_) => assert_eq!(kept(&state).len(), 1),
        Err(_) => assert_eq!(kept(&state), BTreeSet::new()),
    }
}

#[tokio::test]
async fn too_many_files_are_refused_and_the_sandbox_goes_on() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    // Holes take no room, and are not copied.
    sh(&*sandbox, "truncate -s 100G big; echo x > small").await;
    let snapshots = sandbox.require_snapshots().unwrap();
    let snapshot = snapshots.snapshot(SnapshotOptions::new()).await.unwrap();
    assert!(snapshot.bytes.unwrap() < 1_000_000, "{snapshot:?}");
    assert_eq!(sh(&*sandbox, "cat small").await, "x");
}
