//! Output without end, and whoever should read it.

use crate::lab::{Inside, Lab, MIB, Who, in_time};
use futures_util::future;
use sandbox_core::{Position, prelude::*};
use std::fs;

/// Memory of a process of the host, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes: u64 = line
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap();
    kilobytes * 1024
}

/// A gigabyte, on both streams.
const FLOOD: &str = "head -c 512M /dev/zero & head -c 512M /dev/zero >&2; wait; echo end";

#[tokio::test]
async fn that_nobody_reads() {
    let sandbox = Lab::new().sandbox().await;
    let process = sandbox.spawn(Command::shell(FLOOD)).await.unwrap();
    let id = process.id().clone();
    drop(process);
    let attach = sandbox.require_attach().unwrap();
    let mut process = attach.attach(&id, Position::Cursor(0)).await.unwrap();
    let before = resident(std::process::id());
    let (mut lost, mut read) = (0, 0);
    while let Some(event) = in_time(process.try_next()).await.unwrap() {
        match event {
            ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) => read += bytes.len() as u64,
            ProcessEvent::Lost { bytes } => lost += bytes,
            ProcessEvent::Exited(status) => assert_eq!(status, ExitStatus::Code(0)),
            _ => {}
        }
    }
    assert_eq!(read + lost, 1024 * MIB + 4);
    assert!(resident(sandbox.init()) < 16 * MIB, "PID 1 keeps it all");
    assert!(
        resident(std::process::id()) < before + 256 * MIB,
        "the library keeps it all"
    );
}

#[tokio::test]
async fn that_is_read_too_slowly() {
    let sandbox = Lab::new().sandbox().await;
    let mut process = sandbox.spawn(Command::shell(FLOOD)).await.unwrap();
    in_time(process.try_next()).await.unwrap();
    // The program waits; nothing piles up, and others are not held up.
    for _ in 0..20 {
        sandbox.works().await;
    }
    assert!(resident(sandbox.init()) < 16 * MIB, "PID 1 keeps it all");
    drop(process);
    sandbox.works().await;
}

#[tokio::test]
async fn that_is_collected() {
    let sandbox = Lab::new().sandbox().await;
    let process = sandbox.spawn(Command::shell(FLOOD)).await.unwrap();
    let output = in_time(process.output_within(1 << 20)).await.unwrap();
    assert!(output.truncated);
    assert_eq!(
        (output.stdout.len(), output.stderr.len()),
        (1 << 20, 1 << 20)
    );
}

#[tokio::test]
async fn by_many_commands_at_once() {
    let sandbox = Lab::new().sandbox().await;
    let script = "head -c 16M /dev/zero";
    let floods = future::join_all((0..16).map(|_| sandbox.exec(Command::shell(script))));
    for output in in_time(floods).await {
        let output = output.unwrap();
        assert_eq!(output.stdout.len() as u64, 16 * MIB);
    }
    assert!(resident(sandbox.init()) < 48 * MIB, "PID 1 keeps it all");
}

#[tokio::test]
async fn from_a_pipe_that_was_left_open() {
    // A child that goes on writing after its command has ended neither blocks nor fills anything.
    let sandbox = Lab::new().sandbox().await;
    let script = "setsid sh -c 'while :; do echo x; done' & echo $!";
    let output = leaves(&sandbox, script).await;
    assert!(output.status.success());
    sandbox.works().await;
    assert!(resident(sandbox.init()) < 16 * MIB);
    sandbox.sh(Who::Root, "kill -9 -1").await;
}

async fn leaves(sandbox: &Inside, script: &str) -> sandbox_core::Output {
    in_time(sandbox.exec(Command::shell(script))).await.unwrap()
}
