//! Ends from outside: signals and readers that leave. Nothing may remain of a sandbox that is not to be kept.

use crate::support::{Home, Talk, wait_for};
use rustix::process::Signal;
use std::{io::Write, process::Stdio};

/// Prints a line and then waits for ever.
const WAITS: &str = "import time; print('up'); time.sleep(3600)";

fn only_record(home: &Home) -> String {
    let records = home.records();
    assert_eq!(records.len(), 1, "{records:?}");
    records[0].clone()
}

#[test]
fn a_signal_ends_run_and_its_sandbox() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let home = Home::own();
        // The tests themselves may run under `nohup`.
        let mut talk =
            Talk::start(home.command_by(&["env", "--default-signal"], &["run", "-c", WAITS]));
        assert_eq!(talk.line(), "up");
        let id = only_record(&home);
        talk.signal(signal);
        let outcome = talk.finish();
        outcome.assert_code(code);
        assert_eq!(outcome.stderr, "");
        home.assert_nothing_left(&id);
    }
}

#[test]
fn signals_that_were_ignored_before_stay_so() {
    let home = Home::shared();
    let id = home.create(&[]);
    let script = "echo up; read line; echo $line";
    for args in [
        &["exec", &id, "--", "sh", "-c", script][..],
        &["run", "--lang", "sh", "-c", script],
    ] {
        let ignoring = ["env", "--ignore-signal=HUP", "--default-signal=INT"];
        let mut talk = Talk::start(home.command_by(&ignoring, args));
        assert_eq!(talk.line(), "up");
        talk.signal(Signal::HUP);
        writeln!(talk.stdin, "still").unwrap();
        assert_eq!(talk.line(), "still");
        talk.finish().assert_code(0);
    }
}

#[test]
fn a_sandbox_ends_with_a_run_that_is_killed() {
    let home = Home::own();
    let mut talk = Talk::start(home.command(&["run", "-c", WAITS]));
    assert_eq!(talk.line(), "up");
    let id = only_record(&home);
    talk.signal(Signal::KILL);
    talk.finish().assert_code(-1);
    wait_for("the end of the sandbox", || {
        home.sandbox(&["ls", "-a", "--json"]).ok() == "[]\n"
    });
    home.sandbox(&["prune"]).assert_code(0);
    home.assert_nothing_left(&id);
}

#[test]
fn a_reader_that_leaves_ends_run_quietly() {
    let home = Home::own();
    let code = "while True: print('y' * 1000)";
    let mut talk = Talk::start(home.command(&["run", "-c", code]));
    assert_eq!(talk.line().len(), 1000);
    let id = only_record(&home);
    talk.close_stdout();
    let outcome = talk.finish();
    outcome.assert_code(141);
    assert_eq!(outcome.stderr, "");
    home.assert_nothing_left(&id);
}

#[test]
fn the_first_signal_goes_to_the_command_and_the_second_kills_it() {
    let home = Home::shared();
    let id = home.create(&[]);
    let script = "trap 'echo caught' INT; echo up; while :; do sleep 0.01; done";
    let mut talk = Talk::start(home.command(&["exec", &id, "--", "sh", "-c", script]));
    assert_eq!(talk.line(), "up");
    talk.signal(Signal::INT);
    assert_eq!(talk.line(), "caught");
    assert_eq!(home.running(&id, "echo caught"), 1);
    talk.signal(Signal::INT);
    talk.finish().assert_code(137);
    assert_eq!(home.running(&id, "echo caught"), 0);
}

#[test]
fn a_command_whose_sandbox_is_silent_can_be_left() {
    let home = Home::shared();
    let id = home.create(&[]);
    let mut talk = Talk::start(home.command(&["exec", &id, "--", "sh", "-c", "echo up; read x"]));
    assert_eq!(talk.line(), "up");
    home.silence(&id);
    // Signals that come at once count as one.
    wait_for("the end of the command", || {
        let has_ended = talk.child.try_wait().unwrap().is_some();
        if !has_ended {
            talk.signal(Signal::INT);
        }
        has_ended
    });
    talk.finish().assert_code(130);
}

#[test]
fn a_command_whose_sandbox_is_killed_says_so() {
    let home = Home::shared();
    let id = home.create(&[]);
    let mut talk = Talk::start(home.command(&["exec", &id, "--", "sh", "-c", "echo up; read x"]));
    assert_eq!(talk.line(), "up");
    home.sandbox(&["kill", &id]).assert_code(0);
    let outcome = talk.finish();
    outcome.assert_refused("sandbox");
    assert!(outcome.stderr.contains("hint: it was ended"), "{outcome:?}");
    home.assert_nothing_left(&id);
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let home = Home::shared();
    let id = home.create(&[]);
    let mut talk = Talk::start(home.command(&["exec", &id, "--", "yes", "once-more"]));
    assert_eq!(talk.line(), "once-more");
    talk.close_stdout();
    let outcome = talk.finish();
    outcome.assert_code(141);
    assert_eq!(outcome.stderr, "");
    assert_eq!(home.running(&id, "once-more"), 0);
}

#[test]
fn ctrl_c_during_a_kept_run_ends_the_program_and_keeps_the_sandbox() {
    let home = Home::own();
    let mut talk = Talk::start(home.command(&["run", "--keep", "-c", WAITS]));
    assert_eq!(talk.line(), "up");
    let id = only_record(&home);
    talk.signal(Signal::TERM);
    let outcome = talk.finish();
    outcome.assert_code(143);
    assert!(outcome.stderr.contains(&id), "{outcome:?}");
    assert_eq!(home.running(&id, "python3"), 0);
    home.sandbox(&["kill", &id]).assert_code(0);
    home.assert_nothing_left(&id);
}

#[test]
fn a_command_that_minds_a_signal_ends_by_it() {
    let home = Home::shared();
    let id = home.create(&[]);
    let script = "echo up; exec sleep 3600";
    let mut talk = Talk::start(home.command(&["exec", &id, "--", "sh", "-c", script]));
    assert_eq!(talk.line(), "up");
    talk.signal(Signal::TERM);
    talk.finish().assert_code(143);
}

#[test]
fn a_full_disk_under_standard_output_is_said() {
    let home = Home::shared();
    let mut command = home.command(&["run", "-c", "print('x')"]);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = command.stdout(Stdio::from(full)).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("cannot write to standard output"),
        "{stderr}"
    );
}

#[test]
fn a_program_that_does_not_read_is_no_reason_to_fail() {
    let home = Home::shared();
    let mut talk = Talk::start(home.command(&["run", "-c", "print('done')"]));
    // More than fits into any pipe on the way, so some of it stays unread.
    let block = vec![b'x'; 1 << 20];
    while talk.stdin.write_all(&block).is_ok() {}
    assert_eq!(talk.line(), "done");
    talk.finish().assert_code(0);
}
