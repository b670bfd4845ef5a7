//! What the relay holds: counted in processes of their own, where nobody else opens and closes anything.

use super::{streams::wait_until, *};
use rustix::{
    net::{AddressFamily, SocketType, connect, socket},
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use std::{
    env, fs,
    io::{ErrorKind, Write},
    net::{Shutdown, TcpStream},
    process::Command,
};

const CHILD: &str = "SANDBOX_EGRESS_TEST_CHILD";

/// Whether this is the process in which the test is to run; else it has run in one by now.
fn is_alone(test: &str) -> bool {
    if env::var_os(CHILD).is_some() {
        return true;
    }
    let test = format!("relay::tests::leaks::{test}");
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{out}");
    false
}

/// Descriptors that are pipes, and all others.
fn descriptors() -> (usize, usize) {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let links: Vec<_> = links
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    let is_pipe = |link: &&std::path::PathBuf| link.to_string_lossy().starts_with("pipe:");
    let pipes = links.iter().filter(is_pipe).count();
    (pipes, links.len() - pipes)
}

fn limit_descriptors(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(current),
            maximum,
        },
    )
    .unwrap();
}

fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// Both ends of a connection.
fn pair(sandbox: &Captured, remote: &Remote) -> (TcpStream, TcpStream) {
    let program = sandbox.connect("127.0.0.1");
    (program, remote.accept())
}

#[test]
fn nothing_is_left_of_a_connection_however_it_ends() {
    if !is_alone("nothing_is_left_of_a_connection_however_it_ends") {
        return;
    }
    // What a first runtime opens for all that follow, if tokio is built with signals.
    drop(
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build(),
    );
    let start = descriptors();
    let sandbox = Captured::new(policy(
        &[(NetworkAction::Deny, "bad.example")],
        NetworkAction::Allow,
    ));
    let remote = sandbox.remote("127.0.0.1");
    drop(pair(&sandbox, &remote));
    wait_until("the end", || sandbox.served().counters().open == 0);
    let (_, before) = descriptors();
    let ends: [&dyn Fn(); 8] = [
        // Before it has said anything; while it says its name; with another name.
        &|| drop(sandbox.connect("127.0.0.1")),
        &|| reset(sandbox.connect("127.0.0.1")),
        &|| sandbox.connect("127.0.0.1").write_all(b"GET / HT").unwrap(),
        &|| {
            let mut program = sandbox.connect("127.0.0.1");
            let _ = program.write_all(b"GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n");
            assert_reset(&mut program);
        },
        // One side, with bytes on their way that nobody takes.
        &|| {
            let (mut program, other) = opened(&sandbox, &remote);
            let _ = program.write_all(&[0; 1_000_000]);
            reset(other);
        },
        &|| {
            let (program, mut other) = opened(&sandbox, &remote);
            let _ = other.write_all(&[0; 1_000_000]);
            reset(program);
        },
        // One half, then the other side.
        &|| {
            let (program, other) = opened(&sandbox, &remote);
            program.shutdown(Shutdown::Write).unwrap();
            reset(other);
        },
        &|| {
            let (program, other) = opened(&sandbox, &remote);
            other.shutdown(Shutdown::Write).unwrap();
            drop(program);
        },
    ];
    for _ in 0..5 {
        for end in ends {
            end();
        }
    }
    // Whoever has connected for what was let through in silence.
    wait_until("the ends", || {
        while remote.is_called() {}
        sandbox.served().counters().open == 0 && descriptors().1 <= before
    });
    assert_eq!(descriptors().1, before);
    assert!(descriptors().0 <= start.0 + 32, "{:?}", descriptors());
    let Captured {
        relay,
        served,
        nameserver,
        ..
    } = sandbox;
    drop((relay, served, nameserver, remote));
    // The threads of the test's own servers end by themselves.
    wait_until("the servers' ends", || descriptors() == start);
}

/// A connection that was let through and has said something.
fn opened(sandbox: &Captured, remote: &Remote) -> (TcpStream, TcpStream) {
    let mut program = sandbox.connect("127.0.0.1");
    program.write_all(b"\0").unwrap();
    loop {
        // Others have been let through that had nothing to say, or something else.
        let (mut other, mut said) = (remote.accept(), [1]);
        if other.read(&mut said).is_ok() && said == [0] {
            return (program, other);
        }
    }
}

#[test]
fn thousands_of_connections_hold_two_descriptors_each_and_no_pipes() {
    if !is_alone("thousands_of_connections_hold_two_descriptors_each_and_no_pipes") {
        return;
    }
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(10_000);
    limit_descriptors(most.min(10_000));
    // Two of each are the test's own.
    let count = usize::try_from((most.min(10_000) - 200) / 4)
        .unwrap()
        .min(2000);
    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let (start, before) = descriptors();
    let mut pairs: Vec<_> = (0..count).map(|_| pair(&sandbox, &remote)).collect();
    for (program, other) in &mut pairs {
        program.write_all(b"ping").unwrap();
        other.write_all(b"pong").unwrap();
    }
    for (program, other) in &mut pairs {
        assert_eq!(read(other, 4), b"ping");
        assert_eq!(read(program, 4), b"pong");
    }
    let counters = sandbox.served().counters();
    assert_eq!(usize::try_from(counters.open).unwrap(), count);
    let (pipes, others) = descriptors();
    assert_eq!(others, before + 4 * count);
    assert!(pipes <= start + 32, "{pipes}");
    drop(pairs);
    wait_until("the ends", || {
        sandbox.served().counters().open == 0 && descriptors().1 <= before
    });
    assert_eq!(
        sandbox.log.wait_all(NetworkEventKind::Closed, count).len(),
        count
    );
}

#[test]
fn without_descriptors_it_waits_and_does_not_spin() {
    if !is_alone("without_descriptors_it_waits_and_does_not_spin") {
        return;
    }
    let sandbox = Captured::new(public());
    let remote = sandbox.remote("127.0.0.1");
    let (mut program, mut other) = pair(&sandbox, &remote);
    program.write_all(b"ping").unwrap();
    assert_eq!(read(&mut other, 4), b"ping");
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    // What is free is taken.
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    limit_descriptors(open + 10);
    let mut taken = Vec::new();
    while let Ok(descriptor) = rustix::io::dup(&client) {
        taken.push(descriptor);
    }
    let to = SocketAddr::from(([127, 0, 0, 1], sandbox.tcp));
    connect(&client, &to).unwrap();
    let mut client = TcpStream::from(client);
    // What is open goes on, and what waits costs no time.
    program.write_all(b"ping").unwrap();
    assert_eq!(read(&mut other, 4), b"ping");
    let before = clock_gettime(ClockId::ProcessCPUTime);
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let worked = clock_gettime(ClockId::ProcessCPUTime) - before;
    assert!(
        Duration::try_from(worked).unwrap() < Duration::from_millis(150),
        "{worked:?}"
    );

    drop(taken);
    client.write_all(b"pong").unwrap();
    assert_eq!(read(&mut remote.accept(), 4), b"pong");
}

#[test]
fn who_takes_all_descriptors_leaves_some_for_others() {
    if !is_alone("who_takes_all_descriptors_leaves_some_for_others") {
        return;
    }
    limit_descriptors(600);
    let (greedy, modest) = (Captured::new(public()), Captured::new(public()));
    let remote = greedy.remote("127.0.0.1");
    // Nobody accepts, which would take descriptors of this process.
    rustix::net::listen(&remote.0, 1024).unwrap();
    let mut taken = Vec::new();
    let told = |kind| greedy.log.count(kind);
    while told(NetworkEventKind::Denied) == 0 {
        taken.push(greedy.connect("127.0.0.1"));
        let opened = || told(NetworkEventKind::Opened) + told(NetworkEventKind::Denied);
        wait_until("the answer", || opened() == taken.len());
    }
    assert!(taken.len() > 100, "{}", taken.len());
    assert_reset(taken.last_mut().unwrap());
    let other = modest.remote("127.0.0.2");
    let mut program = modest.connect("127.0.0.2");
    program.write_all(b"ping").unwrap();
    assert_eq!(read(&mut other.accept(), 4), b"ping");
    // What has ended is free again.
    taken.into_iter().for_each(reset);
    wait_until("the ends", || greedy.served().counters().open == 0);
    let opened = told(NetworkEventKind::Opened);
    let _program = greedy.connect("127.0.0.1");
    greedy.log.wait_all(NetworkEventKind::Opened, opened + 1);
}
