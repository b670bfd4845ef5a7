//! A PID 1 that says anything: what the library makes of it is an answer or a typed error, never a panic or a wait
//! without end.
//!
//! The sandbox is a record in a directory of its own, and a thread of the test that listens on its socket.

mod answers;
mod peer;

use super::{
    cgroup::Groups,
    record::{Locked, Record, Records, SOCKET},
    socket,
};
use crate::LocalProvider;
use answers::{Answers, answers};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use peer::Peer;
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseResult},
};
use sandbox_core::{
    Body, Bytes, ConnectOptions, GlobOptions, ListFilesOptions, ListOptions, MkdirOptions,
    PermissionOptions, Position, ProcessId, PtySize, ReadOptions, RemoveOptions, RenameOptions,
    Signal, StatOptions, WriteOptions, prelude::*,
};
use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::timeout};

/// Far more than any call may take whose peer answers or vanishes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sandbox that is nothing but a record.
struct Planted {
    sandbox: Arc<dyn Sandbox>,
    provider: LocalProvider,
    _state: TempDir,
}

impl Planted {
    /// Also returns the lock of the record and the socket on which its PID 1 would listen.
    fn new() -> (Self, Locked, OwnedFd) {
        let state = tempfile::tempdir().unwrap();
        let provider = LocalProvider::builder().state_dir(state.path());
        let provider = provider.build().unwrap();
        let records = Records::open(state.path()).unwrap();
        let (id, locked) = records.add().unwrap();
        let record = Record {
            id: id.clone(),
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
        records.write(&locked, &record).unwrap();
        let listener = socket::listen(locked.as_fd(), SOCKET).unwrap();
        let planted = Self {
            sandbox: provider.sandbox(&id),
            provider,
            _state: state,
        };
        (planted, locked, listener)
    }
}

/// Every call that talks to a PID 1; `kill` comes last.
const CALLS: [&str; 22] = [
    "info",
    "connect",
    "spawn",
    "exec",
    "pty",
    "attach",
    "processes",
    "set_lifetime",
    "connect to a port",
    "read",
    "read a range",
    "write",
    "write a stream",
    "stat",
    "list",
    "glob",
    "mkdir",
    "rename",
    "remove",
    "set_permissions",
    "list ids",
    "kill",
];

async fn call(planted: &Planted, name: &str) -> Result<()> {
    let (provider, sandbox) = (&planted.provider, &planted.sandbox);
    let command = Command::new("true").stdin(Stdin::Open);
    match name {
        "info" => sandbox.info().await.map(drop),
        "connect" => {
            let options = ConnectOptions::new().lifetime(Duration::from_secs(9));
            provider.connect(sandbox.id(), options).await.map(drop)
        }
        "spawn" => follow(sandbox.spawn(command).await?).await,
        "exec" => sandbox.exec(Command::shell("true")).await.map(drop),
        "pty" => {
            let mut process = sandbox
                .require_pty()?
                .spawn(command, PtySize::default())
                .await?;
            process.control().resize(PtySize::default()).await?;
            process.wait().await.map(drop)
        }
        "attach" => {
            let (attach, from) = (sandbox.require_attach()?, Position::Cursor(1 << 63));
            follow(attach.attach(&ProcessId::new("7"), from).await?).await
        }
        "processes" => sandbox.require_attach()?.processes().await.map(drop),
        "set_lifetime" => {
            let lifecycle = sandbox.require_lifecycle()?;
            lifecycle.set_lifetime(Duration::from_secs(9)).await
        }
        "connect to a port" => sandbox.require_ports()?.connect(80).await.map(drop),
        "list ids" => exhaust(provider.list(ListOptions::new())).await,
        "kill" => sandbox.kill().await.map(drop),
        _ => call_files(sandbox.files(), name).await,
    }
}

async fn call_files(files: &dyn Files, name: &str) -> Result<()> {
    let path = SandboxPath::new("/home/user/x")?;
    match name {
        "read" => read(files, &path, ReadOptions::new()).await,
        "read a range" => read(files, &path, ReadOptions::new().range(7..u64::MAX)).await,
        "write" => files.write(&path, "x".into(), WriteOptions::new()).await,
        "write a stream" => {
            let pieces = stream::iter([Ok(Bytes::from_static(&[7; 1000])), Ok(Bytes::new())]);
            let body = Body::stream(pieces.boxed(), None);
            files.write(&path, body, WriteOptions::new()).await
        }
        "stat" => files.stat(&path, StatOptions::new()).await.map(drop),
        "list" => exhaust(files.list(&path, ListFilesOptions::new().depth(3_u32))).await,
        "glob" => exhaust(files.glob(&path, "**/*x", GlobOptions::new())).await,
        "mkdir" => files.mkdir(&path, MkdirOptions::new()).await,
        "rename" => files.rename(&path, &path, RenameOptions::new()).await,
        "remove" => files.remove(&path, RemoveOptions::new()).await,
        "set_permissions" => files.set_permissions(&path, PermissionOptions::new()).await,
        _ => Err(Error::unsupported(name)),
    }
}

/// Writes to a process, signals it and reads its events.
async fn follow(mut process: Process) -> Result<()> {
    let control = process.control();
    let written = control.write_stdin(Bytes::from_static(&[7; 100_000])).await;
    let signalled = control.signal(Signal::TERM).await;
    while process.try_next().await?.is_some() {}
    signalled.and(written)
}

/// Reads the first megabytes.
async fn read(files: &dyn Files, path: &SandboxPath, options: ReadOptions) -> Result<()> {
    let contents = files.read(path, options).await?;
    exhaust(contents.into_stream().take(4)).await
}

async fn exhaust<T>(items: impl Stream<Item = Result<T>>) -> Result<()> {
    items.try_for_each(|_| async { Ok(()) }).await
}

/// Makes all calls. Each ends in time, and well or with an error that fits a peer like this.
fn check(runtime: &Runtime, answers: Answers) -> TestCaseResult {
    let may_refuse = answers.may_refuse();
    let (planted, locked, listener) = Planted::new();
    let _peer = Peer::start(listener, locked, answers);
    for name in CALLS {
        let ended = runtime.block_on(async { timeout(PATIENCE, call(&planted, name)).await });
        let Ok(result) = ended else {
            return Err(TestCaseError::fail(format!("{name} does not end")));
        };
        let Err(error) = result else {
            continue;
        };
        let fits = match error.kind() {
            ErrorKind::Protocol | ErrorKind::SandboxNotFound | ErrorKind::Unavailable => true,
            // Standard input that the peer called closed.
            ErrorKind::InvalidState => matches!(name, "spawn" | "attach"),
            // Sealed memory is a file that nobody may write to.
            ErrorKind::PermissionDenied => name == "write a stream",
            _ => false,
        };
        prop_assert!(fits || may_refuse, "{name}: {error:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_nothing_does_not_block() {
    let (planted, locked, _listener) = Planted::new();
    let mut waiting = Vec::new();
    while let Ok(connection) = socket::connect(locked.as_fd(), SOCKET) {
        waiting.push(connection);
    }
    let error = planted.sandbox.info().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = planted.sandbox.files().read_bytes("/x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Nothing says who is to be killed, and somebody still holds the lock.
    let error = planted.sandbox.kill().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(locked);
    assert!(planted.sandbox.kill().await.unwrap());
}

proptest! {
    #![proptest_config(Config { cases: 64, ..Config::default() })]

    #[test]
    fn no_answer_makes_a_call_panic_or_hang(answers in answers()) {
        check(&Runtime::new().unwrap(), answers)?;
    }
}
