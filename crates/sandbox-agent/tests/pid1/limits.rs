//! What happens when the sandbox may have no more processes or descriptors, and that it recovers.

use std::process::Command;
use std::time::{Duration, Instant};

use sandbox_agent::protocol::agent::{Event, Failure, Position, Request};

use crate::client::sh;
use crate::world::World;

/// Sets the soft limit of PID 1, which it passes on to commands that it starts meanwhile. Returns what was in force.
fn limit(world: &World, option: &str, soft: &str) -> String {
    let name = match option {
        "nproc" => "Max processes",
        _ => "Max open files",
    };
    let limits = world.sandbox.proc_file("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let before = line.unwrap().split_whitespace().next().unwrap();
    // From within its user namespace, whose root may, even if the host's root has not got all capabilities.
    let pid = world.sandbox.pid.to_string();
    let set = Command::new("nsenter")
        .args(["-t", &pid, "-U", "-S", "0", "-G", "0", "--"])
        .args(["prlimit", "--pid", &pid, &format!("--{option}={soft}:")])
        .status()
        .expect("this test needs nsenter and prlimit, of Debian's package util-linux");
    assert!(set.success());
    before.to_owned()
}

#[test]
fn without_processes_nothing_starts_and_nothing_is_left() {
    for first in [true, false] {
        let world = World::new();
        if !first {
            // So that one waits for the next command.
            world.address.sh("true").expect_code(0);
            world.address.sh("true").expect_code(0);
        }
        let before = limit(&world, "nproc", "1");
        let (failure, message) = (0..3)
            .map(|_| world.address.ask(&spawn()))
            .find_map(failed)
            .unwrap();
        assert_eq!(failure, Failure::Exhausted {}, "{message}");
        assert!(message.contains("limit on processes"), "{message}");
        let files = world.address.connect();
        let refused = failed(files.ask(&Request::Files { watch: false }));
        assert_eq!(
            refused.map(|(failure, _)| failure),
            Some(Failure::Exhausted {})
        );
        // What was meant for the worker is no request to PID 1, whatever it looks like.
        files.send(&Request::Shutdown {});
        limit(&world, "nproc", &before);
        world.address.sh("exit 3").expect_code(3);
        // One may have been started before the limit was met, and ends in its own time.
        let start = Instant::now();
        loop {
            let Event::Processes { processes } = world.address.ask(&Request::List {}) else {
                panic!("no list")
            };
            if processes.iter().all(|entry| entry.exit.is_some()) {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{processes:?}");
        }
    }
}

#[test]
fn without_descriptors_connections_wait_and_commands_are_refused() {
    let world = World::new();
    let client = world.address.connect();
    let (follower, process, _) = world.address.spawn(sh("sleep 1000"));
    assert!(failed(client.ask(&Request::List {})).is_none());
    let before = limit(&world, "nofile", "12");
    client.send(&spawn());
    let (failure, message) = failed(client.event()).unwrap();
    assert_eq!(failure, Failure::Exhausted {}, "{message}");
    assert!(message.contains("descriptors"), "{message}");
    // Nobody takes this one yet, but those that are there go on.
    let waiting = world.address.connect();
    waiting.send(&Request::Attach {
        process,
        from: Position::Now {},
    });
    assert!(failed(client.ask(&Request::List {})).is_none());
    limit(&world, "nofile", &before);
    assert!(matches!(waiting.event(), Event::Started { .. }));
    let kill = Request::Signal {
        process,
        signal: libc::SIGKILL,
        tree: true,
    };
    assert_eq!(client.ask(&kill), Event::Done {});
    assert_eq!(follower.rest().exit, waiting.rest().exit);
    world.address.sh("exit 3").expect_code(3);
}

fn spawn() -> Request {
    Request::Spawn {
        spawn: sh("exit 0"),
    }
}

fn failed(event: Event) -> Option<(Failure, String)> {
    match event {
        Event::Failed { failure, message } => Some((failure, message)),
        _ => None,
    }
}
