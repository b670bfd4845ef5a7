//! Timeouts, signals, and how an end is told.

use sandbox_agent::protocol::agent::{Event, Exit, Failure, Request, Spawn};

use crate::client::sh;
use crate::world::{Options, World};

fn limited(timeout_ms: u64, grace_ms: u64, script: &str) -> Spawn {
    Spawn {
        timeout_ms,
        grace_ms,
        ..sh(script)
    }
}

fn without_cgroup() -> World {
    World::with(&Options {
        cgroup: false,
        change: |_| (),
    })
}

#[test]
fn a_timeout_ends_the_command_and_keeps_its_output() {
    for world in [World::new(), without_cgroup()] {
        let report = world.address.run(limited(
            200,
            10_000,
            "echo partial; echo err >&2; sleep 1000",
        ));
        assert_eq!(report.exit, Some(Exit::TimedOut {}));
        assert_eq!(
            (report.out().as_str(), report.err().as_str()),
            ("partial\n", "err\n")
        );
        // In time is in time.
        world
            .address
            .run(limited(60_000, 1, "exit 3"))
            .expect_code(3);
    }
}

#[test]
fn a_program_that_ignores_term_is_killed_after_the_grace() {
    for world in [World::new(), without_cgroup()] {
        for grace in [0, 100] {
            let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
            let report = world.address.run(limited(100, grace, script));
            assert_eq!(
                (report.exit, report.stdout.as_slice()),
                (Some(Exit::TimedOut {}), &b"ready\n"[..])
            );
        }
    }
}

#[test]
fn a_program_may_clean_up_in_the_grace() {
    let world = World::new();
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let report = world.address.run(limited(300, 60_000, script));
    assert_eq!(
        (report.exit.clone(), report.out().as_str()),
        (Some(Exit::TimedOut {}), "ready\nbye\n")
    );
}

#[test]
fn others_of_the_tree_have_the_grace_as_well_and_no_more() {
    let world = World::new();
    // The main process dies at once; its child takes a moment.
    let script = "(trap 'sleep 0.2; echo child; exit' TERM; while :; do sleep 0.01; done) & wait";
    let report = world.address.run(limited(300, 60_000, script));
    assert_eq!(
        (report.exit.clone(), report.out().as_str()),
        (Some(Exit::TimedOut {}), "child\n")
    );
    let (client, ..) = world.address.spawn(limited(
        100,
        100,
        "(trap '' TERM; while :; do sleep 1000; done) & wait",
    ));
    assert_eq!(client.rest().exit, Some(Exit::TimedOut {}));
    let cgroup = world.cgroup.as_ref().unwrap();
    assert!(crate::harness::eventually(|| cgroup.population() == 0));
}

#[test]
fn double_forked_children_do_not_survive() {
    let world = World::new();
    let cgroup = world.cgroup.as_ref().unwrap();
    // A daemon in a session of its own, whose parent is PID 1.
    let daemon = "setsid sh -c 'trap \"\" TERM; echo $$ > /tmp/daemon; exec sleep 1000' <&- >&- 2>&- & \
                  while ! [ -s /tmp/daemon ]; do :; done; rm /tmp/daemon; ";
    let (client, ..) = world
        .address
        .spawn(limited(500, 50, &format!("{daemon} sleep 1000")));
    assert_eq!(client.rest().exit, Some(Exit::TimedOut {}));
    assert!(crate::harness::eventually(|| cgroup.population() == 0));

    let (client, process, _) = world.address.spawn(sh(&format!("({daemon}) ; sleep 1000")));
    assert!(crate::harness::eventually(|| cgroup.population() >= 3));
    let kill = Request::Signal {
        process,
        signal: libc::SIGKILL,
        tree: false,
    };
    assert_eq!(world.address.ask(&kill), Event::Done {});
    assert_eq!(
        client.rest().exit,
        Some(Exit::Signal {
            signal: libc::SIGKILL
        })
    );
    assert!(crate::harness::eventually(|| cgroup.population() == 0));
    assert!(crate::harness::eventually(|| world
        .address
        .sh("true")
        .exit
        .is_some()
        && cgroup.commands().len() <= 4));
}

#[test]
fn signals_reach_the_group_or_the_tree() {
    let world = World::new();
    let cgroup = world.cgroup.as_ref().unwrap();
    let script = "trap 'echo main' USR1; setsid sh -c 'trap \"echo other\" USR1; echo > /tmp/ready; while :; do sleep 0.01; done' & \
                  while ! [ -e /tmp/ready ]; do :; done; echo ready; while :; do sleep 0.01; done";
    let (client, process, _) = world.address.spawn(sh(script));
    client.until(|report| report.out() == "ready\n");
    let signal = |signal, tree| {
        world.address.ask(&Request::Signal {
            process,
            signal,
            tree,
        })
    };
    assert_eq!(signal(libc::SIGUSR1, false), Event::Done {});
    assert_eq!(
        client.until(|report| !report.stdout.is_empty()).out(),
        "main\n"
    );
    assert_eq!(signal(libc::SIGUSR1, true), Event::Done {});
    let report = client.until(|report| report.stdout.len() >= 11);
    assert!(
        ["main\nother\n", "other\nmain\n"].contains(&report.out().as_str()),
        "{report:?}"
    );
    for bad in [0, -1, 65, i32::MAX, i32::MIN] {
        assert!(matches!(
            signal(bad, true),
            Event::Failed {
                failure: Failure::Invalid {},
                ..
            }
        ));
    }
    assert_eq!(signal(libc::SIGKILL, false), Event::Done {});
    assert_eq!(
        client.rest().exit,
        Some(Exit::Signal {
            signal: libc::SIGKILL
        })
    );
    assert!(crate::harness::eventually(|| cgroup.population() == 0));
    for tree in [false, true] {
        assert!(matches!(
            signal(libc::SIGTERM, tree),
            Event::Failed {
                failure: Failure::State {},
                ..
            }
        ));
    }
    // What comes after a kill is not killed with it.
    world.address.sh("exit 8").expect_code(8);
    let unknown = Request::Signal {
        process: 999,
        signal: 9,
        tree: true,
    };
    assert!(matches!(
        world.address.ask(&unknown),
        Event::Failed {
            failure: Failure::NotFound {},
            ..
        }
    ));
}

#[test]
fn ends_are_told_apart() {
    let mut world = World::new();
    assert_eq!(
        world.address.sh("kill -TERM $$").exit,
        Some(Exit::Signal {
            signal: libc::SIGTERM
        })
    );
    assert_eq!(
        world.address.sh("kill -KILL $$").exit,
        Some(Exit::Signal {
            signal: libc::SIGKILL
        })
    );
    world.address.sh("exit 137").expect_code(137);
    // The counter grows while a command runs, and a kill that is not ours ends it.
    let (client, ..) = world.address.spawn(Spawn {
        stdin: true,
        ..sh("read x; kill -KILL $$")
    });
    let (another, ..) = world.address.spawn(Spawn {
        stdin: true,
        ..sh("read x; kill -KILL $$")
    });
    let (bystander, ..) = world.address.spawn(Spawn {
        stdin: true,
        ..sh("read x; exit 5")
    });
    let (ours, process, _) = world.address.spawn(sh("sleep 1000"));
    world.count_oom_kill();
    assert_eq!(
        world.address.ask(&Request::Signal {
            process,
            signal: 9,
            tree: true
        }),
        Event::Done {}
    );
    assert_eq!(ours.rest().exit, Some(Exit::Signal { signal: 9 }));
    client.type_in(b"\n");
    assert_eq!(client.rest().exit, Some(Exit::OutOfMemory {}));
    bystander.type_in(b"\n");
    bystander.rest().expect_code(5);
    // One kill ends one command, whichever others were there at that time.
    another.type_in(b"\n");
    let killed = Exit::Signal {
        signal: libc::SIGKILL,
    };
    assert_eq!(another.rest().exit, Some(killed));
    // An old kill says nothing about a new command.
    assert_eq!(
        world.address.sh("kill -KILL $$").exit,
        Some(Exit::Signal {
            signal: libc::SIGKILL
        })
    );
}

#[test]
fn a_command_killed_at_any_moment_starts_and_ends() {
    let world = World::new();
    // Kills everything of the user, also what is between its fork and its program. That there is nothing it does not say:
    // nobody reads it, and a full pipe would stop it.
    let (killer, process, _) = world.address.spawn(Spawn {
        user: Some("root".into()),
        ..sh("trap '' TERM; while :; do kill -9 -1; done 2>/dev/null")
    });
    let client = world.address.connect();
    for _ in 0..300 {
        client.send(&Request::Spawn {
            spawn: sh("sleep 1000"),
        });
        match client.event() {
            Event::Started { .. } => assert_eq!(
                client.rest().exit,
                Some(Exit::Signal {
                    signal: libc::SIGKILL
                })
            ),
            other => panic!("{other:?}"),
        }
    }
    let kill = Request::Signal {
        process,
        signal: 9,
        tree: true,
    };
    assert_eq!(world.address.ask(&kill), Event::Done {});
    killer.rest();
    world.address.sh("exit 0").expect_code(0);
}
