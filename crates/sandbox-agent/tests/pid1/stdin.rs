//! Standard input: closed, open, full, and read by nobody.

use sandbox_agent::protocol::agent::{Event, Request, Spawn};

use crate::client::{command, sh};
use crate::world::World;

fn open(spawn: Spawn) -> Spawn {
    Spawn {
        stdin: true,
        ..spawn
    }
}

#[test]
fn without_standard_input_there_is_nothing_to_read() {
    let world = World::new();
    assert_eq!(world.address.sh("cat; echo $?").expect_code(0).out(), "0\n");
    let (client, ..) = world.address.spawn(sh("read x; echo $?; sleep 1000"));
    client.type_in(b"nobody reads this\n");
    let report = client.until(|report| report.stdin_closed > 0 && !report.stdout.is_empty());
    assert_eq!((report.out().as_str(), report.stdin_closed), ("1\n", 1));
}

#[test]
fn what_is_typed_arrives_and_ends() {
    let world = World::new();
    let (client, ..) = world.address.spawn(open(command(&["/bin/cat"])));
    client.type_in(b"hello ");
    client.type_in(b"");
    client.type_in(b"world");
    let report = client.until(|report| report.stdout.len() == 11);
    assert_eq!(report.out(), "hello world");
    client.send(&Request::CloseStdin {});
    let report = client.rest().expect_code(0);
    assert_eq!((report.stdout.len(), report.stdin_closed), (0, 0));
}

#[test]
fn input_that_nobody_reads_yet_waits_and_holds_up_nobody_else() {
    let world = World::new();
    world.address.sh("mkfifo /tmp/go").expect_code(0);
    let (client, ..) = world.address.spawn(open(sh("read x < /tmp/go; wc -c")));
    // Far more than pipe and socket hold: the sender has to wait until the program reads.
    let sender = std::thread::spawn(move || {
        for _ in 0..100 {
            client.type_in(&[b'x'; 50_000]);
        }
        client.send(&Request::CloseStdin {});
        client
    });
    assert!(matches!(
        world.address.ask(&Request::List {}),
        Event::Processes { .. }
    ));
    world
        .address
        .sh("echo other; echo > /tmp/go")
        .expect_code(0);
    let report = sender.join().unwrap().rest();
    assert_eq!(report.expect_code(0).out().trim(), "5000000");
}

#[test]
fn the_writer_is_told_once_that_nobody_reads() {
    let world = World::new();
    let (client, process, _) = world
        .address
        .spawn(open(sh("exec <&-; echo closed; sleep 1000")));
    client.until(|report| report.out() == "closed\n");
    client.type_in(b"x");
    let report = client.until(|report| report.stdin_closed > 0);
    assert_eq!(report.stdin_closed, 1);
    client.type_in(b"y");
    client.send(&Request::CloseStdin {});
    client.type_in(b"z");
    let kill = Request::Signal {
        process,
        signal: libc::SIGKILL,
        tree: true,
    };
    assert_eq!(world.address.ask(&kill), Event::Done {});
    assert_eq!(client.rest().stdin_closed, 0);
}

#[test]
fn input_sent_before_leaving_still_arrives() {
    let world = World::new();
    world.address.sh("mkfifo /tmp/go").expect_code(0);
    let (client, process, _) = world.address.spawn(open(sh("read x < /tmp/go; wc -c")));
    client.type_in(&[b'x'; 60_000]);
    client.type_in(&[b'x'; 60_000]);
    client.send(&Request::CloseStdin {});
    drop(client);
    world.address.sh("echo > /tmp/go").expect_code(0);
    let position = sandbox_agent::protocol::agent::Position::Cursor { at: 0 };
    let report = world.address.attach(process, position).rest();
    assert_eq!(report.expect_code(0).out().trim(), "120000");
}

#[test]
fn a_reader_that_dies_with_both_ways_full_frees_the_program() {
    let world = World::new();
    let (client, process, _) = world.address.spawn(open(command(&["/bin/cat"])));
    // Neither side reads: cat waits for room in its output, and PID 1 for cat.
    let times = client.fill(&Request::Stdin {
        data: sandbox_agent::protocol::Blob(vec![b'x'; 60_000]),
    });
    assert!(times > 20);
    drop(client);
    world.address.wait_for_output(process, times * 60_000);
}
