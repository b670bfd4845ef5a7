//! Blocking handles over the fake.

use super::*;
use crate::{
    ConnectOptions, CreateOptions, ErrorKind, ExitStatus, GlobOptions, ListFilesOptions,
    ListOptions, Position, ProcessEvent, PtySize, ReadOptions, Result, SandboxPath, Signal, Stdin,
    fake::{FakeProvider, Script},
};
use std::{
    io::{Read, Write},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn provider() -> (FakeProvider, BlockingProvider) {
    let fake = FakeProvider::new();
    let blocking = BlockingProvider::new(fake.clone()).expect("no runtime is around");
    (fake, blocking)
}

#[test]
fn a_sandbox_is_made_found_and_killed() {
    let (_, provider) = provider();
    let sandbox = provider.create(CreateOptions::new().name("a")).unwrap();
    let (id, options) = (sandbox.id().clone(), ConnectOptions::new());
    assert_eq!(sandbox.info().unwrap().name.as_deref(), Some("a"));
    assert_eq!(provider.list(ListOptions::new()).unwrap().len(), 1);
    assert_eq!(provider.connect(&id, options.clone()).unwrap().id(), &id);
    assert_eq!(provider.templates().unwrap().unwrap().len(), 1);
    sandbox.set_lifetime(Duration::from_secs(60)).unwrap();
    sandbox.pause().unwrap();
    sandbox.resume().unwrap();
    sandbox.snapshot(Default::default()).unwrap();
    assert!(sandbox.preview_url(80).unwrap().contains("80"));
    assert!(provider.sandbox(&id).kill().unwrap());
    assert!(!provider.kill(&id).unwrap());
    let gone = provider.connect(&id, options).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::SandboxNotFound);
}

#[test]
fn a_connection_is_read_and_written() {
    let (fake, provider) = provider();
    fake.serve(80, |mut stream| async move {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).await.unwrap();
        asked.reverse();
        stream.write_all(&asked).await.unwrap();
    });
    let sandbox = provider.create(CreateOptions::new()).unwrap();
    let mut stream = sandbox.connect_port(80).unwrap();
    stream.write_all(b"abc").unwrap();
    stream.shutdown().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "cba");
    let nobody = sandbox.connect_port(81).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound);
}

#[test]
fn the_events_of_a_process_are_iterated_over() {
    let (fake, provider) = provider();
    let talk = Script::program("talk")
        .stdout("a")
        .until_stdin("go")
        .stderr("b");
    fake.script(talk.until_signal(Signal::TERM).exit(3));
    fake.script(Script::any().stdout("out").exit(0));
    let sandbox = provider.create(CreateOptions::new()).unwrap();
    let command = crate::Command::new("talk").stdin(Stdin::Open);
    let mut process = sandbox.spawn(command).unwrap();
    let control = process.control();
    // Another thread writes and signals while this one reads.
    let writer = std::thread::spawn(move || -> Result<()> {
        control.write_stdin("go")?;
        control.signal(Signal::TERM)
    });
    let events: Vec<_> = process.by_ref().map(Result::unwrap).collect();
    writer.join().unwrap().unwrap();
    assert!(matches!(events[0], ProcessEvent::Started { .. }));
    assert_eq!(
        events[1..3],
        [
            ProcessEvent::Stdout("a".into()),
            ProcessEvent::Stderr("b".into())
        ]
    );
    assert_eq!(events[3..], [ProcessEvent::Exited(ExitStatus::Code(3))]);
    assert_eq!(
        (process.exit(), process.cursor()),
        (Some(ExitStatus::Code(3)), 2)
    );
    assert!(process.next().is_none());
    let attached = sandbox.attach(process.id(), Position::Cursor(0)).unwrap();
    assert_eq!(attached.output().unwrap().stdout_text(), "a");
    let listed = sandbox.processes().unwrap();
    assert_eq!(&listed[0].id, process.id());
    let output = sandbox.exec(crate::Command::new("x")).unwrap();
    assert_eq!(output.stdout_text(), "out");
    let pty = sandbox.spawn_pty(crate::Command::new("x"), PtySize::default());
    assert!(pty.unwrap().wait().unwrap().success());
}

#[test]
fn files_are_written_and_read() {
    let (_, provider) = provider();
    let files = provider.create(CreateOptions::new()).unwrap().files();
    let path = |text: &str| SandboxPath::new(text).unwrap();
    files.write_bytes("a", "text").unwrap();
    files.mkdir(&path("d"), Default::default()).unwrap();
    files
        .rename(&path("a"), &path("d/b"), Default::default())
        .unwrap();
    assert_eq!(files.read_text("d/b").unwrap(), "text");
    let contents = files
        .read(&path("d/b"), ReadOptions::new().range(1..3))
        .unwrap();
    assert_eq!(contents.size(), 4);
    let pieces: Vec<_> = contents.map(Result::unwrap).collect();
    assert_eq!(pieces.concat(), b"ex");
    assert!(files.exists("d/b").unwrap() && !files.exists("a").unwrap());
    let all = files.list(&path("."), ListFilesOptions::new().depth(2u32));
    assert_eq!(all.unwrap().len(), 2);
    let found = files.glob(&path("."), "**/b", GlobOptions::new()).unwrap();
    assert_eq!(found.len(), 1);
    files.remove(&path("d/b"), Default::default()).unwrap();
    assert!(files.list_all("d").unwrap().is_empty());
    let missing = files.read_bytes("d/b").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn inside_of_a_runtime_calls_are_errors_and_nothing_panics() {
    let (fake, provider) = provider();
    fake.script(Script::any().exit(0));
    let sandbox = provider.create(CreateOptions::new()).unwrap();
    let mut process = sandbox.spawn(crate::Command::new("x")).unwrap();
    let before = fake.calls().len();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let made = BlockingProvider::new(FakeProvider::new()).unwrap();
        let errors = [
            made.create(CreateOptions::new()).unwrap_err(),
            provider.list(ListOptions::new()).unwrap_err(),
            sandbox.info().unwrap_err(),
            sandbox.exec(crate::Command::new("x")).unwrap_err(),
            sandbox.files().read_text("a").unwrap_err(),
            process.control().write_stdin("x").unwrap_err(),
            process.next().unwrap().unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InvalidState);
            assert!(error.message().contains("async runtime"));
        }
        assert!(process.next().is_none(), "or a loop would never end");
        assert_eq!(fake.calls().len(), before);
        // What the last handles end is a runtime.
        drop((made, provider, sandbox, process));
    });
}

#[test]
fn tasks_go_on_between_calls() {
    let (fake, provider) = provider();
    let (sender, receiver) = std::sync::mpsc::channel();
    fake.script(Script::when(move |_| sender.send(()).is_ok()).exit(0));
    let sandbox = provider.create(CreateOptions::new()).unwrap();
    let process = sandbox.spawn(crate::Command::new("x")).unwrap();
    receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    // Handles outlive the provider, with its runtime.
    drop((provider, sandbox));
    assert!(process.output().unwrap().status.success());
}
