//! A zygote with a small template of this machine's own programs, and the library's side of the conversation.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen,
    recvmsg, sendmsg, socket_with, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use sandbox_agent::protocol::zygote::{Configure, Create, Lower, Overlay, Reply, Request, Rights};
use sandbox_agent::protocol::{Blob, Limits, MAX_PACKET, VERSION, Wire as _};

pub(crate) const STORAGE_BASE: u32 = 0x6f00_0000;
pub(crate) const COUNT: u32 = 0x1_0000;

/// Long enough for a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);

/// A zygote, its template and its stores. Dropping it ends the zygote.
pub(crate) struct Zygote {
    process: Child,
    socket: Option<OwnedFd>,
    directory: tempfile::TempDir,
    stores: std::cell::Cell<u32>,
}

/// A sandbox that was made. Dropping it closes the lifeline, so that an owned one ends.
pub(crate) struct Sandbox {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) lifeline: OwnedFd,
    pub(crate) inodes: [u64; 3],
    pub(crate) store: PathBuf,
    pub(crate) base: u32,
}

/// What goes along with a request.
pub(crate) struct Descriptors {
    pub(crate) sent: Vec<OwnedFd>,
    lifeline: OwnedFd,
}

impl Zygote {
    /// Starts a zygote and waits until it is ready.
    pub(crate) fn start() -> Self {
        let mut zygote = Self::start_unconfigured();
        match zygote.configure(VERSION) {
            Some(Reply::Ready { version: VERSION }) => zygote,
            Some(Reply::Failed { step, errno }) => {
                let error = std::io::Error::from_raw_os_error(errno);
                panic!(
                    "this test needs real root and namespaces, and the zygote failed to {step}: {error}"
                )
            }
            other => panic!(
                "unexpected answer {other:?}, exit {:?}",
                zygote.process.try_wait()
            ),
        }
    }

    /// Starts a zygote that has not been told anything.
    pub(crate) fn start_unconfigured() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes sandboxes, for which it must run as root"
        );
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("sandbox-zygote");
        symlink(env!("CARGO_BIN_EXE_sandbox-agent"), &program).unwrap();
        for name in ["staging", "template", "stores"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        make_template(&directory.path().join("template"));
        let (socket, theirs) = seqpacket_pair();
        // The shell puts the socket where the zygote expects it, and limits that are no business of sandboxes.
        let start = "ulimit -S -t 900 && ulimit -S -f 800 && ulimit -S -s 700 && exec \"$0\" 3<&0 </dev/null";
        let process = Command::new("/bin/sh")
            .args(["-c", start])
            .arg(&program)
            .env_clear()
            .stdin(theirs)
            .spawn()
            .unwrap();
        Self {
            process,
            socket: Some(socket),
            directory,
            stores: std::cell::Cell::new(0),
        }
    }

    /// Sends the first message and returns the answer.
    pub(crate) fn configure(&self, version: u32) -> Option<Reply> {
        let staging = self.path("staging");
        let configure = Configure {
            version,
            rights: Rights::Root {
                storage_base: STORAGE_BASE,
            },
            join: false,
            staging: blob(&staging),
        };
        self.send(&configure.encode(), &[]);
        self.receive().map(|(reply, _)| reply)
    }

    /// A request for sandbox number `n` with a new store: a skeleton as `/`, this machine's `/usr` as `/usr`.
    pub(crate) fn request(&self, n: u32) -> Create {
        let store = self.new_store();
        let overlay = |target: &str, lower: &Path, n: u32| Overlay {
            target: target.into(),
            lowers: vec![self::lower(lower, false)],
            store: blob(&store),
            upper: format!("u{n}").as_str().into(),
            work: format!("w{n}").as_str().into(),
        };
        Create {
            name: format!("test-{n}"),
            uid_base: STORAGE_BASE + COUNT * n,
            uid_count: COUNT,
            first_uid: 0,
            overlays: vec![
                overlay("/", &self.path("template"), 0),
                overlay("/usr", Path::new("/usr"), 1),
            ],
            volumes: Vec::new(),
            tmpfs_size: 1 << 20,
            max_processes: 0,
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            limits: Some(Limits {
                memory: 0,
                cpu_millis: 0,
                processes: 0,
            }),
            lifetime_ms: 0,
            owned: true,
            // Returns "allow" for every call.
            seccomp: Blob(vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f]),
            process_cgroup: false,
            oom_counter: false,
            captured: false,
            weaken: 0,
        }
    }

    /// Makes a sandbox that must succeed.
    pub(crate) fn make(&self, n: u32) -> Sandbox {
        let request = self.request(n);
        self.create(&request).unwrap_or_else(|(step, errno)| {
            panic!(
                "failed to {step}: {}",
                std::io::Error::from_raw_os_error(errno)
            )
        })
    }

    /// Makes a sandbox, or returns the step that failed and its error.
    pub(crate) fn create(&self, request: &Create) -> Result<Sandbox, (String, i32)> {
        let Descriptors { sent, lifeline } = self.descriptors();
        self.create_with(request, &encoded(request), sent, lifeline)
    }

    /// Makes a sandbox out of any bytes and descriptors.
    pub(crate) fn create_with(
        &self,
        request: &Create,
        message: &[u8],
        fds: Vec<OwnedFd>,
        lifeline: OwnedFd,
    ) -> Result<Sandbox, (String, i32)> {
        let inode = |fd: &OwnedFd| {
            File::from(fd.try_clone().unwrap())
                .metadata()
                .unwrap()
                .ino()
        };
        let inodes: Vec<u64> = fds
            .iter()
            .chain(std::iter::repeat(&lifeline))
            .take(3)
            .map(inode)
            .collect();
        self.send(message, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
        drop(fds);
        match self.receive() {
            Some((Reply::Created { pid }, mut fds)) => Ok(Sandbox {
                pid,
                pidfd: fds.remove(0),
                lifeline,
                inodes: inodes.try_into().unwrap(),
                store: PathBuf::from(
                    String::from_utf8(request.overlays[0].store.0.clone()).unwrap(),
                ),
                base: request.uid_base,
            }),
            Some((Reply::Failed { step, errno }, fds)) => {
                assert!(fds.is_empty());
                Err((step, errno))
            }
            other => panic!("unexpected answer {other:?}"),
        }
    }

    /// The descriptors of a request without cgroup and OOM counter.
    pub(crate) fn descriptors(&self) -> Descriptors {
        let socket = self.path(&format!("sock-{}", self.stores.get()));
        let flags = SocketFlags::CLOEXEC;
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let _ = fs::remove_file(&socket);
        bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        listen(&listener, 8).unwrap();
        let (theirs, lifeline) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let lock = File::create(self.path("lock")).unwrap();
        Descriptors {
            sent: vec![listener, theirs, lock.into()],
            lifeline,
        }
    }

    /// Sends any message without waiting for an answer.
    pub(crate) fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) {
        send(self.socket.as_ref().unwrap(), message, fds);
    }

    /// Receives the next answer. `None`: the zygote is gone.
    pub(crate) fn receive(&self) -> Option<(Reply, Vec<OwnedFd>)> {
        receive(self.socket.as_ref().unwrap())
    }

    /// Whether an answer has come that was not received yet.
    pub(crate) fn answered(&self) -> bool {
        readable(self.socket.as_ref().unwrap(), Duration::ZERO)
    }

    /// Closes the socket to the zygote.
    pub(crate) fn hang_up(&mut self) {
        self.socket = None;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends the zygote with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for the zygote's own end.
    pub(crate) fn ended(&mut self) -> bool {
        eventually(|| self.process.try_wait().unwrap().is_some())
    }

    /// Processes whose parent the zygote is.
    pub(crate) fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// Waits until the zygote is done with all that it was asked for, by asking for something impossible.
    pub(crate) fn settle(&self) {
        self.send(b"x", &[]);
        assert!(matches!(self.receive(), Some((Reply::Failed { .. }, _))));
    }

    /// How many descriptors the zygote has open when it is done with everything.
    pub(crate) fn descriptors_open(&self) -> usize {
        self.settle();
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// A path in the test's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn new_store(&self) -> PathBuf {
        let number = self.stores.get();
        self.stores.set(number + 1);
        let store = self.path(&format!("stores/{number}"));
        fs::create_dir(&store).unwrap();
        for name in ["u0", "w0", "u1", "w1"] {
            let directory = store.join(name);
            fs::create_dir(&directory).unwrap();
            chown(&directory, Some(STORAGE_BASE), Some(STORAGE_BASE)).unwrap();
        }
        store
    }
}

impl Descriptors {
    /// What is sent, and the lifeline's other end.
    pub(crate) fn split(self) -> (Vec<OwnedFd>, OwnedFd) {
        (self.sent, self.lifeline)
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sandbox {
    /// A file of `/proc/PID`, as text.
    pub(crate) fn proc_file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap()
    }

    /// The value of a line of `/proc/PID/status`.
    pub(crate) fn status(&self, key: &str) -> String {
        let status = self.proc_file("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in {status}"))
            .trim()
            .to_owned()
    }

    /// A path of the sandbox, as seen from the host.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Runs a shell script in all namespaces of the sandbox, as its root with every capability there.
    pub(crate) fn shell(&self, script: &str) -> (bool, String) {
        let output = Command::new("nsenter")
            .args([
                "-t",
                &self.pid.to_string(),
                "-U",
                "-m",
                "-p",
                "-n",
                "-i",
                "-u",
                "-C",
                "-S",
                "0",
                "-G",
                "0",
                "--",
            ])
            .args(["/bin/sh", "-c", script])
            .env_clear()
            .output()
            .expect("this test needs nsenter, of Debian's package util-linux");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).trim().to_owned(),
        )
    }

    /// Whether PID 1 has ended.
    pub(crate) fn has_ended(&self) -> bool {
        readable(&self.pidfd, Duration::ZERO)
    }

    /// Waits for the end of PID 1.
    pub(crate) fn ends(&self) -> bool {
        ends(&self.pidfd)
    }
}

/// Waits for the end of a process.
pub(crate) fn ends(pidfd: &OwnedFd) -> bool {
    readable(pidfd, DEADLINE)
}

/// Waits until `condition` holds; false if it does not within a generous time.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > DEADLINE {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A request as it is sent.
pub(crate) fn encoded(create: &Create) -> Vec<u8> {
    let create = create.clone();
    Request::Create { create }.encode()
}

/// A lower layer.
pub(crate) fn lower(path: &Path, stored: bool) -> Lower {
    Lower {
        path: blob(path),
        stored,
    }
}

pub(crate) fn blob(path: &Path) -> Blob {
    path.to_str().unwrap().into()
}

fn readable(fd: &OwnedFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

/// A root with the directories and links of this machine's, and nothing in them.
fn make_template(template: &Path) {
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, template.join(name)).unwrap();
        }
    }
    for name in ["dev", "etc", "proc", "run", "sys", "tmp", "usr"] {
        fs::create_dir(template.join(name)).unwrap();
    }
    fs::set_permissions(template, fs::Permissions::from_mode(0o755)).unwrap();
}

fn seqpacket_pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

/// Sends one message as the protocol says: what is too long for a packet goes into a sealed memfd.
fn send(socket: &OwnedFd, message: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(9))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let memfd = (message.len() > MAX_PACKET && !fds.is_empty()).then(|| sealed_memfd(message));
    let fds: Vec<BorrowedFd<'_>> = memfd
        .iter()
        .map(AsFd::as_fd)
        .chain(fds.iter().copied())
        .collect();
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let packet = if memfd.is_some() { &[] } else { message };
    // The other end may have been killed on purpose.
    let _ = sendmsg(
        socket,
        &[IoSlice::new(packet)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
}

fn sealed_memfd(contents: &[u8]) -> OwnedFd {
    let memfd = memfd_create("message", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(memfd);
    file.write_all(contents).unwrap();
    fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )
    .unwrap();
    file.into()
}

fn receive(socket: &OwnedFd) -> Option<(Reply, Vec<OwnedFd>)> {
    assert!(readable(socket, DEADLINE), "the zygote gave no answer");
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(9))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    );
    let len = received.map_or(0, |message| message.bytes);
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    (len > 0).then(|| (Reply::decode(&bytes[..len]).unwrap(), fds))
}
