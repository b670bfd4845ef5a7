//! What leaves a sandbox: refused while nobody serves it, and served by whoever has asked for it first.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox_agent::protocol::VERSION;
use sandbox_agent::protocol::agent::{Event, Exit, Failure, Request, Spawn};

use crate::client::{Address, Client, DEADLINE, command};
use crate::harness::eventually;
use crate::world::{Options, World};

/// What the programs below share. `tried` says what becomes of an attempt.
const PRELUDE: &str = r#"
import errno, os, socket, sys

def tried(attempt):
    try:
        return attempt()
    except OSError as error:
        return errno.errorcode[error.errno]

def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET

def talk(address, port):
    with socket.socket(family(address)) as s:
        s.settimeout(30)
        s.connect((address, port))
        s.sendall(b"hello")
        return s.recv(9).decode()

def ask(address, port=53, question=b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\3pip\3org\0\0\1\0\1"):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.settimeout(30)
        s.connect((address, port))
        s.send(question)
        return s.recv(512).hex()
"#;

/// The answer to `ask` if it fails.
const FAILED: &str = "12348102000100000000000003706970036f7267";

fn captured() -> World {
    World::with(&Options {
        cgroup: true,
        change: |create| create.captured = true,
    })
}

fn python(code: &str) -> Spawn {
    command(&["/usr/bin/python3", "-c", &format!("{PRELUDE}\n{code}")])
}

impl Address {
    /// Prints what a piece of Python evaluates to.
    #[track_caller]
    fn python(&self, expression: &str) -> String {
        let report = self
            .run(python(&format!("print({expression})")))
            .expect_code(0);
        report.out().trim().to_owned()
    }

    /// Takes the network; its sockets wait.
    fn take_network(&self) -> Result<(Client, TcpListener, UdpSocket), Failure> {
        let client = self.connect();
        client.send(&Request::Network {});
        match client.receive().unwrap() {
            (Event::Network { ipv6 }, fds) => {
                assert!(ipv6, "these tests need IPv6 in new network namespaces");
                let [tcp, dns] = <[OwnedFd; 2]>::try_from(fds).unwrap();
                let (tcp, dns) = (TcpListener::from(tcp), UdpSocket::from(dns));
                tcp.set_nonblocking(false).unwrap();
                dns.set_nonblocking(false).unwrap();
                dns.set_read_timeout(Some(DEADLINE)).unwrap();
                Ok((client, tcp, dns))
            }
            (Event::Failed { failure, .. }, _) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    fn is_refused(&self) -> bool {
        let refused = self.python("tried(lambda: talk('203.0.113.7', 443))");
        refused == "ECONNRESET" || refused == "EPIPE"
    }
}

#[test]
fn while_nobody_serves_it_everything_is_refused_at_once() {
    let world = captured();
    for address in ["203.0.113.7", "10.0.0.1", "169.254.169.254", "2001:db8::7"] {
        let refused = world
            .address
            .python(&format!("tried(lambda: talk('{address}', 443))"));
        assert!(
            ["ECONNRESET", "EPIPE"].contains(&refused.as_str()),
            "{refused}"
        );
        let failed = world.address.python(&format!("ask('{address}')"));
        assert!(failed.starts_with(FAILED), "{failed}");
        let elsewhere = world
            .address
            .python(&format!("tried(lambda: ask('{address}', 123))"));
        assert_eq!(elsewhere, "ECONNREFUSED");
    }
}

#[test]
fn whoever_serves_it_hears_which_address_was_meant() {
    let world = captured();
    let (_client, tcp, dns) = world.address.take_network().unwrap();
    for address in ["203.0.113.7", "10.0.0.1", "2001:db8::7"] {
        let talk = format!("print(talk('{address}', 443))");
        let (running, ..) = world.address.spawn(python(&talk));
        let (mut stream, _) = tcp.accept().unwrap();
        let meant = stream.local_addr().unwrap();
        let meant = (meant.ip().to_canonical().to_string(), meant.port());
        assert_eq!(meant, (address.to_owned(), 443));
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
        assert_eq!(running.rest().out().trim(), "hello");

        let (_asking, ..) = world.address.spawn(python(&format!("ask('{address}')")));
        let mut question = [0; 512];
        let (len, _) = dns.recv_from(&mut question).unwrap();
        assert_eq!(question[..2], [0x12, 0x34]);
        assert_eq!(len, 25);
    }
}

#[test]
fn there_is_one_who_serves_it_until_that_one_is_gone() {
    let world = captured();
    let (client, tcp, _dns) = world.address.take_network().unwrap();
    assert_eq!(world.address.take_network().unwrap_err(), Failure::Busy {});
    // The one that serves may ask other things, but not for the same again.
    assert_eq!(
        client.ask(&Request::SetLifetime { remaining_ms: 0 }),
        Event::Done {}
    );
    match client.ask(&Request::Network {}) {
        Event::Failed { failure, .. } => assert_eq!(failure, Failure::Busy {}),
        other => panic!("{other:?}"),
    }
    // It waits to be accepted, and is refused when nobody is there any more to do so.
    let talk = "print(tried(lambda: talk('203.0.113.7', 443)))";
    let (waiting, _, pid) = world.address.spawn(python(talk));
    let connected = format!(
        "grep -q CB007107:01BB /proc/{pid}/net/tcp /proc/{pid}/net/tcp6 || grep -qi ' [0-9A-F]*:[0-9A-F]* 077100CB:01BB 01' /proc/{pid}/net/tcp"
    );
    assert!(eventually(|| {
        let seen = world.address.sh(&connected);
        seen.exit == Some(Exit::Code { code: 0 })
    }));
    drop(client);
    assert_eq!(waiting.rest().out().trim(), "ECONNRESET");
    assert!(world.address.is_refused());
    drop(tcp);
    assert!(world.address.is_refused());
    let (_client, tcp, _dns) = world.address.take_network().unwrap();
    let (running, ..) = world.address.spawn(python("talk('203.0.113.7', 80)"));
    assert_eq!(tcp.accept().unwrap().0.local_addr().unwrap().port(), 80);
    drop(running);
}

#[test]
fn what_does_not_leave_is_not_caught() {
    let world = captured();
    let (_client, tcp, _dns) = world.address.take_network().unwrap();
    tcp.set_nonblocking(true).unwrap();
    for address in [
        "127.0.0.1",
        "127.8.0.1",
        "192.0.0.2",
        "::1",
        "fd3b:9c61:52e7::2",
        "0.0.0.0",
        "::",
    ] {
        let code = format!(
            "listener = socket.socket(family('{address}'))\nlistener.bind(('{address}', 8000))\nlistener.listen()\n\
             client = socket.create_connection(('{address}', 8000), 30)\nprint(listener.accept()[0].send(b'x'))"
        );
        let report = world.address.run(python(&code)).expect_code(0);
        assert_eq!(report.out().trim(), "1", "{address}");
        let nobody = world
            .address
            .python(&format!("tried(lambda: talk('{address}', 8001))"));
        assert_eq!(nobody, "ECONNREFUSED", "{address}");
    }
    let none = tcp.accept().map(|(_, from)| from);
    assert_eq!(none.unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn without_a_network_there_is_no_way_out_and_nothing_to_serve() {
    let world = World::new();
    let refused = world.address.take_network().unwrap_err();
    assert_eq!(refused, Failure::Unsupported {});
    for address in ["203.0.113.7", "2001:db8::7"] {
        for attempt in ["talk", "ask"] {
            let attempt = format!("tried(lambda: {attempt}('{address}', 53))");
            assert_eq!(world.address.python(&attempt), "ENETUNREACH");
        }
    }
}

#[test]
fn commands_have_no_copy_of_the_sockets() {
    let world = captured();
    let script = "for fd in /proc/self/fd/*; do readlink $fd; done | grep -c socket";
    assert_eq!(world.address.sh(script).out().trim(), "0");
    let sockets = "len([1 for fd in os.listdir('/proc/1/fd')])";
    for user in ["root", "user"] {
        let mut command = python(&format!("print(tried(lambda: {sockets}))"));
        command.user = Some(user.to_owned());
        let looked = world.address.run(command).out();
        assert!(["EACCES", "EPERM"].contains(&looked.trim()), "{looked}");
    }
}

#[test]
fn nobody_inside_can_take_the_place_of_the_sockets_or_change_what_is_caught() {
    let world = captured();
    let code = r#"
def bound(kind, address, port, *options):
    s = socket.socket(family(address), kind)
    for option in options:
        s.setsockopt(*option)
    s.bind((address, port))
    return "bound"

REUSE = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)]
for address in ("127.0.0.1", "0.0.0.0", "192.0.0.2", "203.0.113.7", "::1", "::"):
    print(tried(lambda: bound(socket.SOCK_STREAM, address, 1, *REUSE)))
    print(tried(lambda: bound(socket.SOCK_DGRAM, address, 53, *REUSE)))
print(tried(lambda: bound(socket.SOCK_STREAM, "0.0.0.0", 1, (0, 19, 1))))

def changed(kind, body):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    header = (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes([5, 0]) + bytes(8)
    s.send(header + body)
    code = -int.from_bytes(s.recv(4096)[16:20], "little", signed=True)
    return errno.errorcode.get(code, "changed")

route = bytes([2, 0, 0, 0, 255, 4, 254, 2]) + bytes(4)
print(tried(lambda: changed(25, route)))
own = bytes([2, 32, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 192, 0, 0, 2])
print(tried(lambda: changed(21, own)))
"#;
    let mut command = python(code);
    command.user = Some("root".to_owned());
    let report = world.address.run(command).expect_code(0);
    let said: Vec<_> = report.out().lines().map(str::to_owned).collect();
    let mut expected = vec!["EADDRINUSE"; 12];
    expected.extend(["EPERM"; 3]);
    assert_eq!(said, expected);
}

#[test]
fn a_flood_of_refused_attempts_keeps_nobody_waiting() {
    let world = captured();
    let code = r#"
question = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\3pip\3org\0\0\1\0\1"
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.connect(("192.0.0.1", 53))
print("begun", flush=True)
while True:
    s = socket.socket()
    tried(lambda: s.connect(("203.0.113.7", 443)))
    s.close()
    for _ in range(50):
        tried(lambda: asking.send(question))
"#;
    let floods: Vec<_> = (0..4).map(|_| world.address.spawn(python(code))).collect();
    for (flood, ..) in &floods {
        flood.until(|report| report.out().contains("begun"));
    }
    let client = world.address.connect();
    for _ in 0..200 {
        let info = client.ask(&Request::Info { version: VERSION });
        assert!(matches!(info, Event::Info { running: 4, .. }), "{info:?}");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", world.sandbox.pid)).unwrap();
    assert!(open.count() < 100);
}

/// Asks for a socket to a port inside.
fn reach(client: &Client, port: u16, v6: bool) -> Result<TcpStream, Failure> {
    client.send(&Request::Connect { port, v6 });
    match client.receive().unwrap() {
        (Event::Connecting {}, fds) => {
            let [socket] = <[OwnedFd; 1]>::try_from(fds).unwrap();
            let timeout = Timespec::try_from(DEADLINE).unwrap();
            let mut connected = [PollFd::new(&socket, PollFlags::OUT)];
            assert_eq!(poll(&mut connected, Some(&timeout)).unwrap(), 1);
            let stream = TcpStream::from(socket);
            if let Some(error) = stream.take_error().unwrap() {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                return Err(Failure::NotFound {});
            }
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            Ok(stream)
        }
        (Event::Failed { failure, .. }, _) => Err(failure),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ports_inside_are_reached_with_a_network_and_without() {
    for world in [captured(), World::new()] {
        let client = world.address.connect();
        for (address, v6) in [("127.0.0.1", false), ("::1", true)] {
            assert_eq!(reach(&client, 8000, v6).unwrap_err(), Failure::NotFound {});
            let code = format!(
                "listener = socket.socket(family('{address}'))\nlistener.bind(('{address}', 8000))\n\
                 listener.listen()\nprint('ready', flush=True)\nlistener.accept()[0].sendall(b'hello')"
            );
            let (server, ..) = world.address.spawn(python(&code));
            server.until(|report| report.out().contains("ready"));
            assert_eq!(reach(&client, 8000, !v6).unwrap_err(), Failure::NotFound {});
            let mut heard = String::new();
            reach(&client, 8000, v6)
                .unwrap()
                .read_to_string(&mut heard)
                .unwrap();
            assert_eq!(heard, "hello");
            server.rest().expect_code(0);
        }
        let refused = reach(&client, 0, false).unwrap_err();
        assert_eq!(refused, Failure::Invalid {});
        assert_eq!(client.ask(&Request::Pause {}), Event::Done {});
        let refused = reach(&client, 8000, false).unwrap_err();
        assert_eq!(refused, Failure::State {});
        assert_eq!(client.ask(&Request::Resume {}), Event::Done {});
        // PID 1 keeps none of them: the listener, the lifeline and such.
        let open = std::fs::read_dir(format!("/proc/{}/fd", world.sandbox.pid)).unwrap();
        assert!(open.count() < 30);
    }
}

#[test]
fn a_sandbox_whose_ports_are_in_use_is_not_idle() {
    let world = World::new();
    let (server, ..) = world.address.spawn(python(
        "listener = socket.create_server(('127.0.0.1', 8000))\nprint('ready', flush=True)\nlistener.accept()[0].recv(1)",
    ));
    server.until(|report| report.out().contains("ready"));
    let client = world.address.connect();
    let _stream = reach(&client, 8000, false).unwrap();
    drop(server);
    let expiry = Request::SetExpiry {
        pauses: false,
        idle_ms: 300,
    };
    assert_eq!(world.address.ask(&expiry), Event::Done {});
    let uptime = || match world.address.ask(&Request::Info { version: VERSION }) {
        Event::Info { uptime_ms, .. } => uptime_ms,
        other => panic!("{other:?}"),
    };
    let start = uptime();
    assert!(eventually(|| uptime() > start + 1500));
    drop(client);
    assert!(world.sandbox.ends());
}
