//! Limits hold, and only the offender pays.

use crate::support::{State, sh};
use sandbox_core::{Enforcement, prelude::*};
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
    for limits in [Limits::new().disk(1 << 30), Limits::new().inodes(1000)] {
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
