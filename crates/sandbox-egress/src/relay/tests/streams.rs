//! What becomes of connections.

use super::{super::ear::tests::hello, *};
use std::{
    io::{ErrorKind, Write},
    net::Shutdown,
    thread,
};

fn is_reset(error: io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came: {what}");
        thread::yield_now();
    }
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.9");
    let mut program = sandbox.connect("127.0.0.9");
    let mut other = remote.accept();
    program.write_all(b"ping").unwrap();
    assert_eq!(read(&mut other, 4), b"ping");
    // The program ends, and still hears the answer.
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
    other.write_all(b"pong!").unwrap();
    assert_eq!(read(&mut program, 5), b"pong!");
    let opened = sandbox.log.wait(NetworkEventKind::Opened);
    assert_eq!(sandbox.served().counters().open, 1);
    drop(other);
    assert_eq!(program.read(&mut [0; 1]).unwrap(), 0);

    let closed = sandbox.log.wait(NetworkEventKind::Closed);
    assert_eq!(closed.connection, opened.connection);
    assert_eq!(opened.address, Some("127.0.0.9".parse().unwrap()));
    assert_eq!(opened.port, remote.0.local_addr().unwrap().port());
    assert_eq!((closed.sent, closed.received), (4, 5));
    let counters = sandbox.served().counters();
    assert_eq!((counters.open, counters.total, counters.denied), (0, 1, 0));
    assert_eq!((counters.sent, counters.received), (4, 5));
}

#[test]
fn the_other_side_may_end_first() {
    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let mut program = sandbox.connect("127.0.0.1");
    let mut other = remote.accept();
    other.write_all(b"bye").unwrap();
    other.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    program.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bye");
    program.write_all(b"more").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    all.clear();
    other.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"more");
    sandbox.log.wait(NetworkEventKind::Closed);
}

#[test]
fn what_is_denied_is_reset_at_once_and_nobody_is_called() {
    let floor = Floor::new().open("127.0.0.9/32".parse().unwrap(), None);
    let sandbox = Captured::with(
        policy(
            &[(NetworkAction::Deny, "127.0.0.9/32")],
            NetworkAction::Allow,
        ),
        floor,
        Limits::default(),
    );
    for (address, why) in [
        (
            "127.0.0.9",
            "rule 1 denies it; allow it with a rule for 127.0.0.9 before that one",
        ),
        ("127.0.0.8", "only the operator of this host can open it"),
    ] {
        let remote = sandbox.remote(address);
        assert_reset(&mut sandbox.connect(address));
        let denied = sandbox.log.wait_all(NetworkEventKind::Denied, 1);
        let event = denied.last().unwrap();
        assert!(
            sandbox
                .log
                .events
                .lock()
                .unwrap()
                .iter()
                .any(|event| event.reason.contains(why)),
            "{event:?}"
        );
        assert!(!remote.is_called());
    }
    assert_eq!(sandbox.served().counters().denied, 2);
    assert_eq!(sandbox.served().counters().total, 0);
    assert_eq!(sandbox.log.count(NetworkEventKind::Opened), 0);
}

#[test]
fn who_cannot_be_reached_is_a_reset_too() {
    let sandbox = Captured::new(public());
    drop(sandbox.remote("127.0.0.1"));
    assert_reset(&mut sandbox.connect("127.0.0.1"));
    let failed = sandbox.log.wait(NetworkEventKind::Failed);
    assert!(failed.reason.contains("refused"), "{failed:?}");
    assert_eq!(sandbox.log.count(NetworkEventKind::Closed), 0);
}

#[test]
fn a_reset_of_one_side_reaches_the_other() {
    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let reset = |stream: std::net::TcpStream| {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    };
    let pair = || {
        let (mut program, mut other) = (sandbox.connect("127.0.0.1"), remote.accept());
        program.write_all(b"x").unwrap();
        read(&mut other, 1);
        (program, other)
    };
    let (mut program, other) = pair();
    reset(other);
    assert_reset(&mut program);
    let (program, mut other) = pair();
    reset(program);
    assert_reset(&mut other);
    // Also when the one that is left does not read, and the one that is gone had ended its own half.
    let (program, mut other) = pair();
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
    fill(&mut other);
    reset(program);
    wait_until("the third end", || sandbox.served().counters().open == 0);
    wait_until("a reset", || other.write(&[0; 1]).is_err_and(is_reset));
    assert_eq!(sandbox.log.wait_all(NetworkEventKind::Closed, 3).len(), 3);
}

/// Writes until nothing more is taken for a while; how much was.
fn fill(stream: &mut std::net::TcpStream) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut written = 0;
    loop {
        match stream.write(&[7; 65536]) {
            Ok(length) => written += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("{error}"),
        }
        assert!(written < 256 << 20, "there is no end");
    }
}

#[test]
fn who_does_not_read_holds_up_who_writes_and_nobody_else() {
    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let (mut stuck, mut other_stuck) = (sandbox.connect("127.0.0.1"), remote.accept());
    let written = fill(&mut stuck);
    // Others go on.
    let (mut program, mut other) = (sandbox.connect("127.0.0.1"), remote.accept());
    program.write_all(b"ping").unwrap();
    assert_eq!(read(&mut other, 4), b"ping");
    // The other way goes on.
    other_stuck.write_all(b"pong").unwrap();
    assert_eq!(read(&mut stuck, 4), b"pong");
    // And everything comes when it is read at last.
    stuck.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    other_stuck.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), written);
    assert!(all.iter().all(|byte| *byte == 7));
}

#[test]
fn much_comes_as_it_was_sent_also_without_pipes() {
    for pipes in [0, 16] {
        let sandbox = Captured::new(public());
        let share = sandbox.served().sandbox.pipes();
        let held: Vec<_> = std::iter::from_fn(|| share.take())
            .take(16 - pipes)
            .collect();
        let remote = sandbox.remote("127.0.0.1");
        let (mut program, mut other) = (sandbox.connect("127.0.0.1"), remote.accept());
        let sent: Vec<u8> = (0..20_000_000_u32)
            .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                program.write_all(&sent).unwrap();
                program.shutdown(Shutdown::Write).unwrap();
            });
            let mut all: Vec<u8> = Vec::new();
            let mut part = [0; 70_001];
            loop {
                match other.read(&mut part).unwrap() {
                    0 => return all,
                    length => all.extend(&part[..length]),
                }
            }
        });
        assert!(
            received == sent,
            "{} of {} bytes",
            received.len(),
            sent.len()
        );
        drop(held);
    }
}

#[test]
fn ipv6_goes_by_the_same_rules() {
    if TcpListener::bind("[::1]:0").is_err() {
        // This host has none.
        return;
    }
    let floor = Floor::new().open("::1/128".parse().unwrap(), None);
    let sandbox = Captured::with(only(&["::1/128"]), floor, Limits::default());
    let remote = sandbox.remote("::1");
    let mut program = sandbox.connect("::1");
    program.write_all(b"ping").unwrap();
    assert_eq!(read(&mut remote.accept(), 4), b"ping");
    assert_reset(&mut sandbox.connect("127.0.0.1"));
    let denied = sandbox.log.wait(NetworkEventKind::Denied);
    assert_eq!(denied.address, Some("127.0.0.1".parse().unwrap()));
}

#[test]
fn under_a_list_of_names_only_these_are_reached_by_addresses_of_ours() {
    let sandbox = Captured::new(only(&["a.example", "b.example"]));
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.7"]);
    sandbox
        .nameserver
        .know_addresses("b.example", &["127.0.0.8"]);
    sandbox.learn("a.example.");
    sandbox.learn("b.example.");
    let remote = sandbox.remote("0.0.0.0");
    let mut program = sandbox.connect("127.0.0.7");
    let tls = hello(Some("A.example"), 50);
    program.write_all(&tls).unwrap();
    assert_eq!(read(&mut remote.accept(), tls.len()), tls);
    let opened = sandbox.log.wait(NetworkEventKind::Opened);
    assert_eq!(opened.name.as_deref(), Some("a.example"));
    assert_eq!(opened.rule, Some(0));

    let refused = [
        // Another name, one that is allowed elsewhere, none, and an address that was not given.
        (
            "127.0.0.7",
            hello(Some("c.example"), 50),
            "no rule fits; allow it with a rule for c.example",
        ),
        (
            "127.0.0.7",
            hello(Some("b.example"), 50),
            "no rule fits; allow it with a rule for b.example",
        ),
        ("127.0.0.7", hello(None, 50), "does not say its own"),
        (
            "127.0.0.9",
            hello(Some("a.example"), 50),
            "no rule fits; allow it with a rule for 127.0.0.9",
        ),
        (
            "127.0.0.7",
            b"GET / HTTP/1.1\r\nHost: c.example\r\n\r\n".to_vec(),
            "no rule fits; allow it with a rule for c.example",
        ),
        (
            "127.0.0.7",
            b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            "does not say its own",
        ),
    ];
    for (number, (address, bytes, why)) in refused.into_iter().enumerate() {
        let mut program = sandbox.connect(address);
        let _ = program.write_all(&bytes);
        assert_reset(&mut program);
        let events = sandbox.log.wait_all(NetworkEventKind::Denied, number + 1);
        assert!(events[number].reason.contains(why), "{:?}", events[number]);
        // It may have been called, when nothing was said for long enough.
        assert!(!remote.has_heard());
    }
}

#[test]
fn who_waits_for_the_other_side_to_speak_is_heard_later() {
    let sandbox = Captured::new(only(&["a.example"]));
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.7"]);
    sandbox.learn("a.example.");
    let remote = sandbox.remote("127.0.0.7");
    let speak = |bytes: &[u8]| {
        let mut program = sandbox.connect("127.0.0.7");
        let mut other = remote.accept();
        other.write_all(b"220 hello\r\n").unwrap();
        assert_eq!(read(&mut program, 11), b"220 hello\r\n");
        program.write_all(bytes).unwrap();
        (program, other)
    };
    let (_program, mut other) = speak(b"EHLO a.example\r\n");
    assert_eq!(read(&mut other, 16), b"EHLO a.example\r\n");
    let tls = hello(Some("a.example"), 50);
    let (_program, mut other) = speak(&tls);
    assert_eq!(read(&mut other, tls.len()), tls);
    for bytes in [
        hello(Some("b.example"), 50),
        hello(None, 50),
        b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n".to_vec(),
    ] {
        let (mut program, mut other) = speak(&bytes);
        assert_reset(&mut program);
        assert_reset(&mut other);
    }
    assert_eq!(sandbox.log.wait_all(NetworkEventKind::Denied, 3).len(), 3);
}

#[test]
fn a_rule_that_denies_a_name_is_kept_where_all_else_is_allowed() {
    let sandbox = Captured::new(policy(
        &[(NetworkAction::Deny, "*.bad.example")],
        NetworkAction::Allow,
    ));
    sandbox
        .nameserver
        .know_addresses("good.example", &["127.0.0.7"]);
    sandbox.learn("good.example.");
    let remote = sandbox.remote("0.0.0.0");
    for bytes in [
        hello(Some("x.bad.example"), 50),
        b"GET / HTTP/1.1\r\nHost: x.bad.example\r\n\r\n".to_vec(),
    ] {
        let mut program = sandbox.connect("127.0.0.7");
        let _ = program.write_all(&bytes);
        assert_reset(&mut program);
        assert!(!remote.has_heard());
    }
    let denied = sandbox.log.wait(NetworkEventKind::Denied);
    assert_eq!(
        (denied.name.as_deref(), denied.rule),
        (Some("x.bad.example"), Some(0))
    );
    for bytes in [hello(Some("good.example"), 50), hello(None, 50)] {
        let mut program = sandbox.connect("127.0.0.7");
        program.write_all(&bytes).unwrap();
        assert_eq!(read(&mut remote.accept(), bytes.len()), bytes);
    }
}

#[test]
fn a_new_policy_cuts_what_no_longer_fits_if_it_is_told_to() {
    let sandbox = Captured::new(only(&["a.example", "127.0.0.0/28"]));
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.70"]);
    sandbox.learn("a.example.");
    let remote = sandbox.remote("0.0.0.0");
    let connect = |address: &str, bytes: &[u8]| {
        let mut program = sandbox.connect(address);
        program.write_all(bytes).unwrap();
        let mut other = remote.accept();
        assert_eq!(read(&mut other, bytes.len()), bytes);
        (program, other)
    };
    let works = |(program, other): &mut (std::net::TcpStream, std::net::TcpStream)| {
        program.write_all(b"x").unwrap();
        assert_eq!(read(other, 1), b"x");
        other.write_all(b"y").unwrap();
        assert_eq!(read(program, 1), b"y");
    };
    let tls = hello(Some("a.example"), 500);
    let mut named = connect("127.0.0.70", &tls);
    let mut first = connect("127.0.0.1", b"1");
    let mut second = connect("127.0.0.2", b"2");
    sandbox
        .served()
        .set_policy(only(&["a.example", "127.0.0.2/32"]), Existing::Keep);
    for connection in [&mut named, &mut first, &mut second] {
        works(connection);
    }
    // It holds for what is new.
    assert_reset(&mut sandbox.connect("127.0.0.1"));
    sandbox
        .served()
        .set_policy(only(&["a.example", "127.0.0.2/32"]), Existing::Cut);
    assert_reset(&mut first.0);
    assert_reset(&mut first.1);
    let cut = sandbox.log.wait(NetworkEventKind::Cut);
    assert_eq!(cut.address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((cut.sent, cut.received), (2, 1));
    works(&mut named);
    works(&mut second);
    sandbox
        .served()
        .set_policy(Policy::new(&NetworkPolicy::Off).unwrap(), Existing::Cut);
    assert_reset(&mut named.0);
    assert_reset(&mut second.0);
    assert_eq!(sandbox.log.wait_all(NetworkEventKind::Cut, 3).len(), 3);
    assert_eq!(sandbox.log.count(NetworkEventKind::Closed), 0);
}

#[test]
fn a_policy_also_holds_for_who_has_not_spoken_yet() {
    let sandbox = Captured::new(only(&["a.example"]));
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.7"]);
    sandbox.learn("a.example.");
    let remote = sandbox.remote("127.0.0.7");
    let mut program = sandbox.connect("127.0.0.7");
    wait_until("it is accepted", || sandbox.served().counters().open == 1);
    sandbox
        .served()
        .set_policy(only(&["b.example"]), Existing::Keep);
    let _ = program.write_all(&hello(Some("a.example"), 500));
    assert_reset(&mut program);
    // It may have been let through before for saying nothing, and is cut by its first word then.
    sandbox.log.wait(NetworkEventKind::Denied);
    drop(remote);
}

#[test]
fn there_are_no_more_connections_than_there_may_be() {
    let limits = Limits::default().connections(3);
    let sandbox = Captured::with(public(), open_floor(), limits);
    let remote = sandbox.remote("127.0.0.1");
    let mut pairs: Vec<_> = (0..3)
        .map(|_| (sandbox.connect("127.0.0.1"), remote.accept()))
        .collect();
    assert_reset(&mut sandbox.connect("127.0.0.1"));
    let denied = sandbox.log.wait(NetworkEventKind::Denied);
    assert!(
        denied.reason.contains("3 connections are open"),
        "{denied:?}"
    );
    pairs.pop();
    wait_until("one has ended", || sandbox.served().counters().open == 2);
    let mut program = sandbox.connect("127.0.0.1");
    program.write_all(b"ping").unwrap();
    assert_eq!(read(&mut remote.accept(), 4), b"ping");
}

#[test]
fn all_ends_with_the_sandbox_and_with_the_relay() {
    let mut sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let (mut program, mut other) = (sandbox.connect("127.0.0.1"), remote.accept());
    sandbox.log.wait(NetworkEventKind::Opened);
    sandbox.served = None;
    assert_reset(&mut program);
    assert_reset(&mut other);
    sandbox.log.wait(NetworkEventKind::Closed);
    wait_until("nobody listens", || {
        std::net::TcpStream::connect(("127.0.0.1", sandbox.tcp)).is_err()
    });

    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let (mut program, mut other) = (sandbox.connect("127.0.0.1"), remote.accept());
    let Captured { relay, served, .. } = sandbox;
    drop(relay);
    assert_reset(&mut program);
    assert_reset(&mut other);
    // It has nothing to say any more, and says so without waiting.
    let served = served.unwrap();
    served.set_policy(public(), Existing::Cut);
    assert_eq!(served.counters().open, 0);
}

#[test]
fn a_connection_that_waits_needs_little_memory() {
    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let stream = sandbox.connect("127.0.0.1");
    stream.set_nonblocking(true).unwrap();
    let _guard = sandbox.relay.runtime.enter();
    let stream = TcpStream::from_std(stream).unwrap();
    let shared = Arc::clone(&sandbox.served().sandbox);
    let future = connection::carry(shared, stream, remote.0.local_addr().unwrap());
    let size = size_of_val(&future);
    assert!(size <= 4096, "{size} bytes");
}

#[test]
fn what_the_operator_opens_of_the_host_has_a_name_and_an_address() {
    for policy in [only(&[HOST_NAME]), only(&["127.0.0.1/32"]), public()] {
        let floor = Floor::new().open("127.0.0.1/32".parse().unwrap(), Some(1));
        let sandbox = Captured::with(policy.clone(), floor, Limits::default());
        let remote = sandbox.remote("127.0.0.1");
        // Another port was opened.
        assert_eq!(
            sandbox.learn("host.sandbox.internal."),
            [IpAddr::V4(HOST_ADDRESS)]
        );
        assert_reset(&mut sandbox.connect("127.0.0.200"));
        let port = remote.0.local_addr().unwrap().port();

        let floor = Floor::new().open("127.0.0.1/32".parse().unwrap(), Some(port));
        let sandbox = Captured::with(policy, floor, Limits::default());
        sandbox.port.store(port, Ordering::SeqCst);
        sandbox.learn("host.sandbox.internal.");
        let mut program = sandbox.connect("127.0.0.200");
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST_NAME}:{port}\r\n\r\n");
        program.write_all(request.as_bytes()).unwrap();
        assert_eq!(
            read(&mut remote.accept(), request.len()),
            request.as_bytes()
        );
        let opened = sandbox.log.wait(NetworkEventKind::Opened);
        assert_eq!(opened.address, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(opened.name.as_deref(), Some(HOST_NAME));
    }
    // Nothing was opened: the name leads nowhere, and the address neither.
    let sandbox = Captured::with(public(), Floor::new(), Limits::default());
    let remote = sandbox.remote("127.0.0.1");
    assert_eq!(sandbox.learn("host.sandbox.internal."), [] as [IpAddr; 0]);
    assert_reset(&mut sandbox.connect("127.0.0.200"));
    assert!(!remote.is_called());
    let denied = sandbox.log.wait(NetworkEventKind::Denied);
    assert_eq!(denied.address, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    assert_eq!(sandbox.nameserver.asked(), Vec::<String>::new());
}
