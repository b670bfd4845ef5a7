//! A sandbox that waits before it begins.

use sandbox_agent::protocol::agent::{Event, Failure, Position, Request};
use sandbox_agent::protocol::{Limits, VERSION};

use crate::client::{Address, command};
use crate::harness::eventually;
use crate::world::{Options, World};

fn waiting() -> World {
    let world = World::with(&Options {
        cgroup: true,
        change: |request| request.lifetime_ms = 0,
    });
    assert_eq!(world.address.ask(&Request::Wait {}), Event::Done {});
    world
}

fn begin(env: &[(&str, &str)], lifetime_ms: u64) -> Request {
    let pair = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
    Request::Begin {
        env: env.iter().map(pair).collect(),
        lifetime_ms,
        max_processes: 0,
        limits: Limits {
            memory: 64 << 20,
            cpu_millis: 500,
            processes: 100,
        },
    }
}

fn refusal(address: &Address, request: &Request) -> Failure {
    match address.ask(request) {
        Event::Failed { failure, .. } => failure,
        other => panic!("not refused: {other:?}"),
    }
}

fn remaining(world: &World) -> Option<u64> {
    match world.address.ask(&Request::Info { version: VERSION }) {
        Event::Info { remaining_ms, .. } => remaining_ms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_begins_with_an_environment_and_a_lifetime_of_its_own() {
    let world = waiting();
    assert_eq!(remaining(&world), None);
    let request = begin(&[("FROM", "begin")], 60_000);
    assert_eq!(world.address.ask(&request), Event::Done {});
    assert!(remaining(&world).is_some_and(|ms| (1..=60_000).contains(&ms)));
    for _ in 0..3 {
        let report = world.address.sh("echo $FROM; id -u").expect_code(0);
        assert_eq!(report.out(), "begin\n1000\n");
    }
}

#[test]
fn its_lifetime_ends_it_counted_from_the_beginning() {
    let world = waiting();
    assert_eq!(world.address.ask(&begin(&[], 300)), Event::Done {});
    assert!(world.sandbox.ends());
}

#[test]
fn it_begins_once_among_many_who_want_it() {
    let world = waiting();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || world.address.ask(&begin(&[], 0));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.collect()
    });
    let began = answers.iter().filter(|answer| **answer == Event::Done {});
    assert_eq!(began.count(), 1, "{answers:?}");
    assert_eq!(
        refusal(&world.address, &Request::Wait {}),
        Failure::State {}
    );
}

#[test]
fn nothing_is_done_in_it_before_it_begins() {
    let world = waiting();
    let client = world.address.connect();
    let spawn = Request::Spawn {
        spawn: command(&["/bin/true"]),
    };
    let attach = Request::Attach {
        process: 1,
        from: Position::Now {},
    };
    for request in [
        spawn,
        attach,
        Request::Files { watch: false },
        Request::List {},
        Request::Detach {},
        Request::SetLifetime { remaining_ms: 1 },
        Request::Wait {},
    ] {
        match client.ask(&request) {
            Event::Failed { failure, .. } => assert_eq!(failure, Failure::State {}, "{request:?}"),
            other => panic!("{request:?}: {other:?}"),
        }
    }
    assert_eq!(remaining(&world), None);
    assert_eq!(client.ask(&begin(&[], 0)), Event::Done {});
    world.address.sh("exit 3").expect_code(3);
}

#[test]
fn one_in_which_something_was_asked_for_does_not_wait() {
    let world = World::new();
    assert_eq!(refusal(&world.address, &begin(&[], 0)), Failure::State {});
    world.address.sh("true").expect_code(0);
    assert_eq!(
        refusal(&world.address, &Request::Wait {}),
        Failure::State {}
    );
}

#[test]
fn an_environment_that_cannot_be_set_is_refused() {
    for env in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
        let world = waiting();
        let failure = refusal(&world.address, &begin(&[env], 0));
        assert_eq!(failure, Failure::Invalid {}, "{env:?}");
    }
}

#[test]
fn a_process_is_ready_for_its_first_command_however_long_it_waits() {
    let world = waiting();
    let group = world.cgroup.as_ref().unwrap();
    assert!(eventually(|| !group.commands().is_empty()));
    let before = group.commands();
    assert_eq!(world.address.ask(&begin(&[], 0)), Event::Done {});
    let report = world.address.sh("cat /proc/self/cgroup").expect_code(0);
    let own = report.out();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/commands/"));
    let own = own.expect("a command has a group of version 2");
    assert!(
        before.iter().any(|name| name == own),
        "{own} is not of {before:?}"
    );
}

#[test]
fn it_ends_with_its_owner_while_it_waits() {
    let mut world = waiting();
    let null = std::fs::File::open("/dev/null").unwrap();
    drop(std::mem::replace(&mut world.sandbox.lifeline, null.into()));
    assert!(world.sandbox.ends());
}
