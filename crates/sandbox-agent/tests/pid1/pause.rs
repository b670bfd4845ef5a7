//! Rest: all commands stop and go on, with the sandbox's own clock and without.

use sandbox_agent::protocol::VERSION;
use sandbox_agent::protocol::agent::{Event, Exit, Failure, Position, Request, Spawn};

use crate::client::{Address, sh};
use crate::harness::eventually;
use crate::world::{Options, World};

impl World {
    fn pause(&self) {
        assert_eq!(self.address.ask(&Request::Pause {}), Event::Done {});
        assert!(self.cgroup.as_ref().unwrap().is_frozen());
        assert!(self.address.is_paused());
    }

    fn resume(&self) {
        assert_eq!(self.address.ask(&Request::Resume {}), Event::Done {});
        assert!(!self.address.is_paused());
    }
}

impl Address {
    /// Milliseconds since the start, those left, and whether it is paused.
    fn info(&self) -> (u64, Option<u64>, bool) {
        match self.ask(&Request::Info { version: VERSION }) {
            Event::Info {
                uptime_ms,
                remaining_ms,
                paused,
                ..
            } => (uptime_ms, remaining_ms, paused),
            other => panic!("{other:?}"),
        }
    }

    fn is_paused(&self) -> bool {
        self.info().2
    }

    /// Waits until the sandbox is so much older.
    fn let_pass(&self, ms: u64) {
        let start = self.info().0;
        assert!(eventually(|| self.info().0 >= start + ms));
    }

    fn set_expiry(&self, pauses: bool, idle_ms: u64) -> Event {
        self.ask(&Request::SetExpiry { pauses, idle_ms })
    }
}

fn without_cgroup() -> World {
    World::with(&Options {
        cgroup: false,
        change: |_| (),
    })
}

#[test]
fn commands_stop_and_go_on() {
    let world = World::new();
    let spawn = Spawn {
        stdin: true,
        ..sh("echo ready; read line; echo \"got $line\"")
    };
    let (client, process, _) = world.address.spawn(spawn);
    client.until(|report| report.stdout == b"ready\n");
    world.pause();
    // Again is no error.
    world.pause();
    client.type_in(b"word\n");
    let (failure, message) = world.address.refused(sh("true"));
    assert_eq!(failure, Failure::State {}, "{message}");
    // What was said before can be read, and a signal waits.
    let reader = world.address.attach(process, Position::Cursor { at: 0 });
    reader.until(|report| report.stdout == b"ready\n");
    world.address.let_pass(50);
    world
        .address
        .wait_until(process, |entry| entry.cursor == 6 && entry.exit.is_none());
    world.resume();
    world.resume();
    let report = client.rest().expect_code(0);
    assert_eq!(report.out(), "got word\n");
    assert_eq!(world.address.sh("echo on").expect_code(0).out(), "on\n");
}

#[test]
fn what_is_in_the_middle_of_a_fork_stops_as_well() {
    let world = World::new();
    // Always forking, and never many: here no limit would stop them.
    let script =
        "forks() { while :; do (:); done; }; forks & forks & forks & forks & echo ready; wait";
    let (client, ..) = world.address.spawn(sh(script));
    client.until(|report| report.stdout == b"ready\n");
    for _ in 0..20 {
        world.pause();
        // Whoever was left out would go on forking.
        let population = world.cgroup.as_ref().unwrap().population();
        world.address.let_pass(5);
        assert_eq!(world.cgroup.as_ref().unwrap().population(), population);
        world.resume();
    }
    world.pause();
    world.address.connect().send(&Request::Shutdown {});
    assert!(world.sandbox.ends());
}

#[test]
fn what_is_left_of_an_ended_command_stops_as_well() {
    let world = World::new();
    // It writes to a pipe, and whoever reads that one sees whether it goes on.
    let script =
        "mkfifo /tmp/pipe; (while :; do echo x; done >/tmp/pipe) >/dev/null 2>&1 & echo $!";
    world.address.sh(script).expect_code(0);
    world.pause();
    let population = world.cgroup.as_ref().unwrap().population();
    assert_eq!(population, 1);
    world.resume();
    let read = world.address.sh("head -n 3 /tmp/pipe").expect_code(0);
    assert_eq!(read.out(), "x\nx\nx\n");
}

#[test]
fn a_paused_command_can_be_killed_and_signalled() {
    let world = World::new();
    let (killed, one, _) = world.address.spawn(sh("echo ready; exec sleep 1000"));
    let (told, other, _) = world.address.spawn(sh(
        "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done",
    ));
    for client in [&killed, &told] {
        client.until(|report| report.stdout == b"ready\n");
    }
    world.pause();
    let signal = |process, signal, tree| {
        let request = Request::Signal {
            process,
            signal,
            tree,
        };
        assert_eq!(world.address.ask(&request), Event::Done {});
    };
    signal(one, libc::SIGKILL, true);
    assert_eq!(
        killed.rest().exit,
        Some(Exit::Signal {
            signal: libc::SIGKILL
        })
    );
    signal(other, libc::SIGTERM, false);
    assert!(world.address.is_paused());
    world.resume();
    assert_eq!(told.rest().exit, Some(Exit::Code { code: 7 }));
}

#[test]
fn the_clock_of_a_command_stands_still() {
    let world = World::new();
    let spawn = Spawn {
        timeout_ms: 300,
        grace_ms: 10_000,
        ..sh("sleep 1000")
    };
    let (client, process, _) = world.address.spawn(spawn);
    world.pause();
    world.address.let_pass(600);
    world
        .address
        .wait_until(process, |entry| entry.exit.is_none());
    assert!(!client.is_readable(std::time::Duration::ZERO));
    world.resume();
    assert_eq!(client.rest().exit, Some(Exit::TimedOut {}));
}

#[test]
fn its_lifetime_runs_on_while_it_is_paused() {
    let world = World::new();
    world.pause();
    world
        .address
        .ask(&Request::SetLifetime { remaining_ms: 100 });
    assert!(world.sandbox.ends());
}

#[test]
fn the_end_of_the_lifetime_can_be_a_pause_and_then_it_begins_anew() {
    let world = World::new();
    assert_eq!(world.address.set_expiry(true, 0), Event::Done {});
    world
        .address
        .ask(&Request::SetLifetime { remaining_ms: 300 });
    assert!(eventually(|| world.address.is_paused()));
    assert_eq!(world.address.info().1, None);
    world.address.let_pass(400);
    assert_eq!(world.address.ask(&Request::Resume {}), Event::Done {});
    let (_, left, _) = world.address.info();
    assert!(left.is_none_or(|left| left <= 300), "{left:?}");
    assert!(eventually(|| world.address.is_paused()));
    // One that is paused already stays so.
    world.resume();
    world.address.ask(&Request::SetLifetime {
        remaining_ms: 100_000,
    });
    world.pause();
    world.address.ask(&Request::SetLifetime { remaining_ms: 1 });
    assert!(eventually(|| world.address.info().1.is_none()));
    assert!(world.address.is_paused());
    assert!(!world.sandbox.has_ended());
}

#[test]
fn it_expires_when_nobody_outside_uses_it() {
    let world = World::new();
    assert_eq!(world.address.set_expiry(false, 300), Event::Done {});
    let (client, ..) = world.address.spawn(sh("echo ready; sleep 1000"));
    client.until(|report| report.stdout == b"ready\n");
    // A reader is traffic, and to ask what it does is none.
    world.address.let_pass(700);
    drop(client);
    assert!(world.sandbox.ends());
}

#[test]
fn an_idle_sandbox_is_paused_and_its_lifetime_with_it() {
    let world = World::new();
    world.address.ask(&Request::SetLifetime {
        remaining_ms: 90_000,
    });
    assert_eq!(world.address.set_expiry(true, 100), Event::Done {});
    assert!(eventually(|| world.address.is_paused()));
    assert_eq!(world.address.info().1, None);
    world.address.ask(&Request::Resume {});
    let (_, left, _) = world.address.info();
    assert!(left.is_none_or(|left| left <= 90_000), "{left:?}");
    assert!(eventually(|| world.address.is_paused()));
}

#[test]
fn whoever_holds_the_commands_lets_them_go_by_leaving() {
    let world = World::new();
    let frozen = || world.cgroup.as_ref().unwrap().is_frozen();
    let (first, second) = (world.address.connect(), world.address.connect());
    assert_eq!(first.ask(&Request::Hold {}), Event::Done {});
    assert!(frozen());
    assert!(!world.address.is_paused());
    assert_eq!(second.ask(&Request::Hold {}), Event::Done {});
    // What is asked for meanwhile waits, even if it was the first to be let go.
    let waiting = world.address.connect();
    waiting.send(&Request::Spawn {
        spawn: sh("echo on"),
    });
    drop(first);
    world.address.let_pass(50);
    assert!(frozen());
    assert!(!waiting.is_readable(std::time::Duration::ZERO));
    drop(second);
    assert!(matches!(waiting.event(), Event::Started { .. }));
    assert_eq!(waiting.rest().expect_code(0).out(), "on\n");
    assert!(!frozen());
}

#[test]
fn the_clock_of_a_command_that_waits_for_a_holder_stands_still() {
    let world = World::new();
    let holder = world.address.connect();
    assert_eq!(holder.ask(&Request::Hold {}), Event::Done {});
    let waiting = world.address.connect();
    waiting.send(&Request::Spawn {
        spawn: Spawn {
            timeout_ms: 300,
            ..sh("echo on")
        },
    });
    world.address.let_pass(600);
    drop(holder);
    assert!(matches!(waiting.event(), Event::Started { .. }));
    assert_eq!(waiting.rest().expect_code(0).out(), "on\n");
}

#[test]
fn who_holds_a_paused_sandbox_leaves_it_paused_and_a_resume_waits_for_him() {
    let world = World::new();
    let frozen = || world.cgroup.as_ref().unwrap().is_frozen();
    world.pause();
    let holder = world.address.connect();
    assert_eq!(holder.ask(&Request::Hold {}), Event::Done {});
    drop(holder);
    world.address.let_pass(50);
    assert!(frozen() && world.address.is_paused());
    let holder = world.address.connect();
    assert_eq!(holder.ask(&Request::Hold {}), Event::Done {});
    world.resume();
    assert!(frozen());
    world.pause();
    world.resume();
    drop(holder);
    assert!(eventually(|| !frozen()));
    assert_eq!(world.address.sh("echo on").expect_code(0).out(), "on\n");
}

#[test]
fn the_clocks_of_a_held_sandbox_run_on() {
    let world = World::new();
    assert_eq!(world.address.set_expiry(false, 100), Event::Done {});
    let holder = world.address.connect();
    assert_eq!(holder.ask(&Request::Hold {}), Event::Done {});
    world.address.let_pass(300);
    assert!(!world.sandbox.has_ended());
    drop(holder);
    assert!(world.sandbox.ends());
}

#[test]
fn without_a_cgroup_only_a_sandbox_is_held_in_which_no_command_runs() {
    let world = without_cgroup();
    let (client, process, _) = world.address.spawn(sh("echo ready; sleep 1000"));
    client.until(|report| report.stdout == b"ready\n");
    let holder = world.address.connect();
    match holder.ask(&Request::Hold {}) {
        Event::Failed { failure, message } => assert_eq!(failure, Failure::State {}, "{message}"),
        other => panic!("{other:?}"),
    }
    world.address.ask(&Request::Signal {
        process,
        signal: 9,
        tree: true,
    });
    client.rest();
    assert_eq!(holder.ask(&Request::Hold {}), Event::Done {});
    let late = world.address.connect();
    late.send(&Request::Spawn {
        spawn: sh("echo on"),
    });
    assert_eq!(holder.ask(&Request::Claim {}), Event::Done {});
    assert!(!late.is_readable(std::time::Duration::from_millis(50)));
    drop(holder);
    assert!(matches!(late.event(), Event::Started { .. }));
    assert_eq!(late.rest().expect_code(0).out(), "on\n");
}

#[test]
fn without_a_cgroup_it_is_refused() {
    let world = without_cgroup();
    let refused = |event| match event {
        Event::Failed { failure, message } => {
            assert_eq!(failure, Failure::State {}, "{message}");
        }
        other => panic!("{other:?}"),
    };
    refused(world.address.ask(&Request::Pause {}));
    refused(world.address.set_expiry(true, 0));
    assert_eq!(world.address.ask(&Request::Resume {}), Event::Done {});
    assert_eq!(world.address.set_expiry(false, 100), Event::Done {});
    assert!(world.sandbox.ends());
}
