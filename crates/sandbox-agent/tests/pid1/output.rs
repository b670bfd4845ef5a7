//! Output on its way to one reader, to several, and to those that come late.

use sandbox_agent::protocol::agent::{Event, Failure, Position, Request, Spawn, stream};

use crate::client::{command, sh};
use crate::world::World;

const MIB: u64 = 1024 * 1024;

#[test]
fn streams_are_tagged_and_in_order_of_arrival() {
    let world = World::new();
    // Each line is read before the next is written.
    let (client, process, _) = world.address.spawn(Spawn {
        stdin: true,
        ..sh("echo one; read x; echo two >&2; read x; echo three; exit 5")
    });
    client.until(|report| report.out() == "one\n");
    client.type_in(b"\n");
    client.until(|report| report.err() == "two\n");
    client.type_in(b"\n");
    let report = client.rest().expect_code(5);
    assert_eq!(report.out(), "three\n");
    let all = world
        .address
        .attach(process, Position::Cursor { at: 0 })
        .rest();
    assert_eq!(all.order, [stream::STDOUT, stream::STDERR, stream::STDOUT]);
    assert_eq!(
        (all.out().as_str(), all.err().as_str(), all.cursor),
        ("one\nthree\n", "two\n", 14)
    );
}

#[test]
fn merged_streams_have_the_programs_order() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let report = world
        .address
        .run(Spawn {
            merge_stderr: true,
            ..sh(script)
        })
        .expect_code(0);
    let expected: String = (0..500).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(report.out(), expected);
    assert!(report.stderr.is_empty());
}

#[test]
fn output_that_is_not_text_arrives_as_it_is() {
    let world = World::new();
    let report = world
        .address
        .sh("printf '\\000\\377\\200\\n'; printf '\\303' >&2")
        .expect_code(0);
    assert_eq!(
        (report.stdout.as_slice(), report.stderr.as_slice()),
        (&b"\0\xff\x80\n"[..], &b"\xc3"[..])
    );
}

#[test]
fn a_sole_foreground_reader_loses_nothing() {
    let world = World::new();
    let total = 24 * MIB;
    let script = format!("i=0; head -c {total} /dev/zero; echo done >&2");
    let (client, process, _) = world.address.spawn(sh(&script));
    // Nobody reads: the ring, the pipe and the socket fill up, and the program waits.
    world.address.wait_for_output(process, MIB);
    world.address.wait_until(process, |entry| {
        (MIB..8 * MIB).contains(&entry.cursor) && entry.exit.is_none()
    });
    let report = client.rest().expect_code(0);
    assert_eq!((report.lost, report.stdout.len() as u64), (0, total));
    assert_eq!(report.err(), "done\n");
    assert_eq!(report.cursor, total + 5);
}

#[test]
fn a_program_without_readers_never_waits() {
    let world = World::new();
    let total = 24 * MIB;
    let (client, process, _) = world
        .address
        .spawn(sh(&format!("head -c {total} /dev/zero; echo end")));
    drop(client);
    world.address.wait_for_output(process, total + 4);
    // The newest bytes were kept, and how many are missing is known.
    let report = world
        .address
        .attach(process, Position::Cursor { at: 0 })
        .rest()
        .expect_code(0);
    assert_eq!(report.lost, total + 4 - MIB);
    assert_eq!(report.stdout.len() as u64, MIB);
    assert!(report.stdout.ends_with(b"\0end\n"));
}

#[test]
fn a_reader_that_leaves_sets_the_program_free_and_comes_back_by_cursor() {
    let world = World::new();
    let script = "head -c 3000000 /dev/zero; echo end; read x; echo $x";
    let (client, process, _) = world.address.spawn(Spawn {
        stdin: true,
        ..sh(script)
    });
    let before = client.until(|report| report.cursor > 500_000);
    assert_eq!(before.lost, 0);
    drop(client);
    world.address.wait_for_output(process, 3_000_004);
    let again = world
        .address
        .attach(process, Position::Cursor { at: before.cursor });
    let mut end = again.until(|report| report.stdout.ends_with(b"end\n"));
    assert_eq!(end.cursor, 3_000_004);
    assert_eq!(
        end.lost + end.stdout.len() as u64,
        end.cursor - before.cursor
    );
    assert!(end.lost > 0);
    again.type_in(b"hello\n");
    end = again.rest().expect_code(0);
    assert_eq!(end.out(), "hello\n");
    // Exactly where it stopped, as long as that is kept.
    let tail = world
        .address
        .attach(process, Position::Cursor { at: 3_000_000 })
        .rest()
        .expect_code(0);
    assert_eq!((tail.out().as_str(), tail.lost), ("end\nhello\n", 0));
}

#[test]
fn several_follow_and_a_slow_one_stops_nobody() {
    let world = World::new();
    let total = 16 * MIB;
    let script = format!("read x; head -c {total} /dev/zero; echo end");
    let (spawner, process, _) = world.address.spawn(Spawn {
        stdin: true,
        ..sh(&script)
    });
    let fast = world.address.attach(process, Position::Now {});
    let slow = world.address.attach(process, Position::Now {});
    spawner.type_in(b"\n");
    // The spawner does not read either: with others around it is a reader like them.
    let report = fast.rest().expect_code(0);
    assert_eq!(report.lost + report.stdout.len() as u64, total + 4);
    for reader in [slow, spawner] {
        let report = reader.rest().expect_code(0);
        assert!(report.lost > 0);
        assert_eq!(report.lost + report.stdout.len() as u64, total + 4);
        assert!(report.stdout.ends_with(b"end\n"));
    }
}

#[test]
fn a_late_reader_gets_all_that_is_kept_and_the_exit() {
    let world = World::new();
    let (client, process, _) = world.address.spawn(sh("echo out; echo err >&2; exit 9"));
    client.rest().expect_code(9);
    let again = world
        .address
        .attach(process, Position::Cursor { at: 0 })
        .rest()
        .expect_code(9);
    assert_eq!(
        (again.out().as_str(), again.err().as_str()),
        ("out\n", "err\n")
    );
    let now = world
        .address
        .attach(process, Position::Now {})
        .rest()
        .expect_code(9);
    assert_eq!((now.stdout.len(), now.cursor), (0, 8));
    // There is nothing after the end.
    let beyond = world
        .address
        .attach(process, Position::Cursor { at: 1_000_000 })
        .rest()
        .expect_code(9);
    assert_eq!((beyond.stdout.len(), beyond.cursor), (0, 8));
    let unknown = Request::Attach {
        process: process + 1,
        from: Position::Now {},
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
fn old_output_is_dropped_before_old_exits() {
    let world = World::new();
    let (client, first, _) = world.address.spawn(sh("echo first; exit 3"));
    client.rest().expect_code(3);
    // One connection may run one command after the other.
    for _ in 0..64 {
        client.send(&Request::Spawn {
            spawn: sh("echo x"),
        });
        assert!(matches!(client.event(), Event::Started { .. }));
        client.rest().expect_code(0);
    }
    let report = world
        .address
        .attach(first, Position::Cursor { at: 0 })
        .rest()
        .expect_code(3);
    assert_eq!((report.lost, report.stdout.len()), (6, 0));
    let report = world
        .address
        .attach(first + 1, Position::Cursor { at: 0 })
        .rest()
        .expect_code(0);
    assert_eq!((report.lost, report.out().as_str()), (0, "x\n"));
    for _ in 0..1024 {
        client.send(&Request::Spawn {
            spawn: command(&["true"]),
        });
        assert!(matches!(client.event(), Event::Started { .. }));
        client.rest().expect_code(0);
    }
    let gone = Request::Attach {
        process: first,
        from: Position::Now {},
    };
    assert!(matches!(
        world.address.ask(&gone),
        Event::Failed {
            failure: Failure::NotFound {},
            ..
        }
    ));
}

#[test]
fn a_background_child_that_holds_the_pipe_delays_nothing_and_lives_on() {
    let world = World::new();
    let script = "(read x < /tmp/go; head -c 500000 /dev/zero; echo survived > /tmp/log) & echo main; exit 2";
    world.address.sh("mkfifo /tmp/go").expect_code(0);
    let report = world.address.sh(script).expect_code(2);
    assert_eq!(report.out(), "main\n");
    // Its output goes nowhere, but it neither waits nor gets SIGPIPE.
    let go = "echo > /tmp/go; while ! grep -s survived /tmp/log; do :; done";
    assert_eq!(world.address.sh(go).expect_code(0).out(), "survived\n");
}

#[test]
fn what_a_command_wrote_before_its_end_is_never_cut() {
    let world = World::new();
    for size in [1, 65_536, 300_000, 1_500_000] {
        // The child keeps the pipe open and goes on writing.
        let script = format!("yes >&2 & head -c {size} /dev/zero; kill -9 $!; exit 4");
        let report = world.address.sh(&script).expect_code(4);
        assert_eq!(report.stdout.len(), size);
    }
}

#[test]
fn a_command_that_ends_while_its_reader_sleeps_is_not_cut_either() {
    let world = World::new();
    let (client, process, _) = world.address.spawn(sh("head -c 1200000 /dev/zero; exit 4"));
    // More than the ring: the rest is in the pipe, and the main process is gone.
    world.address.wait_for_output(process, MIB);
    let report = client.rest().expect_code(4);
    assert_eq!((report.stdout.len(), report.lost), (1_200_000, 0));
}

#[test]
fn the_output_of_ended_commands_is_bounded_in_all() {
    let world = World::new();
    let client = world.address.connect();
    let commands = 10;
    for _ in 0..commands {
        client.send(&Request::Spawn {
            spawn: sh("head -c 1100000 /dev/zero"),
        });
        assert!(matches!(client.event(), Event::Started { .. }));
        client.rest().expect_code(0);
    }
    let kept = (1..=commands).map(|process| {
        let report = world.address.attach(process, Position::Cursor { at: 0 });
        let report = report.rest().expect_code(0);
        assert_eq!(report.lost + report.stdout.len() as u64, 1_100_000);
        report.stdout.len() as u64
    });
    // The oldest went first.
    let kept: Vec<u64> = kept.collect();
    assert!(kept.is_sorted());
    assert!(
        kept.iter().sum::<u64>() <= 8 * MIB && kept[4..].iter().all(|bytes| *bytes == MIB),
        "{kept:?}"
    );
}
