//! A sandbox claimed by somebody who holds its commands: who is in the way, who is sent away, and who waits.

use std::time::Duration;

use sandbox_agent::protocol::agent::{Event, Failure, Request};
use sandbox_agent::protocol::files::{FileReply, FileRequest};
use sandbox_agent::protocol::{VERSION, Wire as _};

use crate::client::{Client, sh};
use crate::world::World;

impl World {
    /// Holds the commands and asks for the sandbox; returns the answer and what to keep it by.
    fn claim(&self) -> (Event, Client) {
        let client = self.address.connect();
        assert_eq!(client.ask(&Request::Hold {}), Event::Done {});
        let answer = client.ask(&Request::Claim {});
        (answer, client)
    }

    fn is_refused(&self) -> bool {
        match self.claim().0 {
            Event::Done {} => false,
            Event::Failed { failure, .. } => {
                assert_eq!(failure, Failure::State {});
                true
            }
            other => panic!("{other:?}"),
        }
    }

    /// A file worker that has answered a request.
    fn worker(&self) -> Client {
        let client = self.address.connect();
        client.send(&Request::Files { watch: false });
        stat(&client).unwrap();
        client
    }
}

/// The answer of a file worker; `None` if there is none any more.
fn stat(worker: &Client) -> Option<FileReply> {
    let request = FileRequest::Stat {
        path: "/".into(),
        user: None,
        follow: true,
    };
    let sent = worker.try_send(&request.encode(), &[]);
    sent.then(|| worker.receive().unwrap().0)
}

#[test]
fn what_pid_1_keeps_for_later_is_sent_away_and_comes_back() {
    let world = World::new();
    // From the second command on one is ready for the next.
    for _ in 0..3 {
        world.address.sh("true").expect_code(0);
    }
    let worker = world.worker();
    let (answer, client) = world.claim();
    assert_eq!(answer, Event::Done {});
    assert!(stat(&worker).is_none());
    drop(client);
    assert_eq!(world.address.sh("echo on").expect_code(0).out(), "on\n");
    assert!(stat(&world.worker()).is_some());
}

#[test]
fn whatever_runs_is_in_the_way() {
    let world = World::new();
    let (client, ..) = world.address.spawn(sh("echo ready; sleep 100"));
    client.until(|report| report.stdout == b"ready\n");
    assert!(world.is_refused());
    let (_, holder) = world.claim();
    // It goes on holding all the same.
    assert!(world.cgroup.as_ref().unwrap().is_frozen());
    drop(holder);
    world.address.connect().ask(&Request::Signal {
        process: 1,
        signal: 9,
        tree: true,
    });
    client.rest();
    // What a command has left behind, in a session of its own.
    world
        .address
        .sh("setsid sleep 100 >/dev/null 2>&1 & echo")
        .expect_code(0);
    assert!(world.is_refused());
    world.address.sh("pkill sleep || kill -9 -1").expect_code(0);
    let gone = crate::harness::eventually(|| !world.is_refused());
    assert!(gone);
}

#[test]
fn nothing_is_served_until_the_claim_is_over() {
    let world = World::new();
    let (answer, holder) = world.claim();
    assert_eq!(answer, Event::Done {});
    let (command, files) = (world.address.connect(), world.address.connect());
    command.send(&Request::Spawn {
        spawn: sh("echo on"),
    });
    files.send(&Request::Files { watch: false });
    let request = FileRequest::Stat {
        path: "/".into(),
        user: None,
        follow: true,
    };
    assert!(files.try_send(&request.encode(), &[]));
    // Only who has claimed it is answered.
    for _ in 0..20 {
        let info = holder.ask(&Request::Info { version: VERSION });
        assert!(matches!(info, Event::Info { running: 0, .. }), "{info:?}");
    }
    assert!(!command.is_readable(Duration::from_millis(50)));
    assert!(!files.is_readable(Duration::ZERO));
    drop(holder);
    assert!(matches!(command.event(), Event::Started { .. }));
    assert_eq!(command.rest().expect_code(0).out(), "on\n");
    assert!(files.receive::<FileReply>().is_some());
}

#[test]
fn a_claim_takes_a_holder_and_is_made_once() {
    let world = World::new();
    let invalid = |event| match event {
        Event::Failed { failure, message } => assert_eq!(failure, Failure::Invalid {}, "{message}"),
        other => panic!("{other:?}"),
    };
    invalid(world.address.connect().ask(&Request::Claim {}));
    let (answer, holder) = world.claim();
    assert_eq!(answer, Event::Done {});
    invalid(holder.ask(&Request::Claim {}));
    drop(holder);
    assert_eq!(world.claim().0, Event::Done {});
}

#[test]
fn a_tree_that_is_not_whole_afterwards_is_the_end() {
    for damage in ["mount -o remount,bind,ro /", "umount --lazy /proc"] {
        let world = World::new();
        let (answer, holder) = world.claim();
        assert_eq!(answer, Event::Done {});
        let (success, said) = world.sandbox.shell(damage);
        assert!(success, "{said}");
        assert!(!world.sandbox.has_ended());
        drop(holder);
        assert!(world.sandbox.ends(), "{damage}");
    }
}

#[test]
fn where_it_is_can_be_asked_for() {
    use std::fs::{File, metadata};
    use std::os::unix::fs::MetadataExt as _;

    let world = World::new();
    let client = world.address.connect();
    client.send(&Request::Places {});
    let (event, places) = client.receive::<Event>().unwrap();
    assert_eq!(event, Event::Places {});
    let [users, mounts, root, list] = <[_; 4]>::try_from(places).unwrap();
    for (place, name) in [(users, "ns/user"), (mounts, "ns/mnt"), (root, "root/")] {
        let (found, own) = (
            File::from(place).metadata().unwrap(),
            metadata(format!("/proc/{}/{name}", world.sandbox.pid)).unwrap(),
        );
        assert_eq!((found.dev(), found.ino()), (own.dev(), own.ino()), "{name}");
    }
    let list = std::io::read_to_string(File::from(list)).unwrap();
    assert_eq!(list, world.sandbox.proc_file("mountinfo"));
}
