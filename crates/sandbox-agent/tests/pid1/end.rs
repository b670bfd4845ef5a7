//! How a sandbox ends: by request, in time, with its owner, and not by what its own code does.

use sandbox_agent::protocol::VERSION;
use sandbox_agent::protocol::agent::{Event, Exit, Request, Spawn};

use crate::client::sh;
use crate::world::{Options, World};

#[test]
fn a_request_ends_it_with_all_processes() {
    let world = World::new();
    let (client, ..) = world.address.spawn(sh("trap '' TERM HUP; sleep 1000"));
    let asker = world.address.connect();
    asker.send(&Request::Shutdown {});
    assert!(world.sandbox.ends());
    assert!(asker.is_closed());
    assert!(client.is_closed());
    assert_eq!(world.cgroup.as_ref().unwrap().population(), 0);
}

#[test]
fn it_ends_when_its_lifetime_is_over() {
    let world = World::with(&Options {
        cgroup: false,
        change: |request| request.lifetime_ms = 300,
    });
    assert!(matches!(
        world.address.ask(&Request::Info { version: VERSION }),
        Event::Info {
            remaining_ms: Some(1..=300),
            ..
        }
    ));
    assert!(world.sandbox.ends());
}

#[test]
fn its_lifetime_can_be_changed() {
    let world = World::with(&Options {
        cgroup: false,
        change: |request| request.lifetime_ms = 3_600_000,
    });
    let remaining = || match world.address.ask(&Request::Info { version: VERSION }) {
        Event::Info { remaining_ms, .. } => remaining_ms,
        other => panic!("{other:?}"),
    };
    assert!(remaining().is_some_and(|ms| ms > 3_000_000));
    assert_eq!(
        world.address.ask(&Request::SetLifetime { remaining_ms: 0 }),
        Event::Done {}
    );
    assert_eq!(remaining(), None);
    assert_eq!(
        world.address.ask(&Request::SetLifetime {
            remaining_ms: u64::MAX
        }),
        Event::Done {}
    );
    assert!(!world.sandbox.has_ended());
    world
        .address
        .connect()
        .send(&Request::SetLifetime { remaining_ms: 1 });
    assert!(world.sandbox.ends());
}

#[test]
fn an_owned_one_ends_with_its_owner() {
    let world = World::new();
    let (_client, ..) = world.address.spawn(sh("sleep 1000"));
    let World { sandbox, .. } = &world;
    assert!(!sandbox.has_ended());
    let World {
        sandbox, address, ..
    } = world;
    let pidfd = sandbox.pidfd.try_clone().unwrap();
    drop(sandbox);
    assert!(crate::harness::eventually(|| rustix::event::poll(
        &mut [rustix::event::PollFd::new(
            &pidfd,
            rustix::event::PollFlags::IN
        )],
        Some(&rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0
        })
    )
    .unwrap()
        == 1));
    drop(address);
}

#[test]
fn a_detached_one_lives_on_without_its_owner() {
    for ask in [true, false] {
        let change: fn(&mut sandbox_agent::protocol::zygote::Create) = if ask {
            |_| ()
        } else {
            |request| request.owned = false
        };
        let mut world = World::with(&Options {
            cgroup: false,
            change,
        });
        if ask {
            assert_eq!(world.address.ask(&Request::Detach {}), Event::Done {});
        }
        let (null, _) = std::io::pipe().unwrap();
        drop(std::mem::replace(&mut world.sandbox.lifeline, null.into()));
        world.address.sh("exit 5").expect_code(5);
        assert!(!world.sandbox.has_ended());
        world.address.connect().send(&Request::Shutdown {});
        assert!(world.sandbox.ends());
    }
}

#[test]
fn its_own_code_cannot_end_it() {
    let world = World::new();
    let root = |script: &str| Spawn {
        user: Some("root".into()),
        ..sh(script)
    };
    let (bystander, ..) = world.address.spawn(sh("sleep 1000"));
    // The shell's kill leaves out the shell.
    let script = "for s in $(seq 1 64); do kill -$s 1; done 2>/dev/null; kill -9 -1";
    world.address.run(root(script)).expect_code(0);
    assert_eq!(
        bystander.rest().exit,
        Some(Exit::Signal {
            signal: libc::SIGKILL
        })
    );
    world.address.sh("exit 0").expect_code(0);
    for path in ["mem", "fd", "environ", "cwd", "maps"] {
        let report = world.address.run(root(&format!(
            "ls -L /proc/1/{path}/ || cat /proc/1/{path}"
        )));
        assert!(
            matches!(report.exit, Some(Exit::Code { code: 1.. })),
            "{path}: {report:?}"
        );
    }
    world.address.sh("exit 0").expect_code(0);
}

#[test]
fn orphans_and_zombies_are_reaped_and_cgroups_removed() {
    let world = World::new();
    for _ in 0..20 {
        world
            .address
            .sh("for i in 1 2 3 4 5; do (sleep 0.05 &) ; done")
            .expect_code(0);
    }
    let cgroup = world.cgroup.as_ref().unwrap();
    assert!(crate::harness::eventually(|| {
        // The shell, which reads the names itself; PID 1 and what it keeps ready have another one.
        let script = "for p in /proc/[0-9]*; do read -r n < $p/comm && [ $n != sandbox-init ] && echo $n; done; true";
        let report = world.address.sh(script);
        report.out() == "sh\n" && cgroup.commands().len() <= 4
    }));
}

#[test]
fn without_a_filter_nothing_starts() {
    let zygote = crate::harness::Zygote::start();
    let mut request = zygote.request(1);
    request.seccomp.0.clear();
    match zygote.create(&request) {
        Ok(sandbox) => assert!(sandbox.ends(), "it runs without a seccomp filter"),
        Err((step, _)) => assert!(!step.is_empty()),
    }
}
