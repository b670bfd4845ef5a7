//! The host's side of the conversation with PID 1, and what a command said and did.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with,
};
use sandbox_agent::protocol::agent::{Event, Exit, Failure, Position, Request, Spawn, stream};
use sandbox_agent::protocol::{MAX_PACKET, Wire};

/// Long enough for a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A connection to PID 1.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
}

/// Where connections are made.
#[derive(Debug, Clone)]
pub(crate) struct Address(pub(crate) PathBuf);

impl Address {
    pub(crate) fn connect(&self) -> Client {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(self.path()).unwrap()).unwrap();
        Client { socket }
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Asks on a connection of its own.
    pub(crate) fn ask(&self, request: &Request) -> Event {
        self.connect().ask(request)
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, spawn: Spawn) -> (Client, u64, u32) {
        let client = self.connect();
        client.send(&Request::Spawn { spawn });
        match client.event() {
            Event::Started { process, pid, .. } => (client, process, pid),
            other => panic!("not started: {other:?}"),
        }
    }

    /// Starts a command that must be refused, and returns why.
    pub(crate) fn refused(&self, spawn: Spawn) -> (Failure, String) {
        match self.ask(&Request::Spawn { spawn }) {
            Event::Failed { failure, message } => (failure, message),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, spawn: Spawn) -> Report {
        self.spawn(spawn).0.rest()
    }

    /// Runs a shell script to its end.
    pub(crate) fn sh(&self, script: &str) -> Report {
        self.run(sh(script))
    }

    /// Follows a process.
    pub(crate) fn attach(&self, process: u64, from: Position) -> Client {
        let client = self.connect();
        match client.ask(&Request::Attach { process, from }) {
            Event::Started {
                process: started, ..
            } => assert_eq!(started, process),
            other => panic!("not attached: {other:?}"),
        }
        client
    }

    /// Waits until a process has written `bytes` bytes.
    pub(crate) fn wait_for_output(&self, process: u64, bytes: u64) {
        self.wait_until(process, |entry| entry.cursor >= bytes);
    }

    /// Waits until what is known of a process says so.
    pub(crate) fn wait_until(
        &self,
        process: u64,
        condition: impl Fn(&sandbox_agent::protocol::agent::ProcessEntry) -> bool,
    ) {
        let client = self.connect();
        assert!(super::harness::eventually(|| {
            match client.ask(&Request::List {}) {
                Event::Processes { processes } => processes
                    .iter()
                    .find(|entry| entry.process == process)
                    .is_some_and(&condition),
                other => panic!("no list: {other:?}"),
            }
        }));
    }
}

impl Client {
    /// Sends a request, in a sealed memfd if it is long.
    pub(crate) fn send(&self, request: &Request) {
        let bytes = request.encode();
        if bytes.len() <= MAX_PACKET {
            return self.send_bytes(&bytes);
        }
        let fd = memfd_create("request", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let mut file = File::from(fd);
        file.write_all(&bytes).unwrap();
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals).unwrap();
        assert!(self.try_send(&[], &[file.as_fd()]));
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        assert!(self.try_send(bytes, &[]), "PID 1 has closed the connection");
    }

    /// Sends a packet; false if the connection is closed.
    pub(crate) fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(
            &self.socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .is_ok()
    }

    pub(crate) fn ask(&self, request: &Request) -> Event {
        self.send(request);
        self.event()
    }

    /// Sends what a terminal or standard input gets.
    pub(crate) fn type_in(&self, data: &[u8]) {
        self.send(&Request::Stdin {
            data: sandbox_agent::protocol::Blob(data.to_vec()),
        });
    }

    /// The next event.
    pub(crate) fn event(&self) -> Event {
        self.receive()
            .map(|(event, _)| event)
            .expect("PID 1 has closed the connection")
    }

    /// The next event and how many descriptors came with it; `None` if PID 1 has closed the connection.
    pub(crate) fn receive<T: Wire>(&self) -> Option<(T, Vec<OwnedFd>)> {
        assert!(
            self.is_readable(DEADLINE),
            "nothing came within {DEADLINE:?}"
        );
        let mut bytes = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(
            &self.socket,
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let len = received.map_or(0, |message| message.bytes);
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        if len == 0 && !fds.is_empty() {
            let mut long = Vec::new();
            let mut file = File::from(fds.remove(0));
            file.rewind().unwrap();
            file.read_to_end(&mut long).unwrap();
            return Some((T::decode(&long).unwrap(), fds));
        }
        (len > 0).then(|| (T::decode(&bytes[..len]).unwrap(), fds))
    }

    /// Whether something comes within some time.
    pub(crate) fn is_readable(&self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).unwrap();
        poll(
            &mut [PollFd::new(&self.socket, PollFlags::IN)],
            Some(&timeout),
        )
        .unwrap()
            == 1
    }

    /// Reads until the connection is closed, which it must be.
    pub(crate) fn is_closed(&self) -> bool {
        while let Some((event, _)) = self.receive::<Event>() {
            assert!(matches!(event, Event::Failed { .. }), "{event:?}");
        }
        true
    }

    /// All that comes up to the end of the command.
    pub(crate) fn rest(&self) -> Report {
        let mut report = Report::default();
        while report.exit.is_none() {
            report.add(self.event());
        }
        report
    }

    /// Reads until `enough` of what has come.
    pub(crate) fn until(&self, enough: impl Fn(&Report) -> bool) -> Report {
        let mut report = Report::default();
        while !enough(&report) {
            report.add(self.event());
        }
        report
    }
}

/// What an attachment has received.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) terminal: Vec<u8>,
    /// Streams in order of arrival.
    pub(crate) order: Vec<u8>,
    pub(crate) lost: u64,
    /// Cursor after the last byte, from the first on.
    pub(crate) first: Option<u64>,
    pub(crate) cursor: u64,
    pub(crate) stdin_closed: usize,
    pub(crate) exit: Option<Exit>,
}

impl Report {
    fn add(&mut self, event: Event) {
        match event {
            Event::Output { stream, at, data } => {
                if self.first.is_none() {
                    self.first = Some(at);
                    self.cursor = at;
                }
                assert_eq!(at, self.cursor, "cursors have no gaps that are not told");
                self.cursor += data.0.len() as u64;
                assert!(!data.0.is_empty());
                if self.order.last() != Some(&stream) {
                    self.order.push(stream);
                }
                match stream {
                    stream::STDOUT => self.stdout.extend(data.0),
                    stream::STDERR => self.stderr.extend(data.0),
                    stream::PTY => self.terminal.extend(data.0),
                    other => panic!("no such stream: {other}"),
                }
            }
            Event::Lost { bytes } => {
                assert!(bytes > 0);
                self.lost += bytes;
                self.cursor += bytes;
            }
            Event::StdinClosed {} => self.stdin_closed += 1,
            Event::Exited { exit, at } => {
                assert!(
                    self.first.is_none() || at == self.cursor,
                    "the end is where the output ends"
                );
                self.cursor = at;
                self.exit = Some(exit);
            }
            other => panic!("unexpected event: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.exit, Some(Exit::Code { code }), "{self:?}");
        self
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.terminal).into_owned()
    }
}

/// A command.
pub(crate) fn command(argv: &[&str]) -> Spawn {
    Spawn {
        argv: argv.iter().map(|argument| (*argument).into()).collect(),
        env: Vec::new(),
        cwd: None,
        user: None,
        merge_stderr: false,
        stdin: false,
        pty: None,
        timeout_ms: 0,
        grace_ms: 0,
        tag: None,
    }
}

/// A shell script.
pub(crate) fn sh(script: &str) -> Spawn {
    command(&["/bin/sh", "-c", script])
}

impl Client {
    /// Sends a request again and again until no more goes in for a while. Returns how often that was.
    pub(crate) fn fill(&self, request: &Request) -> u64 {
        let bytes = request.encode();
        let mut times = 0;
        let second = Timespec::try_from(Duration::from_secs(1)).unwrap();
        while poll(
            &mut [PollFd::new(&self.socket, PollFlags::OUT)],
            Some(&second),
        )
        .unwrap()
            == 1
        {
            let mut control = SendAncillaryBuffer::default();
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            if sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags).is_err() {
                break;
            }
            times += 1;
        }
        times
    }
}
