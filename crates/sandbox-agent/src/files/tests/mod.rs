//! The worker against a small file tree of its own, as a thread in a chroot.

mod contents;
mod entries;
mod hostile;
mod moves;
mod requests;
mod watch;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use sandbox_agent::protocol::files::{Entry, FileReply, FileRequest, Stat};
use sandbox_agent::protocol::{Blob, Wire};

use super::{Connection, Worker};
use crate::sys::{socket, testing};

/// What the worker's thread mounts before it is locked in; host paths.
type Mounts = Box<dyn FnOnce(&Path) + Send>;

/// A worker in a tree of its own, and the host's end of its connection.
struct Fixture {
    dir: tempfile::TempDir,
    socket: Option<OwnedFd>,
    worker: Option<JoinHandle<()>>,
}

impl Fixture {
    fn new() -> Self {
        Self::with_mounts(Box::new(|_| ()))
    }

    /// With a worker that is there for a watch.
    fn watching() -> Self {
        Self::with_worker(Box::new(|_| ()), true)
    }

    fn with_mounts(mounts: Mounts) -> Self {
        Self::with_worker(mounts, false)
    }

    fn with_worker(mounts: Mounts, watches: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode, owner) in [
            ("etc", 0o755, 0),
            ("tmp", 0o1777, 0),
            ("root", 0o700, 0),
            ("home", 0o755, 1000),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
        // Everybody may pass through, as in a real root.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/root:\nuser:x:1000:1000::/home:\nann:x:7:8::/:\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("etc/group"),
            "root:x:0:\nuser:x:1000:\nstaff:x:50:ann\n",
        )
        .unwrap();
        let root = dir.path().to_owned();
        let (socket, worker) = start(watches, move || {
            mounts(&root);
            std::os::unix::fs::chroot(&root).unwrap();
            std::env::set_current_dir("/").unwrap();
        });
        Self {
            dir,
            socket: Some(socket),
            worker: Some(worker),
        }
    }

    /// The host's path of a path inside.
    fn host(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn mode(&self, path: &str) -> u32 {
        std::fs::symlink_metadata(self.host(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }

    fn socket(&self) -> &OwnedFd {
        self.socket.as_ref().unwrap()
    }

    fn ask(&self, request: &FileRequest) -> (FileReply, Vec<OwnedFd>) {
        ask(self.socket(), request)
    }

    /// Carries out a request that is answered by nothing but success.
    #[track_caller]
    fn done(&self, request: &FileRequest) {
        assert_eq!(self.ask(request).0, FileReply::Done {}, "{request:?}");
    }

    /// Makes a request that must fail, and gives the system's number and the message.
    #[track_caller]
    fn failure(&self, request: &FileRequest) -> (i32, String) {
        match self.ask(request).0 {
            FileReply::Failed { errno, message } => {
                assert!(!message.is_empty());
                (errno, message)
            }
            other => panic!("{request:?} gave {other:?}"),
        }
    }

    #[track_caller]
    fn fails(&self, errno: i32, request: &FileRequest) {
        let got = self.failure(request);
        assert_eq!(got.0, errno, "{request:?}: {}", got.1);
    }

    #[track_caller]
    fn stat(&self, path: impl Into<Vec<u8>>) -> Stat {
        match self.ask(&stat(path, false)).0 {
            FileReply::Stat { stat } => stat,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn data(&self, path: &str) -> Vec<u8> {
        match self.ask(&read(path, 0, 1024)).0 {
            FileReply::Data { data, .. } => data.0,
            other => panic!("{other:?}"),
        }
    }

    /// All entries of a listing, and how it ended.
    fn list(&self, request: &FileRequest) -> (Vec<Entry>, FileReply) {
        let mut all = Vec::new();
        let mut reply = self.ask(request).0;
        loop {
            match reply {
                FileReply::Entries { entries } => {
                    assert!(!entries.is_empty());
                    all.extend(entries);
                }
                end => return (all, end),
            }
            reply = receive(self.socket()).unwrap().0;
        }
    }

    fn names(&self, path: &str, depth: u32) -> Vec<String> {
        let (entries, end) = self.list(&list(path, depth, 1000));
        assert_eq!(end, FileReply::Done {});
        entries
            .into_iter()
            .map(|entry| String::from_utf8(entry.path.0).unwrap())
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(self.socket.take());
        let ended = self.worker.take().unwrap().join();
        assert!(
            ended.is_ok() || std::thread::panicking(),
            "the worker panicked"
        );
    }
}

/// Starts a worker in a thread that `prepare` has put somewhere.
fn start(watches: bool, prepare: impl FnOnce() + Send + 'static) -> (OwnedFd, JoinHandle<()>) {
    let (ours, theirs) = testing::socket_pair();
    let (ready, started) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        testing::unshare_mounts().unwrap();
        let worker = Worker::new(
            Connection::new(theirs, None, Duration::from_secs(60)),
            watches,
        );
        prepare();
        ready.send(()).unwrap();
        let _ = worker.run();
    });
    started.recv().unwrap();
    (ours, worker)
}

fn ask(socket: &OwnedFd, request: &FileRequest) -> (FileReply, Vec<OwnedFd>) {
    socket::send(socket.as_fd(), &request.encode(), &[]).unwrap();
    receive(socket).expect("the worker answers")
}

fn receive(socket: &OwnedFd) -> Option<(FileReply, Vec<OwnedFd>)> {
    let message = socket::receive(socket.as_fd()).unwrap()?;
    Some((FileReply::decode(&message.bytes).unwrap(), message.fds))
}

fn blob(path: impl Into<Vec<u8>>) -> Blob {
    Blob(path.into())
}

fn root() -> Option<String> {
    Some("root".into())
}

fn read(path: impl Into<Vec<u8>>, offset: u64, len: u64) -> FileRequest {
    FileRequest::Read {
        path: blob(path),
        user: None,
        offset,
        len,
    }
}

fn write(path: impl Into<Vec<u8>>, data: &[u8]) -> FileRequest {
    FileRequest::Write {
        path: blob(path),
        user: None,
        mode: None,
        data: blob(data),
    }
}

fn create(path: impl Into<Vec<u8>>, mode: Option<u32>) -> FileRequest {
    FileRequest::Create {
        path: blob(path),
        user: None,
        mode,
    }
}

fn stat(path: impl Into<Vec<u8>>, follow: bool) -> FileRequest {
    FileRequest::Stat {
        path: blob(path),
        user: None,
        follow,
    }
}

fn list(path: impl Into<Vec<u8>>, depth: u32, limit: u64) -> FileRequest {
    FileRequest::List {
        path: blob(path),
        user: None,
        depth,
        limit,
    }
}

fn mkdir(path: impl Into<Vec<u8>>, parents: bool) -> FileRequest {
    FileRequest::Mkdir {
        path: blob(path),
        user: None,
        mode: None,
        parents,
    }
}

fn rename(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> FileRequest {
    FileRequest::Rename {
        from: blob(from),
        to: blob(to),
        user: None,
    }
}

fn remove(path: impl Into<Vec<u8>>, recursive: bool) -> FileRequest {
    FileRequest::Remove {
        path: blob(path),
        user: None,
        recursive,
    }
}

fn permit(path: impl Into<Vec<u8>>, mode: Option<u32>, owner: Option<&str>) -> FileRequest {
    FileRequest::SetPermissions {
        path: blob(path),
        user: None,
        mode,
        owner: owner.map(Into::into),
    }
}

fn symlink(path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> FileRequest {
    FileRequest::Symlink {
        path: blob(path),
        user: None,
        target: blob(target),
    }
}

/// The same request for root.
fn as_root(mut request: FileRequest) -> FileRequest {
    match &mut request {
        FileRequest::Read { user, .. }
        | FileRequest::Write { user, .. }
        | FileRequest::Create { user, .. }
        | FileRequest::Stat { user, .. }
        | FileRequest::List { user, .. }
        | FileRequest::Mkdir { user, .. }
        | FileRequest::Rename { user, .. }
        | FileRequest::Remove { user, .. }
        | FileRequest::SetPermissions { user, .. }
        | FileRequest::Symlink { user, .. }
        | FileRequest::Watch { user, .. } => *user = root(),
    }
    request
}
