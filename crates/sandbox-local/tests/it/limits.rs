//! Limits hold, and only the offender pays.

use crate::support::{State, sh};
use sandbox_core::{Enforcement, SnapshotOptions, TemplateId, prelude::*};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn too_much_memory_ends_the_offender_only_and_is_said() {
    let state = State::new();
    let provider = state.provider();
    let sandbox = provider
        .create(CreateOptions::new().limits(Limits::new().memory(64 * MIB)))
        .await
        .unwrap();
    let bystander = sandbox
        .spawn(Command::new("sleep").arg("1000"))
        .await
        .unwrap();
    let hog = Command::new("python3")
        .args(["-c", "b = bytearray(1 << 30); print(len(b))"])
        .timeout(Duration::from_secs(60));
    let output = sandbox.exec(hog).await.unwrap();
    assert_eq!(output.status, ExitStatus::OutOfMemory, "{output:?}");
    assert_eq!(output.status.code(), 137);
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");
    assert_eq!(bystander.exit(), None);
    bystander
        .control()
        .signal(sandbox_core::Signal::TERM)
        .await
        .expect("the bystander still runs");
}

#[tokio::test]
async fn a_fork_bomb_meets_its_limit_and_the_sandbox_answers() {
    let state = State::new();
    let provider = state.provider();
    let sandbox = provider
        .create(CreateOptions::new().limits(Limits::new().processes(32)))
        .await
        .unwrap();
    let bomb = Command::shell("bomb() { bomb | bomb & }; bomb; sleep 1000")
        .timeout(Duration::from_secs(2));
    let output = sandbox.exec(bomb).await.unwrap();
    assert_eq!(output.status, ExitStatus::TimedOut);
    // What has left the command's tree is gone with its cgroup.
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");
}

#[tokio::test]
async fn a_limit_on_processes_is_for_the_callers_alone() {
    let state = State::new();
    let provider = state.provider();
    let options = CreateOptions::new().limits(Limits::new().processes(4));
    let sandbox = provider.create(options).await.unwrap();
    let files = sandbox.files();
    files.write_bytes("word", "kept").await.unwrap();
    assert_eq!(sh(&sandbox, "cat word | cat | cat").await, "kept");
    assert_eq!(files.read_bytes("word").await.unwrap(), "kept");
    let most = CreateOptions::new().limits(Limits::new().processes(4_194_304));
    provider.create(most).await.unwrap();
}

#[tokio::test]
async fn half_a_processor_is_half_a_processor() {
    let state = State::new();
    let provider = state.provider();
    let sandbox = provider
        .create(CreateOptions::new().limits(Limits::new().cpus(0.5)))
        .await
        .unwrap();
    // Processor time against real time, both by the kernel's clocks, over work of a fixed length in real time.
    // The interpreter's own start is not counted: on a slow machine it takes as long as the work.
    let script = "import time\nbefore, end = time.process_time(), time.monotonic() + 2\n\
                  while time.monotonic() < end: pass\nprint((time.process_time() - before) / 2)";
    let output = sandbox
        .exec(Command::new("python3").args(["-c", script]))
        .await
        .unwrap()
        .check()
        .unwrap();
    let share: f64 = output.stdout_text().trim().parse().unwrap();
    assert!(share < 0.75, "{share} of a processor");
}

#[tokio::test]
async fn the_report_says_what_holds() {
    let state = State::new();
    let provider = state.provider();
    let report = provider.enforcement(&CreateOptions::new());
    for wall in &report.walls {
        let holds = wall.enforcement == Enforcement::Enforced;
        assert_eq!(
            holds,
            !["disk", "inodes"].contains(&wall.name.as_ref()),
            "{wall:?}"
        );
    }
    // More than half of the usual memory, and files without a word on bytes.
    for limits in [
        Limits::new().memory(64 * MIB).disk(33 * MIB),
        Limits::new().inodes(1000),
    ] {
        let error = provider
            .create(CreateOptions::new().limits(limits))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let state = State::new();
    let provider = state.provider();
    let senseless = [
        Limits::new().memory(0),
        Limits::new().cpus(0.0),
        Limits::new().cpus(-1.0),
        Limits::new().cpus(f64::NAN),
        Limits::new().cpus(f64::INFINITY),
        Limits::new().processes(0),
        Limits::new().processes(u64::MAX),
    ];
    for limits in senseless {
        let error = provider
            .create(CreateOptions::new().limits(limits))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{limits:?}");
    }
    assert_eq!(
        std::fs::read_dir(state.path().join("sandboxes"))
            .unwrap()
            .count(),
        0
    );
}

/// Writes to a file until that fails, says how much it was in MiB and why it ended; then makes empty files likewise.
const FILL: &str = r#"
import errno, os
def fill(step):
    count = 0
    try:
        while True:
            step(count)
            count += 1
    except OSError as error:
        return f"{count} {errno.errorcode[error.errno]}"
big = open("big", "wb", buffering=0)
print(fill(lambda _: big.write(bytes(1 << 20))))
big.truncate(0)
print(fill(lambda number: open(f"f{number}", "w").close()))
"#;

#[tokio::test]
async fn a_full_disk_is_an_error_to_whoever_writes_and_to_nobody_else() {
    let state = State::new();
    let provider = state.provider();
    let limits = Limits::new().memory(64 * MIB).disk(16 * MIB).inodes(500);
    let options = CreateOptions::new().limits(limits);
    let report = provider.enforcement(&options);
    for name in ["disk", "inodes"] {
        let wall = report.wall(name).unwrap();
        assert_eq!(wall.enforcement, Enforcement::Enforced, "{wall:?}");
        assert!(wall.detail.contains("memory"), "{wall:?}");
    }
    let sandbox = provider.create(options).await.unwrap();
    let info = sandbox.info().await.unwrap();
    assert_eq!(
        (info.limits.disk, info.limits.inodes),
        (limits.disk, limits.inodes)
    );
    let fill = Command::new("python3").args(["-c", FILL]);
    let output = sandbox.exec(fill).await.unwrap().check().unwrap();
    let said = output.stdout_text();
    let lines: Vec<_> = said
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    let [bytes, files] = lines[..] else {
        panic!("{said}")
    };
    assert_eq!((bytes.1, files.1), ("ENOSPC", "ENOSPC"), "{said}");
    assert!((14..=16).contains(&bytes.0.parse().unwrap()), "{said}");
    assert!((400..=550).contains(&files.0.parse().unwrap()), "{said}");
    let refused = sandbox.files().write_bytes("more", "x").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    sh(&sandbox, "rm -f f*").await;
    let large = vec![1; 20 * MIB as usize];
    let refused = sandbox
        .files()
        .write_bytes("large", large)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    assert_eq!(sh(&sandbox, "rm large big; echo alive").await, "alive\n");
    assert!(sandbox.kill().await.unwrap());
    assert_eq!(state.traces(sandbox.id().as_str()), Default::default());
}

#[tokio::test]
async fn a_sandbox_with_a_disk_of_its_own_is_kept_and_comes_from_no_pool() {
    let state = State::new();
    let provider = state.pooled(1).await;
    let options = CreateOptions::new().limits(Limits::new().disk(16 * MIB));
    let sandbox = provider.create(options.clone()).await.unwrap();
    assert_eq!(
        (provider.pool_status().taken, provider.pool_status().missed),
        (0, 1)
    );
    sh(&sandbox, "echo kept > note; mkdir d; ln note d/again").await;
    let forks = provider.fork(sandbox.id(), 2, options).await.unwrap();
    for fork in &forks {
        let seen = sh(fork, "cat note d/again; df -k --output=size / | tail -n 1").await;
        let size = seen.strip_prefix("kept\nkept\n").unwrap().trim();
        assert_eq!(size.parse::<u64>().unwrap(), 16 * MIB / 1024, "{seen}");
    }
    let used = sandbox.require_metrics().unwrap().usage().await.unwrap();
    assert!(
        used.disk.unwrap() < MIB && used.inodes.unwrap() >= 2,
        "{used:?}"
    );
}

/// Loop devices on files of the state directory.
fn loop_devices(state: &State) -> usize {
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files = devices
        .filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    let ours = files.filter(|file| file.contains(state.path().to_str().unwrap()));
    ours.count()
}

#[tokio::test]
async fn a_disk_larger_than_memory_is_part_of_a_file_system_that_goes_with_the_last() {
    let state = State::new();
    let provider = state.provider();
    let limits = Limits::new().memory(64 * MIB).disk(100 * MIB);
    let options = CreateOptions::new().limits(limits);
    let report = provider.enforcement(&options);
    let wall = report.wall("disk").unwrap();
    if wall.enforcement != Enforcement::Enforced {
        let error = provider.create(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("btrfs-progs"), "{error}");
        return;
    }
    assert!(wall.detail.contains("btrfs"), "{wall:?}");
    let sandbox = provider.create(options.clone()).await.unwrap();
    assert_eq!(loop_devices(&state), 1);
    // Random, so that it takes the room that it says; twice, as what is counted comes a moment late.
    let fill =
        "head -c 60000000 /dev/urandom > kept; sync kept; head -c 80000000 /dev/urandom > more";
    let filled = sandbox.exec(Command::shell(fill)).await.unwrap();
    assert_eq!(filled.status.code(), 1, "{filled:?}");
    assert!(filled.stderr_text().contains("quota"), "{filled:?}");
    let refused = sandbox
        .files()
        .write_bytes("x", vec![1; 64 * MIB as usize])
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::StorageFull);
    sh(&sandbox, "rm -f more x").await;

    let forks = provider.fork(sandbox.id(), 2, options).await.unwrap();
    for fork in &forks {
        assert_eq!(
            sh(fork, "stat -c %s kept; rm kept; echo own > own").await,
            "60000000\n"
        );
    }
    assert!(sandbox.kill().await.unwrap());
    assert_eq!(sh(&forks[0], "cat own").await, "own\n");
    let second = provider
        .fork(forks[0].id(), 1, CreateOptions::new())
        .await
        .unwrap();
    assert_eq!(
        sh(&second[0], "cat own; ls kept 2>/dev/null; exit 0").await,
        "own\n"
    );
    for one in forks.iter().chain(&second) {
        assert!(one.kill().await.unwrap());
        assert_eq!(state.traces(one.id().as_str()), Default::default());
    }
    provider.prune().unwrap();
    assert_eq!(loop_devices(&state), 0);
    assert!(!state.path().join("disk.img").exists());
}

#[tokio::test]
async fn a_file_system_for_disks_that_has_failed_is_mounted_anew_when_nobody_has_it() {
    let state = State::new();
    let provider = state.provider();
    let limits = Limits::new().memory(64 * MIB).disk(100 * MIB);
    let options = CreateOptions::new().limits(limits);
    if provider
        .enforcement(&options)
        .wall("disk")
        .unwrap()
        .enforcement
        != Enforcement::Enforced
    {
        return;
    }
    let first = provider.create(options.clone()).await.unwrap();
    sh(&first, "echo kept > note").await;
    let kept = first.require_snapshots().unwrap();
    let kept = kept.snapshot(SnapshotOptions::new()).await.unwrap();
    // What the kernel does when it cannot write.
    let mut remount = std::process::Command::new("mount");
    remount
        .args(["-o", "remount,ro"])
        .arg(state.path().join("disk"));
    assert!(remount.status().unwrap().success());
    assert_eq!(
        sh(&first, "touch new 2> /dev/null || cat note").await,
        "kept\n"
    );
    let error = provider.create(options.clone()).await.unwrap_err();
    assert!(error.to_string().contains("kill the sandboxes"), "{error}");
    assert!(first.kill().await.unwrap());
    assert_eq!(state.traces(first.id().as_str()), Default::default());
    let second = options.template(kept.id.as_str());
    let second = provider.create(second).await.unwrap();
    assert_eq!(
        sh(&second, "cat note; echo more > note; cat note").await,
        "kept\nmore\n"
    );
    assert!(second.kill().await.unwrap());
    let template = TemplateId::new(kept.id.as_str());
    assert!(provider.remove_template(&template).await.unwrap());
    drop(state.provider());
    assert_eq!(loop_devices(&state), 0);
}

#[tokio::test]
async fn bytes_are_counted_that_programs_wrote_to_disk_before_they_ended() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let write =
        Command::shell("head -c 8000000 /dev/zero > data & wait; head -c 1000000 /dev/zero > more");
    sandbox.exec(write).await.unwrap().check().unwrap();
    let used = sandbox.require_metrics().unwrap().usage().await.unwrap();
    let written = used.written.unwrap();
    assert!((9_000_000..20_000_000).contains(&written), "{written}");
    assert!(used.read.is_some());
}
