//! Terminals: echo, size, end of input, the keys that send signals, and their end.

use sandbox_agent::protocol::agent::{Event, Exit, Failure, Request, Spawn, stream};

use crate::client::sh;
use crate::world::World;

fn terminal(script: &str) -> Spawn {
    Spawn {
        pty: Some((24, 80)),
        ..sh(script)
    }
}

#[test]
fn a_terminal_echoes_and_ends_its_input() {
    let world = World::new();
    let (client, ..) = world.address.spawn(terminal(
        "echo $TERM; test -t 0 -a -t 1 -a -t 2 && tty; cat; echo end",
    ));
    let report = client.until(|report| report.screen().ends_with("/dev/pts/0\r\n"));
    assert!(
        report.screen().starts_with("xterm-256color\r\n"),
        "{report:?}"
    );
    client.type_in(b"hello\n");
    let report = client.until(|report| report.terminal.len() >= 14);
    assert_eq!(report.screen(), "hello\r\nhello\r\n");
    assert_eq!(report.order, [stream::PTY]);
    client.send(&Request::CloseStdin {});
    assert_eq!(client.rest().expect_code(0).screen(), "end\r\n");
}

#[test]
fn a_terminal_has_the_size_it_is_given() {
    let world = World::new();
    let script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.01; done";
    let (client, process, _) = world.address.spawn(terminal(script));
    client.until(|report| report.screen() == "24 80\r\n");
    let resize = Request::Resize {
        process,
        rows: 50,
        columns: 132,
    };
    assert_eq!(world.address.ask(&resize), Event::Done {});
    client.until(|report| report.screen() == "50 132\r\n");
    // Ctrl-C goes to the program in the foreground.
    client.type_in(b"\x03");
    assert_eq!(
        client.rest().exit,
        Some(Exit::Signal {
            signal: libc::SIGINT
        })
    );
    assert!(matches!(
        world.address.ask(&resize),
        Event::Failed {
            failure: Failure::State {},
            ..
        }
    ));
    let (_client, process, _) = world.address.spawn(sh("sleep 1000"));
    let resize = Request::Resize {
        process,
        rows: 1,
        columns: 1,
    };
    assert!(matches!(
        world.address.ask(&resize),
        Event::Failed {
            failure: Failure::State {},
            ..
        }
    ));
}

#[test]
fn a_terminal_belongs_to_its_user() {
    let world = World::new();
    let report = world
        .address
        .run(terminal(
            "stat -c %U $(tty); echo again > $(tty); echo here > /dev/tty",
        ))
        .expect_code(0);
    assert_eq!(report.screen(), "user\r\nagain\r\nhere\r\n");
}

#[test]
fn a_terminal_lives_as_long_as_its_command() {
    let world = World::new();
    // Nobody has it open for a while.
    let script = "t=$(tty); exec <&- >&- 2>&-; sleep 0.1; echo still here > $t; exit 6";
    assert_eq!(
        world.address.run(terminal(script)).expect_code(6).screen(),
        "still here\r\n"
    );
    let report = world
        .address
        .run(terminal("seq 1 20000; exit 7"))
        .expect_code(7);
    assert!(report.screen().ends_with("19999\r\n20000\r\n"));
    assert_eq!(report.screen().lines().count(), 20000);
}

#[test]
fn a_background_child_does_not_hold_a_terminal_open() {
    let world = World::new();
    let script = "(trap '' HUP; sleep 1000) & echo main; exit 3";
    assert_eq!(
        world.address.run(terminal(script)).expect_code(3).screen(),
        "main\r\n"
    );
}
