//! What becomes of those that wait and are no longer what would be made.

use super::*;
use crate::{
    LocalProvider,
    linux::{cgroup::Groups, made, provider::Shared},
};
use rustix::process::{Signal, pidfd_send_signal};
use sandbox_core::{CreateOptions, Limits, Sandbox, SandboxId, SandboxProvider};
use std::{fs, os::fd::AsFd, path::PathBuf};
use tempfile::TempDir;

/// A provider with a full pool of one.
fn provider() -> (LocalProvider, TempDir) {
    let state = tempfile::tempdir().unwrap();
    let builder = LocalProvider::builder().state_dir(state.path()).pool(1);
    let provider = builder.build().unwrap();
    wait_until_full(&provider.shared);
    (provider, state)
}

fn shelf(shared: &Shared) -> &Shelf {
    &shared.pool.as_ref().unwrap().shelf
}

fn wait_until_full(shared: &Shared) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while shelf(shared)
        .lock()
        .ready
        .values()
        .all(|shelved| shelved.waiting.is_empty())
    {
        assert!(Instant::now() < deadline, "the pool stays empty");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Changes the one that waits, and returns its id.
fn change(provider: &LocalProvider, change: impl FnOnce(&mut Waiting)) -> SandboxId {
    let mut state = shelf(&provider.shared).lock();
    let waiting = state
        .ready
        .values_mut()
        .flat_map(|shelved| &mut shelved.waiting)
        .next()
        .unwrap();
    change(waiting);
    waiting.record.id.clone()
}

fn limited() -> CreateOptions {
    let limits = Limits::new().memory(1 << 28).cpus(0.5).processes(64);
    CreateOptions::new().limits(limits)
}

#[tokio::test]
async fn one_that_became_unfit_is_ended_and_not_handed_out() {
    let (provider, state) = provider();
    let is_left = |id: &SandboxId| state.path().join("sandboxes").join(id.as_str()).exists();
    let unfit: [fn(&mut Waiting); 3] = [
        |waiting| waiting.record.template_directory = Some("host-0".into()),
        // It cannot be limited.
        |waiting| waiting.record.groups = Groups::default(),
        |waiting| {
            let init = &waiting.made.pidfd;
            pidfd_send_signal(init, Signal::KILL).unwrap();
            assert!(made::wait(init.as_fd(), Duration::from_secs(60)));
        },
    ];
    for (round, unfit) in (1..).zip(unfit) {
        let id = change(&provider, unfit);
        let sandbox = provider.create(limited()).await.unwrap();
        assert_ne!(sandbox.id(), &id);
        sandbox.info().await.unwrap();
        assert!(!is_left(&id));
        // The next one that waits is taken, if there is one by then.
        let status = provider.pool_status();
        assert_eq!(status.taken + status.missed, round, "{status:?}");
        wait_until_full(&provider.shared);
    }
    let old = change(&provider, unfit[0]);
    provider.prune().unwrap();
    assert!(!is_left(&old));
    wait_until_full(&provider.shared);
    assert_ne!(change(&provider, |_| ()), old);
}

/// All settings of a sandbox's groups.
fn settings(provider: &LocalProvider, sandbox: &dyn Sandbox) -> Vec<(PathBuf, String)> {
    const FILES: [&str; 9] = [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.kmem.tcp.limit_in_bytes",
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
        "pids.max",
        "memory.max",
        "memory.swap.max",
        "cpu.max",
    ];
    let record = provider.shared.site.records.read(sandbox.id());
    let groups = record.unwrap().unwrap().groups;
    let groups: Vec<_> = groups.v1.into_iter().chain(groups.v2).collect();
    let files = groups
        .iter()
        .flat_map(|group| FILES.map(|name| group.join(name)));
    files
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let name = path.parent()?.parent()?.join(path.file_name()?);
            Some((name, text))
        })
        .collect()
}

/// The groups that PID 1 of a sandbox is in, but for the sandbox's own name.
fn groups_of(provider: &LocalProvider, sandbox: &dyn Sandbox) -> String {
    let init = provider.shared.site.records.path(sandbox.id()).join("init");
    let init = fs::read_to_string(init).unwrap();
    let pid = init.split(' ').next().unwrap();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.replace(sandbox.id().as_str(), "ID")
}

#[tokio::test]
async fn its_limits_are_those_of_one_that_was_made_for_them() {
    let (provider, state) = provider();
    let pooled = provider.create(limited()).await.unwrap();
    assert_eq!(provider.pool_status().taken, 1);
    let other = LocalProvider::builder().state_dir(state.path());
    let other = other.build().unwrap();
    let made = other.create(limited()).await.unwrap();
    let (ours, theirs) = (settings(&provider, &*pooled), settings(&other, &*made));
    assert!(ours.len() >= 3, "{ours:?}");
    assert_eq!(ours, theirs);
    assert_eq!(groups_of(&provider, &*pooled), groups_of(&other, &*made));
}
