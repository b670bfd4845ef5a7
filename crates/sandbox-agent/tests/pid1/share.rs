//! Readers that fetch much output from the memory of the ring by themselves.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use sandbox_agent::protocol::agent::{Event, Exit, Failure, Position, Request, Spawn, shared};

use crate::client::{Client, command, sh};
use crate::world::World;

const MIB: u64 = 1024 * 1024;

/// A program that counts in lines of ten bytes.
fn count_to(lines: u64) -> Spawn {
    command(&["seq", "-f", "%09.0f", "0", &(lines - 1).to_string()])
}

/// What it writes.
fn counted(bytes: std::ops::Range<u64>) -> Vec<u8> {
    let lines = bytes.start / 10..bytes.end.div_ceil(10);
    let all: String = lines.map(|line| format!("{line:09}\n")).collect();
    let skip = (bytes.start % 10) as usize;
    all.as_bytes()[skip..skip + (bytes.end - bytes.start) as usize].to_vec()
}

/// Asks for the memory, and reads nothing before PID 1 knows. What came before the answer is returned with it.
fn share(world: &World, client: &Client) -> (File, Vec<Event>) {
    client.send(&Request::Share {});
    // Older connections have their turn first.
    world.address.ask(&Request::List {});
    let mut before = Vec::new();
    loop {
        let (event, mut fds) = client.receive().expect("PID 1 has closed the connection");
        match event {
            Event::Shared {} => {
                assert_eq!(fds.len(), 1);
                return (fds.remove(0).into(), before);
            }
            other => before.push(other),
        }
    }
}

/// What a reader has collected.
#[derive(Debug, Default)]
struct Collected {
    bytes: Vec<u8>,
    cursor: u64,
    fetched: u64,
    exit: Option<Exit>,
}

impl Collected {
    fn add(&mut self, event: Event, memory: &File) {
        match event {
            Event::Output { at, data, .. } => {
                assert_eq!(at, self.cursor);
                self.cursor += data.0.len() as u64;
                self.bytes.extend(data.0);
            }
            Event::Kept { at, len, .. } => {
                assert_eq!(at, self.cursor);
                assert!(len as usize <= shared::MAX_KEPT);
                self.cursor += u64::from(len);
                self.fetched += u64::from(len);
                self.bytes.extend(fetch(memory, at, len));
                assert!(oldest(memory) <= at, "the program did not wait");
            }
            Event::Exited { exit, at } => {
                assert_eq!(at, self.cursor);
                self.exit = Some(exit);
            }
            other => panic!("unexpected event: {other:?}"),
        }
    }
}

fn fetch(memory: &File, at: u64, len: u32) -> Vec<u8> {
    let byte = |at: u64| at % shared::LEN as u64;
    let first = (shared::LEN as u64 - byte(at)).min(len.into());
    let mut bytes = vec![0; len as usize];
    let (head, tail) = bytes.split_at_mut(first as usize);
    memory.read_exact_at(head, byte(at)).unwrap();
    memory.read_exact_at(tail, 0).unwrap();
    bytes
}

fn oldest(memory: &File) -> u64 {
    let mut bytes = [0; 8];
    memory
        .read_exact_at(&mut bytes, shared::OLDEST as u64)
        .unwrap();
    u64::from_le_bytes(bytes)
}

#[test]
fn a_sole_foreground_reader_loses_nothing_and_the_program_waits_for_what_it_takes() {
    let world = World::new();
    let total = 24 * MIB / 10 * 10;
    let (client, process, _) = world.address.spawn(count_to(total / 10));
    let (memory, before) = share(&world, &client);
    let mut collected = Collected::default();
    for event in before {
        collected.add(event, &memory);
    }
    // All that is told is read, and nothing is taken: the program waits.
    while collected.cursor < MIB {
        collected.add(client.event(), &memory);
    }
    world.address.wait_until(process, |entry| {
        entry.cursor >= MIB && entry.cursor <= 2 * MIB && entry.exit.is_none()
    });
    while collected.exit.is_none() {
        client.send(&Request::Taken {
            at: collected.cursor,
        });
        collected.add(client.event(), &memory);
    }
    assert_eq!(collected.exit, Some(Exit::Code { code: 0 }));
    assert!(collected.fetched > MIB, "{} of {total}", collected.fetched);
    assert!(collected.bytes == counted(0..total));
    // What comes late for the command that has ended is passed over.
    client.send(&Request::Taken { at: 1 });
    client.send(&Request::Share {});
    assert!(matches!(
        client.ask(&Request::List {}),
        Event::Processes { .. }
    ));
}

#[test]
fn a_slow_reader_among_others_finds_out_what_was_overwritten() {
    let world = World::new();
    let (first, total) = (900_000, 8 * MIB / 10 * 10);
    let count = |from, to| format!("seq -f %09.0f {} {}", from / 10, to / 10 - 1);
    let script = format!("{}; read x; {}", count(0, first), count(first, total));
    let (spawner, process, _) = world.address.spawn(Spawn {
        stdin: true,
        ..sh(&script)
    });
    world.address.wait_for_output(process, first);
    let slow = world.address.attach(process, Position::Cursor { at: 0 });
    let (memory, before) = share(&world, &slow);
    let mut cursor: u64 = before.iter().map(output_len).sum();
    let mut told = Vec::new();
    while cursor < first {
        let event = slow.event();
        cursor += output_len(&event);
        if let Event::Kept { at, len, .. } = event {
            told.push((at, len));
        }
    }
    assert!(!told.is_empty());
    // It does not fetch what it was told, and stops nobody.
    spawner.type_in(b"\n");
    spawner.rest().expect_code(0);
    let oldest = oldest(&memory);
    assert!(
        (total - MIB - 64 * 1024..total).contains(&oldest),
        "{oldest}"
    );
    assert!(told.iter().all(|(at, len)| at + u64::from(*len) <= oldest));
    while cursor < total {
        let event = slow.event();
        if let Event::Kept { at, len, .. } = event
            && at >= oldest
        {
            assert!(fetch(&memory, at, len) == counted(at..at + u64::from(len)));
        }
        cursor += output_len(&event);
    }
    assert!(matches!(slow.event(), Event::Exited { at, .. } if at == total));
}

/// How much output an event is about.
fn output_len(event: &Event) -> u64 {
    match event {
        Event::Output { data, .. } => data.0.len() as u64,
        Event::Kept { len, .. } => u64::from(*len),
        Event::Lost { bytes } => *bytes,
        other => panic!("unexpected event: {other:?}"),
    }
}

#[test]
fn two_share_one_memory_and_a_late_one_finds_what_is_kept() {
    let world = World::new();
    let total = 600_000;
    let (client, process, _) = world.address.spawn(Spawn {
        stdin: true,
        ..sh(&format!("seq -f %09.0f 0 {}; read x", total / 10 - 1))
    });
    world.address.wait_for_output(process, total);
    for reader in [
        client,
        world.address.attach(process, Position::Cursor { at: 0 }),
    ] {
        let (memory, _) = share(&world, &reader);
        assert!(fetch(&memory, 0, total as u32) == counted(0..total));
        assert_eq!(oldest(&memory), 0);
    }
}

#[test]
fn what_waits_for_standard_input_does_not_hold_up_the_reader() {
    let world = World::new();
    let total = 4 * MIB / 10 * 10;
    let script = format!("seq -f %09.0f 0 {}; exec wc -c", total / 10 - 1);
    let (client, process, _) = world.address.spawn(Spawn {
        stdin: true,
        ..sh(&script)
    });
    let (memory, before) = share(&world, &client);
    let input = world.address.connect();
    let from = Position::Nothing {};
    assert!(matches!(
        input.ask(&Request::Attach { process, from }),
        Event::Started { .. }
    ));
    // More than the pipe holds, while the program waits for its output to be taken.
    input.type_in(&vec![b'x'; 500_000]);
    input.send(&Request::CloseStdin {});
    let mut collected = Collected::default();
    for event in before {
        collected.add(event, &memory);
    }
    while collected.exit.is_none() {
        client.send(&Request::Taken {
            at: collected.cursor,
        });
        collected.add(client.event(), &memory);
    }
    assert!(collected.bytes.ends_with(b"\n500000\n"));
    assert!(collected.bytes[..total as usize] == counted(0..total));
}

#[test]
fn what_makes_no_sense_closes_the_connection_only() {
    let world = World::new();
    let data = sandbox_agent::protocol::Blob(b"x".to_vec());
    let sleep = Spawn {
        stdin: true,
        ..sh("sleep 1000")
    };
    for wrong in [
        Request::Share {},
        Request::Stdin { data },
        Request::CloseStdin {},
        Request::Taken { at: 1 },
    ] {
        let (client, _, _) = world.address.spawn(sleep.clone());
        share(&world, &client);
        match client.ask(&wrong) {
            Event::Failed { failure, .. } => assert_eq!(failure, Failure::Invalid {}),
            other => panic!("{wrong:?}: {other:?}"),
        }
        assert!(client.is_closed(), "{wrong:?}");
    }
    let (unshared, _, _) = world.address.spawn(sleep);
    unshared.send(&Request::Taken { at: 0 });
    assert!(unshared.is_closed());
    for request in [Request::Share {}, Request::Taken { at: 0 }] {
        let client = world.address.connect();
        client.send(&request);
        assert!(client.is_closed(), "{request:?}");
    }
}
