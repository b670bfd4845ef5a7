//! Rest is for everybody inside, and nobody inside ends it.

use crate::lab::{Inside, Lab, Who, in_time};
use sandbox_core::{SandboxState, prelude::*};
use std::{fs, path::PathBuf};

/// Pauses a sandbox, all of it.
async fn pause(sandbox: &Inside) {
    in_time(sandbox.require_pause().unwrap().pause())
        .await
        .unwrap();
    let state = in_time(sandbox.info()).await.unwrap().state;
    assert_eq!(state, SandboxState::Paused);
}

async fn resume(sandbox: &Inside) {
    in_time(sandbox.require_pause().unwrap().resume())
        .await
        .unwrap();
}

/// Processes of the sandbox that are neither stopped by the kernel nor ours, as the host sees them: what each has used of
/// the processor, in ticks, by PID.
fn used(sandbox: &Inside) -> Vec<(PathBuf, u64)> {
    let own = format!("/sandbox/{}/commands/", sandbox.id());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let paths = processes.map(|entry| entry.path());
    let mut used: Vec<_> = paths
        .filter(|path| {
            let groups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
            groups.contains(&own)
        })
        .filter_map(|path| {
            let stat = fs::read_to_string(path.join("stat")).ok()?;
            let (_, fields) = stat.rsplit_once(") ")?;
            // One that has ended is taken by PID 1, which is awake.
            if fields.starts_with('Z') {
                return None;
            }
            let number = |at: usize| fields.split(' ').nth(at)?.parse::<u64>().ok();
            Some((path, number(11)? + number(12)?))
        })
        .collect();
    used.sort();
    used
}

/// Whether the host has gone on for long enough for a program to show that it does too.
async fn for_a_while() {
    let start = fs::read_to_string("/proc/uptime").unwrap();
    let seconds = |text: &str| {
        let first = text.split(' ').next();
        first.and_then(|first| first.parse::<f64>().ok()).unwrap()
    };
    while seconds(&fs::read_to_string("/proc/uptime").unwrap()) < seconds(&start) + 0.3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_fork_bomb_rests_whole() {
    let lab = Lab::new();
    let (sandbox, bystander) = (lab.sandbox().await, lab.sandbox().await);
    let bomb = r#"
        print("ready", flush=True)
        while True:
            try:
                os.fork()
            except OSError:
                pass
    "#;
    let bomb = sandbox.start(Who::User, bomb, &[]).await;
    for _ in 0..5 {
        pause(&sandbox).await;
        let before = used(&sandbox);
        assert!(!before.is_empty());
        for_a_while().await;
        assert_eq!(used(&sandbox), before);
        resume(&sandbox).await;
    }
    // The control: without a pause they go on.
    let before = used(&sandbox);
    for_a_while().await;
    assert_ne!(used(&sandbox), before);
    pause(&sandbox).await;
    bystander.works().await;
    in_time(bomb.kill()).await;
    resume(&sandbox).await;
    sandbox.works().await;
}

#[tokio::test]
async fn nobody_inside_wakes_anybody() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    for who in Who::all() {
        // It sends everybody the signal that ends a stop, is told nothing, and counts.
        let waker = r#"
            import signal
            print("ready", flush=True)
            while True:
                try:
                    os.kill(-1, signal.SIGCONT)
                except OSError:
                    pass
        "#;
        let waker = sandbox.start(who, waker, &[]).await;
        pause(&sandbox).await;
        let before = used(&sandbox);
        for_a_while().await;
        assert_eq!(used(&sandbox), before, "{who:?}");
        resume(&sandbox).await;
        // The control: it does go on.
        for_a_while().await;
        assert_ne!(used(&sandbox), before, "{who:?}");
        waker.kill().await;
    }
}

#[tokio::test]
async fn the_groups_are_out_of_reach() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    let mount = r#"
        os.makedirs("/tmp/groups", exist_ok=True)
        call("mount", b"none", b"/tmp/groups", b"cgroup2", 0, None)
        return open("/tmp/groups/commands/cgroup.freeze").read()
    "#;
    let find = r#"
        for top, directories, files in os.walk("/"):
            directories[:] = [name for name in directories if top != "/" or name not in ("proc",)]
            if "cgroup.freeze" in files or "cgroup.procs" in files:
                return top
        return "none"
    "#;
    for who in Who::all() {
        let mounted = sandbox.python(who, mount).await;
        assert!(mounted == "EPERM" || mounted == "EACCES", "{mounted}");
        assert_eq!(sandbox.python(who, find).await, "none");
    }
}

#[tokio::test]
async fn what_sudo_starts_rests_too() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    let script = "echo ready; sudo sh -c 'while :; do :; done'";
    let mut running = sandbox.spawn(Command::shell(script)).await.unwrap();
    while used(&sandbox).len() < 2 {
        tokio::task::yield_now().await;
    }
    pause(&sandbox).await;
    let before = used(&sandbox);
    for_a_while().await;
    assert_eq!(used(&sandbox), before);
    resume(&sandbox).await;
    running
        .control()
        .signal(sandbox_core::Signal::KILL)
        .await
        .unwrap();
    in_time(running.wait()).await.unwrap();
}
