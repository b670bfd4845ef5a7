//! Peers that break the protocol, come in crowds, or ask what is out of place.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use proptest::prelude::*;
use rustix::process::{Resource, getrlimit, setrlimit};
use sandbox_agent::protocol::agent::{Event, Exit, Failure, Position, Request};
use sandbox_agent::protocol::files::{FileReply, FileRequest};
use sandbox_agent::protocol::{MAX_PACKET, VERSION, Wire as _};

use crate::client::{Client, sh};
use crate::world::World;

fn alive(world: &World) {
    assert!(matches!(
        world.address.ask(&Request::Info { version: VERSION }),
        Event::Info { .. }
    ));
}

#[test]
fn a_sandbox_tells_about_itself() {
    let world = World::new();
    let Event::Info {
        version,
        name,
        remaining_ms,
        running,
        ..
    } = world.address.ask(&Request::Info { version: VERSION })
    else {
        panic!("no info")
    };
    assert_eq!((version, remaining_ms, running), (VERSION, None, 0));
    assert_eq!(world.address.sh("uname -n").out().trim(), name);
    let (_client, process, pid) = world.address.spawn(sh("sleep 1000"));
    world.address.sh("exit 4").expect_code(4);
    let client = world.address.connect();
    assert!(matches!(
        client.ask(&Request::Info { version: VERSION }),
        Event::Info { running: 1, .. }
    ));
    let Event::Processes { processes } = client.ask(&Request::List {}) else {
        panic!("no list")
    };
    assert_eq!(processes.len(), 3);
    assert_eq!(
        (processes[1].process, processes[1].pid, &processes[1].exit),
        (process, pid, &None)
    );
    assert_eq!(processes[1].argv[2].0, b"sleep 1000");
    assert_eq!(processes[2].exit, Some(Exit::Code { code: 4 }));
    let Event::Failed { failure, message } = client.ask(&Request::Info {
        version: VERSION + 1,
    }) else {
        panic!("another version is not refused")
    };
    assert_eq!(failure, Failure::Invalid {});
    assert!(message.contains(&VERSION.to_string()), "{message}");
}

#[test]
fn packets_outside_the_protocol_close_their_connection_only() {
    let world = World::new();
    let long = vec![0; MAX_PACKET + 1];
    let trailing = [Request::List {}.encode(), vec![0]].concat();
    for bytes in [&[255][..], &[1, 2, 3], &long, &trailing] {
        let client = world.address.connect();
        client.send_bytes(bytes);
        assert!(client.is_closed());
    }
    // A pipe where a sealed memfd is expected, and descriptors that nobody asked for.
    let (reader, _writer) = std::io::pipe().unwrap();
    let client = world.address.connect();
    assert!(client.try_send(&[], &[reader.as_fd()]));
    assert!(client.is_closed());
    let client = world.address.connect();
    let many: Vec<BorrowedFd<'_>> = std::iter::repeat_n(reader.as_fd(), 8).collect();
    for _ in 0..100 {
        assert!(client.try_send(&Request::List {}.encode(), &many));
        assert!(matches!(client.event(), Event::Processes { .. }));
    }
    alive(&world);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1))]
    #[test]
    fn no_garbage_disturbs_the_sandbox(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 300),
    ) {
        let world = World::new();
        for mut packet in packets {
            // Not a request that would be honoured, such as one to end the sandbox.
            while Request::decode(&packet).is_ok() {
                packet.push(0);
            }
            let client = world.address.connect();
            client.try_send(&packet, &[]);
        }
        alive(&world);
    }
}

#[test]
fn requests_out_of_place_close_the_connection() {
    let world = World::new();
    for request in [
        Request::Stdin {
            data: Default::default(),
        },
        Request::CloseStdin {},
    ] {
        let client = world.address.connect();
        client.send(&request);
        assert!(client.is_closed());
    }
    let (client, process, _) = world.address.spawn(sh("sleep 1000"));
    client.send(&Request::Attach {
        process,
        from: Position::Now {},
    });
    assert!(client.is_closed());
    // The process is none the worse for it.
    let follower = world.address.attach(process, Position::Now {});
    assert_eq!(
        world.address.ask(&Request::Signal {
            process,
            signal: 9,
            tree: true
        }),
        Event::Done {}
    );
    assert_eq!(follower.rest().exit, Some(Exit::Signal { signal: 9 }));
    // What was for a process that has just ended is not out of place.
    follower.type_in(b"late");
    follower.send(&Request::CloseStdin {});
    assert!(matches!(
        follower.ask(&Request::Info { version: VERSION }),
        Event::Info { .. }
    ));
}

/// Connections that follow commands, and all connections, that PID 1 takes at a time.
const MOST: [usize; 2] = [1024, 1024 + 64];

fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit
        .maximum
        .map_or(Some(4096), |most| Some(most.min(4096)));
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn a_crowd_of_connections_waits_for_its_turn() {
    allow_many_descriptors();
    let world = World::new();
    let info = || Request::Info { version: VERSION };
    let mut crowd: Vec<_> = (0..MOST[1]).map(|_| world.address.connect()).collect();
    for client in &crowd {
        assert!(matches!(client.ask(&info()), Event::Info { .. }));
    }
    // Neither closed nor answered, until there is room.
    let late = world.address.connect();
    late.send(&info());
    assert!(matches!(crowd[0].ask(&info()), Event::Info { .. }));
    assert!(!late.is_readable(Duration::ZERO));
    crowd.truncate(MOST[1] - 1);
    assert!(matches!(late.event(), Event::Info { .. }));
}

#[test]
fn however_many_follow_others_are_answered() {
    allow_many_descriptors();
    let world = World::new();
    let (follower, process, _) = world.address.spawn(sh("sleep 1000"));
    let from = || Position::Nothing {};
    let followers: Vec<_> = (1..MOST[0])
        .map(|_| world.address.attach(process, from()))
        .collect();
    let attach = Request::Attach {
        process,
        from: from(),
    };
    let spawn = Request::Spawn { spawn: sh("true") };
    for request in [&attach, &spawn] {
        let refused = world.address.ask(request);
        let is_full = matches!(
            &refused,
            Event::Failed {
                failure: Failure::Exhausted {},
                ..
            }
        );
        assert!(is_full, "{refused:?}");
    }
    alive(&world);
    drop(followers);
    world.address.sh("exit 3").expect_code(3);
    drop(follower);
}

/// A connection that is to be a file worker's, and has asked for `/`.
fn ask_for_files(world: &World) -> Client {
    let client = world.address.connect();
    client.send(&Request::Files { watch: false });
    client.send_bytes(
        &FileRequest::Stat {
            path: "/".into(),
            user: None,
            follow: true,
        }
        .encode(),
    );
    client
}

#[test]
fn who_asks_for_files_waits_while_all_workers_are_busy() {
    let world = World::new();
    let is_served = |client: &Client| matches!(client.receive(), Some((FileReply::Stat { .. }, _)));
    let mut busy: Vec<_> = (0..64).map(|_| ask_for_files(&world)).collect();
    assert!(busy.iter().all(is_served));
    let [waiting, leaving] = [ask_for_files(&world), ask_for_files(&world)];
    alive(&world);
    assert!(!waiting.is_readable(Duration::ZERO));
    drop(leaving);
    busy.truncate(62);
    assert!(is_served(&waiting));
    assert!(is_served(&ask_for_files(&world)));
}

#[test]
fn a_peer_that_never_reads_stops_only_itself() {
    let world = World::new();
    for _ in 0..20 {
        world
            .address
            .sh(&format!("true {}", "x".repeat(4000)))
            .expect_code(0);
    }
    let client = world.address.connect();
    let times = client.fill(&Request::List {});
    assert!(times > 10);
    alive(&world);
    for _ in 0..times {
        assert!(matches!(client.event(), Event::Processes { .. }));
    }
}

#[test]
fn a_connection_becomes_a_file_workers() {
    let world = World::new();
    let client = world.address.connect();
    client.send(&Request::Files { watch: false });
    let path = || "/tmp/file".into();
    client.send_bytes(
        &FileRequest::Write {
            path: path(),
            user: None,
            mode: None,
            data: "contents".into(),
        }
        .encode(),
    );
    assert_eq!(
        client.receive::<FileReply>().map(|(reply, _)| reply),
        Some(FileReply::Done {})
    );
    assert_eq!(
        world
            .address
            .sh("cat /tmp/file; stat -c %U /tmp/file")
            .out(),
        "contentsuser\n"
    );
    // It is in no command's cgroup, holds nothing of PID 1, and user code cannot look into it.
    let script = "for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || ls $p/fd 2>/dev/null; done; echo end";
    let report = world.address.sh(script).expect_code(0);
    assert_eq!(report.out(), "end\n");
    drop(client);
    // Then only PID 1 and the process that waits for the next command are left of that name.
    assert!(crate::harness::eventually(|| {
        let report = world
            .address
            .sh("cat /proc/[0-9]*/comm | grep -c '^sandbox-init$'");
        report.out().trim() == "2"
    }));
}

#[test]
fn long_lists_arrive_whole() {
    let world = World::new();
    let client = world.address.connect();
    let script = format!("exit 0 # {}", "x".repeat(5000));
    for _ in 0..200 {
        client.send(&Request::Spawn { spawn: sh(&script) });
        assert!(matches!(client.event(), Event::Started { .. }));
        client.rest().expect_code(0);
    }
    let Event::Processes { processes } = client.ask(&Request::List {}) else {
        panic!("no list")
    };
    assert_eq!(processes.len(), 200);
    assert!(
        processes
            .iter()
            .all(|entry| entry.argv[2].0.len() > 4000 && entry.argv[2].0.len() < 4096)
    );
}
