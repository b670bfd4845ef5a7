//! What a provider makes of odd machines, odd directories and callers who leave.

use super::*;
use crate::linux::{cgroup::Groups, host::Hierarchy, init};
use sandbox_core::{Expiry, NetworkPolicy};
use std::{collections::BTreeMap, fs, path::Path};
use tempfile::TempDir;

/// A provider with a state of its own, on a machine that differs from this one as said.
fn provider_on(change: impl FnOnce(&mut Host)) -> (LocalProvider, TempDir) {
    let state = tempfile::tempdir().unwrap();
    let mut host = Host::read();
    change(&mut host);
    let builder = LocalProvider::builder().state_dir(state.path());
    (LocalProvider::open_on(host, builder).unwrap(), state)
}

fn records_in(state: &TempDir) -> usize {
    fs::read_dir(state.path().join("sandboxes"))
        .unwrap()
        .count()
}

async fn refusal(provider: &LocalProvider, options: CreateOptions) -> Error {
    provider.create(options).await.unwrap_err()
}

#[tokio::test]
async fn a_machine_that_lacks_a_wall_makes_nothing_and_says_what_the_doctor_says() {
    let without: [fn(&mut Host); 5] = [
        |host| (host.is_root, host.forbids_namespaces) = (false, Some("x.y=1")),
        |host| host.capabilities = 0,
        |host| host.kernel = (5, 10),
        |host| host.user_namespaces = Some(0),
        |host| host.seccomp = false,
    ];
    for take in without {
        let (provider, state) = provider_on(take);
        let diagnosis = provider.doctor();
        let failed = diagnosis
            .checks
            .iter()
            .find(|check| check.verdict == doctor::Verdict::Fail);
        let failed = failed.unwrap();
        let error = refusal(&provider, CreateOptions::new()).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let (detail, fix) = (failed.detail.as_str(), failed.fix.as_deref().unwrap());
        assert!(
            error.to_string().contains(detail) && error.to_string().contains(fix),
            "{error}"
        );
        assert_eq!(records_in(&state), 0);
        assert!(!state.path().join("templates").exists());
    }
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_before_anything_is_made() {
    let (provider, state) = provider_on(|host| {
        (host.v1_memory, host.v1_cpu, host.v1_pids, host.v2) = (None, None, None, None);
    });
    let options = CreateOptions::new;
    let asked = [
        // Nothing would carry its connections when this program has ended.
        options()
            .network(NetworkPolicy::Public)
            .ownership(Ownership::Detached),
        options().on_expiry(Expiry::Pause),
        options().limits(Limits::new().memory(1 << 30)),
        options().limits(Limits::new().cpus(1.0)),
        options().limits(Limits::new().processes(64)),
    ];
    for options in asked {
        let error = refusal(&provider, options.clone()).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{options:?}");
        assert_eq!(records_in(&state), 0);
    }
    assert!(!state.path().join("templates").exists());
    assert!(!provider.capabilities().pause);
    assert!(provider.sandbox(&"any".into()).pause().is_none());
}

#[tokio::test]
async fn without_cgroups_a_sandbox_that_does_not_answer_is_killed_all_the_same() {
    let (maker, state) = provider_on(|host| {
        (host.v1_memory, host.v1_cpu, host.v1_pids, host.v2) = (None, None, None, None);
    });
    let made = maker.create(CreateOptions::new().ownership(Ownership::Detached));
    let id = made.await.unwrap().id().clone();
    let record = maker.shared.site.records.read(&id).unwrap().unwrap();
    assert_eq!(
        (&record.groups, record.limits),
        (&Groups::default(), Limits::new())
    );
    let init = init::open(&maker.shared.site.records.path(&id), &record.uids());
    let init = init.unwrap().expect("the record names its PID 1");
    rustix::process::pidfd_send_signal(&init, rustix::process::Signal::STOP).unwrap();

    let other = LocalProvider::builder()
        .state_dir(state.path())
        .build()
        .unwrap();
    assert!(other.kill(&id).await.unwrap());
    assert!(made::wait(std::os::fd::AsFd::as_fd(&init), Duration::ZERO));
    assert_eq!(records_in(&state), 0);
    assert!(!other.kill(&id).await.unwrap());
}

#[tokio::test]
async fn odd_entries_among_the_records_disturb_nobody() {
    let state = tempfile::tempdir().unwrap();
    let sandboxes = state.path().join("sandboxes");
    fs::create_dir_all(sandboxes.join("odd/lock")).unwrap();
    fs::create_dir(sandboxes.join("Not-Ours")).unwrap();
    fs::write(sandboxes.join("file"), "").unwrap();
    std::os::unix::fs::symlink("/etc", sandboxes.join("link")).unwrap();
    let builder = LocalProvider::builder().state_dir(state.path());
    let provider = builder.build().unwrap();
    assert!(provider.prune().unwrap().sandboxes.is_empty());
    let shown = provider.leftovers().unwrap().sandboxes;
    assert_eq!(shown, [SandboxId::new("odd")]);
    assert_eq!(fs::read_dir(&sandboxes).unwrap().count(), 4);
    assert!(Path::new("/etc/passwd").exists());
}

#[tokio::test]
async fn a_list_goes_on_after_what_cannot_be_read_or_does_not_answer() {
    let (provider, _state) = provider_on(|_| ());
    let add = || provider.shared.site.records.add().unwrap();
    let ((garbled, odd), (mute, silent)) = (add(), add());
    fs::write(odd.path.join("record.json"), "{}").unwrap();
    let record = Record {
        id: mute.clone(),
        name: None,
        template: "host".into(),
        trees: Vec::new(),
        store: Default::default(),
        generation: 0,
        next: None,
        template_directory: None,
        template_env: Default::default(),
        volumes: Vec::new(),
        shell: "/bin/sh".into(),
        ownership: Ownership::Detached,
        limits: Limits::new(),
        metadata: BTreeMap::new(),
        created_ms: 0,
        range: Some(1),
        subordinate: None,
        groups: Groups::default(),
        pooled: false,
    };
    provider
        .shared
        .site
        .records
        .write(&silent, &record)
        .unwrap();
    let _listener = crate::linux::socket::listen(silent.as_fd(), record::SOCKET).unwrap();
    tokio::time::pause();
    let listed = SandboxProvider::list(&provider, ListOptions::new());
    let listed: Vec<_> = listed.collect().await;
    let failed = |result: &Result<SandboxInfo>| {
        let error = result.as_ref().unwrap_err();
        (error.context("id").unwrap().to_owned(), error.kind())
    };
    let expected = [
        (mute.to_string(), ErrorKind::Unavailable),
        (garbled.to_string(), ErrorKind::Internal),
    ];
    assert_eq!(listed.iter().map(failed).collect::<Vec<_>>(), expected);
}

#[test]
fn leftovers_are_shown_before_they_are_removed() {
    let state = tempfile::tempdir().unwrap();
    let left = state.path().join("sandboxes/sleft");
    let builder = LocalProvider::builder().state_dir(state.path());
    let provider = builder.clone().keep_leftovers().build().unwrap();
    fs::create_dir(&left).unwrap();
    let (living, _lock) = provider.shared.site.records.add().unwrap();
    let ids = vec![SandboxId::new("sleft")];
    assert_eq!(provider.leftovers().unwrap().sandboxes, ids);
    assert!(left.exists());
    assert_eq!(provider.prune().unwrap().sandboxes, ids);
    assert_eq!(provider.leftovers().unwrap(), Pruned::default());
    assert!(!left.exists() && provider.shared.site.records.is_alive(&living).unwrap());
}

#[test]
fn opening_removes_leftovers_unless_told_to_keep_them() {
    let state = tempfile::tempdir().unwrap();
    let left = state.path().join("sandboxes/sleft");
    fs::create_dir_all(&left).unwrap();
    let builder = LocalProvider::builder().state_dir(state.path());
    builder.clone().keep_leftovers().build().unwrap();
    assert!(left.exists());
    builder.build().unwrap();
    assert!(!left.exists());
}

#[test]
fn a_state_directory_that_cannot_be_used_is_a_failed_check() {
    let builder = LocalProvider::builder().state_dir("/proc/sandbox");
    let diagnosis = builder.doctor();
    assert!(!diagnosis.is_ready());
    let failed = diagnosis
        .checks
        .iter()
        .rfind(|check| check.verdict == doctor::Verdict::Fail)
        .unwrap();
    assert!(failed.fix.is_some());
}

#[test]
fn a_directory_in_which_others_may_write_is_no_state_directory() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let state = tempfile::tempdir().unwrap();
    let open = || LocalProvider::builder().state_dir(state.path()).build();
    let refused = || {
        let error = open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    };
    for mode in [0o777, 0o1777, 0o775] {
        fs::set_permissions(state.path(), fs::Permissions::from_mode(mode)).unwrap();
        refused();
    }
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(state.path(), Some(1000), None).unwrap();
    refused();
    chown(state.path(), Some(0), None).unwrap();
    open().unwrap();
}

#[test]
fn limits_that_do_not_hold_for_sandboxes_are_named() {
    let above = |bypassed: &[&str]| {
        let bypassed = bypassed.iter().map(PathBuf::from).collect();
        let v2 = Some(Hierarchy {
            bypassed,
            ..Hierarchy::default()
        });
        let checks = doctor::preflight(&Host {
            v2,
            ..Host::default()
        });
        let check = checks
            .into_iter()
            .find(|check| check.name == "limits above");
        check.unwrap()
    };
    assert_eq!(above(&[]).verdict, doctor::Verdict::Ok);
    let check = above(&["/sys/fs/cgroup/svc"]);
    assert_eq!(check.verdict, doctor::Verdict::Warn);
    assert!(check.problem().contains("/sys/fs/cgroup/svc"));
}
