//! The fake is what tests stand on, so it is tested itself.

use super::*;
use crate::prelude::*;
use crate::{ListOptions, Position, Signal};
use futures_util::TryStreamExt;
use std::{sync::Arc, time::Duration};

async fn sandbox(fake: &FakeProvider) -> Arc<dyn Sandbox> {
    fake.create(CreateOptions::new()).await.unwrap()
}

async fn events(mut process: Process) -> Vec<ProcessEvent> {
    let mut events = Vec::new();
    while let Some(event) = process.try_next().await.unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test(start_paused = true)]
async fn a_script_plays_its_steps_in_order_and_in_virtual_time() {
    let fake = FakeProvider::new();
    let minute = Duration::from_secs(60);
    let script = Script::program("x")
        .stdout("a")
        .delay(minute)
        .stderr("b")
        .lost(3)
        .exit(4);
    fake.script(script);
    let before = tokio::time::Instant::now();
    let process = sandbox(&fake).await.spawn(Command::new("x")).await.unwrap();
    let expected = [
        ProcessEvent::Started { pid: Some(1) },
        ProcessEvent::Stdout("a".into()),
        ProcessEvent::Stderr("b".into()),
        ProcessEvent::Lost { bytes: 3 },
        ProcessEvent::Exited(ExitStatus::Code(4)),
    ];
    assert_eq!(events(process).await, expected);
    assert_eq!(before.elapsed(), minute);
}

#[tokio::test]
async fn the_first_script_that_matches_answers() {
    let fake = FakeProvider::new();
    fake.script(Script::shell("x").once().exit(1));
    fake.script(Script::when(|command| command.args == ["y"]).exit(2));
    fake.script(Script::shell("x").exit(3));
    let sandbox = sandbox(&fake).await;
    let mut codes = Vec::new();
    for command in [
        Command::shell("x"),
        Command::new("z").arg("y"),
        Command::shell("x"),
    ] {
        codes.push(sandbox.exec(command).await.unwrap().status.code());
    }
    assert_eq!(codes, [1, 2, 3]);
    let error = sandbox.spawn(Command::new("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("no script answers"), "{error}");
}

#[tokio::test]
async fn scripts_read_input_and_wait_for_signals() {
    let fake = FakeProvider::new();
    let script = Script::program("repl")
        .stdout("> ")
        .until_stdin("1+1\n")
        .stdout("2\n")
        .until_stdin_closed()
        .until_signal(Signal::USR1)
        .stdout("bye");
    fake.script(script);
    let command = Command::new("repl").stdin(Stdin::Open);
    let process = sandbox(&fake).await.spawn(command).await.unwrap();
    let control = process.control();
    control.write_stdin("1+".into()).await.unwrap();
    control.write_stdin("1\nmore".into()).await.unwrap();
    control.close_stdin().await.unwrap();
    control.signal(Signal::USR1).await.unwrap();
    let output = process.output().await.unwrap();
    assert_eq!(output.stdout_text(), "> 2\nbye");
    assert_eq!(output.status, ExitStatus::Code(0));
    let late = control.write_stdin("x".into()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidState);
    let late = control.signal(Signal::TERM).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidState);
}

#[tokio::test]
async fn kill_and_the_end_of_the_sandbox_end_a_script_anywhere() {
    let fake = FakeProvider::new();
    fake.script(Script::any().gate(&Gate::new()).stdout("never"));
    let sandbox = sandbox(&fake).await;
    let mut process = sandbox.spawn(Command::new("x")).await.unwrap();
    process.control().signal(Signal::KILL).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), ExitStatus::Signal(9));
    let mut process = sandbox.spawn(Command::new("x")).await.unwrap();
    assert!(sandbox.kill().await.unwrap());
    let error = process.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxNotFound);
}

#[tokio::test]
async fn gates_open_when_the_test_says_so() {
    let (fake, gate) = (FakeProvider::new(), Gate::new());
    fake.script(Script::any().stdout("before").gate(&gate).stdout("after"));
    let mut process = sandbox(&fake).await.spawn(Command::new("x")).await.unwrap();
    process.try_next().await.unwrap();
    let first = process.try_next().await.unwrap();
    assert_eq!(first, Some(ProcessEvent::Stdout("before".into())));
    gate.open();
    assert_eq!(process.output().await.unwrap().stdout_text(), "after");
}

#[tokio::test]
async fn readers_come_late_and_go_back() {
    let fake = FakeProvider::new();
    fake.script(
        Script::any()
            .stdout("one")
            .stderr("two")
            .stdout("three")
            .exit(5),
    );
    let sandbox = sandbox(&fake).await;
    let mut first = sandbox.spawn(Command::new("x").tag("t")).await.unwrap();
    assert_eq!(first.wait().await.unwrap(), ExitStatus::Code(5));
    let attach = sandbox.require_attach().unwrap();
    let again = attach
        .attach(first.id(), Position::Cursor(4))
        .await
        .unwrap();
    assert_eq!(again.cursor(), 4);
    let output = again.output().await.unwrap();
    assert_eq!(
        (output.stdout_text(), output.stderr_text()),
        ("three".into(), "wo".into())
    );
    let now = attach.attach(first.id(), Position::Now).await.unwrap();
    assert_eq!(events(now).await.len(), 2);
    let listed = attach.processes().await.unwrap();
    assert_eq!(listed[0].tag.as_deref(), Some("t"));
    assert_eq!(listed[0].exit, Some(ExitStatus::Code(5)));
}

#[tokio::test]
async fn a_broken_stream_is_an_error() {
    let fake = FakeProvider::new();
    fake.script(
        Script::any()
            .stdout("x")
            .fail(ErrorKind::Unavailable, "the line broke"),
    );
    let process = sandbox(&fake).await.spawn(Command::new("x")).await.unwrap();
    let error = process.output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn faults_hit_one_call_each() {
    let fake = FakeProvider::new();
    let sandbox = sandbox(&fake).await;
    fake.fault("info", Fault::Error(ErrorKind::Unavailable, "away".into()));
    fake.fault("info", Fault::Delay(Duration::from_secs(5)));
    let error = sandbox.info().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Unavailable, Some("info"))
    );
    let before = tokio::time::Instant::now();
    sandbox.info().await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(5));
    assert_eq!(fake.faults_left(), 0);
    sandbox.info().await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
#[should_panic(expected = "there is no operation \"file.read\"")]
async fn a_fault_that_could_never_hit_is_a_mistake_of_the_test() {
    FakeProvider::new().fault("file.read", Fault::Gate(Gate::new()));
}

#[tokio::test]
async fn calls_are_recorded_with_what_they_are_about() {
    let fake = FakeProvider::new();
    fake.script(Script::any());
    let sandbox = sandbox(&fake).await;
    sandbox.files().write_bytes("a", "x").await.unwrap();
    sandbox.exec(Command::new("y")).await.unwrap();
    let _: Vec<_> = fake.list(ListOptions::new()).try_collect().await.unwrap();
    let calls = fake.calls();
    let operations: Vec<_> = calls.iter().map(|call| call.operation).collect();
    assert_eq!(operations, ["create", "files.write", "spawn", "list"]);
    assert_eq!(calls[1].path, Some("a".try_into().unwrap()));
    assert_eq!(calls[2].command, Some(Command::new("y")));
    assert_eq!(calls[2].sandbox.as_ref(), Some(sandbox.id()));
    assert!(operations.iter().all(|name| OPERATIONS.contains(name)));
}

#[tokio::test(start_paused = true)]
async fn sandboxes_expire_by_the_virtual_clock() {
    let fake = FakeProvider::new();
    fake.script(Script::any().gate(&Gate::new()));
    let options = CreateOptions::new().lifetime(Duration::from_secs(60));
    let sandbox = fake.create(options).await.unwrap();
    let info = sandbox.info().await.unwrap();
    let lives = info
        .expires_at
        .unwrap()
        .duration_since(info.created_at.unwrap());
    assert_eq!(lives.unwrap(), Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let error = sandbox.info().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxNotFound);
    assert!(!sandbox.kill().await.unwrap());
}
