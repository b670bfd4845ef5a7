//! On real sandboxes: what leaves them, and what is reached inside.

use super::{
    Serving, Stored,
    sockets::checked,
    take::{Taken, take},
};
use crate::{
    LocalProvider,
    config::Terms,
    linux::{create, made::Made, sandbox::LocalSandbox, socket},
};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    net::{AddressFamily, SocketType},
};
use sandbox_core::{
    Command, CreateOptions, ErrorKind, NetworkPolicy, Process, ProcessEvent, Result, Sandbox,
    Signal,
};
use std::{
    fs::{File, OpenOptions},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the programs below share.
const PRELUDE: &str = r#"
import errno, socket, time

start = time.monotonic()

def tried(attempt):
    try:
        return attempt()
    except OSError as error:
        return errno.errorcode[error.errno]

def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET

def talk(address, port=443):
    with socket.socket(family(address)) as s:
        s.settimeout(30)
        s.connect((address, port))
        return s.recv(9).decode()

def resolve(name):
    try:
        return socket.getaddrinfo(name, 443)
    except socket.gaierror as error:
        # Not after a timeout, of which the shortest is one of five seconds.
        return error.errno == socket.EAI_AGAIN and time.monotonic() - start < 4
"#;

/// A provider with a state of its own.
struct State {
    provider: LocalProvider,
    _directory: TempDir,
}

impl State {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let builder = LocalProvider::builder().state_dir(directory.path());
        Self {
            provider: builder.build().unwrap(),
            _directory: directory,
        }
    }

    async fn sandbox(&self, captured: bool) -> Caught {
        let shared = Arc::clone(&self.provider.shared);
        let mut request = create::Request::check(&shared, CreateOptions::new()).unwrap();
        request.captured = captured;
        let site = Arc::clone(&shared.site);
        let made = tokio::task::spawn_blocking(move || create::make(&site, request));
        let made = made.await.unwrap().unwrap();
        let sandbox = LocalSandbox::new(shared, made.id.clone(), None);
        Caught { made, sandbox }
    }
}

/// A sandbox whose way out is caught, or that has none.
struct Caught {
    made: Made,
    sandbox: LocalSandbox,
}

impl Caught {
    fn take(&self) -> Result<Taken> {
        take(self.made.locked().unwrap().as_fd())
    }

    async fn start(&self, code: &str) -> Process {
        let command = Command::new("python3").arg("-c");
        let command = command.arg(format!("{PRELUDE}\n{code}"));
        self.sandbox.spawn(command).await.unwrap()
    }

    /// What an expression of Python is.
    async fn python(&self, expression: &str) -> String {
        let process = self.start(&format!("print({expression})")).await;
        let output = process.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout_text().trim().to_owned()
    }
}

#[tokio::test]
async fn whoever_takes_it_is_told_which_address_was_meant() {
    let state = State::new();
    let caught = state.sandbox(true).await;
    let taken = caught.take().unwrap();
    let listener = tokio::net::TcpListener::from_std(taken.tcp).unwrap();
    let mut addresses = vec!["203.0.113.7", "169.254.169.254"];
    if listener.local_addr().unwrap().is_ipv6() {
        addresses.push("2001:db8::7");
    }
    for address in addresses {
        let process = caught.start(&format!("print(talk('{address}'))")).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let meant = stream.local_addr().unwrap();
        assert_eq!(meant.ip().to_canonical().to_string(), address);
        assert_eq!(meant.port(), 443);
        stream.write_all(b"hello").await.unwrap();
        let output = process.output().await.unwrap();
        assert_eq!(output.stdout_text(), "hello\n");
    }
    let dns = tokio::net::UdpSocket::from_std(taken.dns).unwrap();
    let _process = caught.start("resolve('example.com')").await;
    let mut question = [0; 512];
    let (len, _) = dns.recv_from(&mut question).await.unwrap();
    assert!(
        question[..len]
            .windows(8)
            .any(|part| part == b"\x07example")
    );
}

#[tokio::test]
async fn a_policy_is_read_by_who_would_hear_of_its_change() {
    let state = State::new();
    let caught = state.sandbox(true).await;
    let shared = Arc::clone(&state.provider.shared);
    let record = shared.site.records.path(&caught.made.id);
    let stored = Stored {
        policy: NetworkPolicy::Public,
        terms: Terms::default(),
    };
    // Whoever writes to it goes on when somebody reads.
    let file = record.join("network.json");
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let relay = shared.networks.relay().unwrap();
    let place = record.clone();
    let starting = thread::spawn(move || Serving::start(relay, &place));
    let mut written = OpenOptions::new().write(true).open(&file).unwrap();
    let directory = File::open(&record).unwrap();
    let connected = socket::connect(directory.as_fd(), "network.sock");
    serde_json::to_writer(&mut written, &stored).unwrap();
    drop(written);
    let _serving = starting.join().unwrap().unwrap();
    connected.unwrap();
}

#[tokio::test]
async fn what_nobody_takes_any_more_is_refused_at_once() {
    let state = State::new();
    let caught = state.sandbox(true).await;
    for _ in 0..2 {
        let taken = caught.take().unwrap();
        assert_eq!(caught.take().unwrap_err().kind(), ErrorKind::InvalidState);
        drop(taken.held);
        let refused = caught.python("tried(lambda: talk('203.0.113.7'))").await;
        assert_eq!(refused, "ECONNRESET");
        assert_eq!(caught.python("resolve('example.com')").await, "True");
    }
}

#[tokio::test]
async fn without_a_way_out_nothing_can_be_taken_and_nothing_leaves() {
    let state = State::new();
    let caught = state.sandbox(false).await;
    assert_eq!(caught.take().unwrap_err().kind(), ErrorKind::Unsupported);
    for address in ["203.0.113.7", "2001:db8::7"] {
        let attempt = format!("tried(lambda: talk('{address}'))");
        assert_eq!(caught.python(&attempt).await, "ENETUNREACH");
    }
    assert_eq!(caught.python("resolve('example.com')").await, "True");
}

#[tokio::test]
async fn ports_are_reached_that_listen_on_a_loopback_address_only() {
    let state = State::new();
    for captured in [false, true] {
        let caught = state.sandbox(captured).await;
        let ports = caught.sandbox.ports().unwrap();
        for address in ["127.0.0.1", "::1"] {
            let nobody = ports.connect(8000).await.unwrap_err();
            assert_eq!(nobody.kind(), ErrorKind::NotFound);
            let code = format!(
                "server = socket.create_server(('{address}', 8000), family=family('{address}'))\n\
                 print('ready', flush=True)\n\
                 while True:\n    server.accept()[0].sendall(b'hello')"
            );
            let mut process = caught.start(&code).await;
            while !matches!(
                process.try_next().await.unwrap(),
                Some(ProcessEvent::Stdout(_))
            ) {}
            let (first, second) = tokio::join!(ports.connect(8000), ports.connect(8000));
            for mut reached in [first.unwrap(), second.unwrap()] {
                let mut heard = String::new();
                reached.read_to_string(&mut heard).await.unwrap();
                assert_eq!(heard, "hello");
            }
            process.control().signal(Signal::KILL).await.unwrap();
            while process.try_next().await.unwrap().is_some() {}
        }
        drop(caught.made);
        let gone = ports.connect(8000).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::SandboxNotFound);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_waited_for_spoils_none() {
    let state = State::new();
    let caught = state.sandbox(false).await;
    let ports = caught.sandbox.ports().unwrap();
    let mut process = caught
        .start(
            "servers = [socket.create_server(('127.0.0.1', port)) for port in (8001, 8002)]\n\
             print('ready', flush=True)\n\
             while True:\n    servers[1].accept()[0].sendall(b'hello')",
        )
        .await;
    while !matches!(
        process.try_next().await.unwrap(),
        Some(ProcessEvent::Stdout(_))
    ) {}
    let _first = ports.connect(8001).await.unwrap();
    for _ in 0..50 {
        // As far as it comes without waiting.
        let abandoned = ports.connect(8001);
        assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());
        let mut heard = String::new();
        let mut reached = ports.connect(8002).await.unwrap();
        reached.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
    }
}

#[test]
fn sockets_that_do_not_fit_are_refused() {
    use rustix::net::{SocketFlags, socket, socketpair};

    let unix = || {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        pair.unwrap().0
    };
    let of_internet = |kind| socket(AddressFamily::INET, kind, None).unwrap();
    let file = || OwnedFd::from(File::open("/dev/null").unwrap());
    let kinds = [SocketType::STREAM, SocketType::DGRAM];
    let good = || kinds.map(of_internet).into_iter().collect::<Vec<_>>();
    assert!(checked(good(), kinds).is_ok());
    let swapped = good().into_iter().rev().collect();
    let with = |index: usize, other: OwnedFd| {
        let mut fds = good();
        fds[index] = other;
        fds
    };
    let wrong = [
        Vec::new(),
        good().into_iter().take(1).collect(),
        good().into_iter().chain([file()]).collect(),
        swapped,
        with(0, unix()),
        with(0, file()),
        with(1, file()),
    ];
    for fds in wrong {
        let error = checked(fds, kinds).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}
