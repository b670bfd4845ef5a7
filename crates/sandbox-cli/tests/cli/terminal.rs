//! What happens on a terminal: the command inside has one too, keys go to it, and ours is as before at the end.

use crate::support::{DEADLINE, Home};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal},
    pty::{self, OpenptFlags},
    termios::{self, LocalModes, Winsize},
};
use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// The command on a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    slave: File,
    seen: Arc<(Mutex<String>, Condvar)>,
}

impl Terminal {
    fn start(home: &Home, args: &[&str]) -> Self {
        let master =
            pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        pty::grantpt(&master).unwrap();
        pty::unlockpt(&master).unwrap();
        let name = pty::ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let master = File::from(master);
        resize(&master, 30, 100);
        // It makes the terminal the command's own, so that its keys become signals.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_sandbox")])
            .args(args)
            .env("SANDBOX_STATE_DIR", home.state())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        let seen = Arc::<(Mutex<String>, Condvar)>::default();
        let (mut reader, writer) = (master.try_clone().unwrap(), Arc::clone(&seen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let (text, changed) = &*writer;
                text.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..read]));
                changed.notify_all();
            }
        });
        Self {
            child,
            master,
            slave,
            seen,
        }
    }

    /// Waits until this has been printed, and forgets what was printed until then.
    #[track_caller]
    fn expect(&self, words: &str) -> String {
        let (text, changed) = &*self.seen;
        let missing = |text: &mut String| !text.contains(words);
        let (mut text, timeout) = changed
            .wait_timeout_while(text.lock().unwrap(), DEADLINE, missing)
            .unwrap();
        assert!(!timeout.timed_out(), "{words:?} did not come, but {text:?}");
        let end = text.find(words).unwrap() + words.len();
        text.drain(..end).collect()
    }

    fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end; the code, after it was checked that the terminal is as it was.
    #[track_caller]
    fn finish(mut self) -> i32 {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let modes = termios::tcgetattr(&self.slave).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        code
    }
}

fn resize(master: &File, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    termios::tcsetwinsize(master, size).unwrap();
}

#[test]
fn a_command_on_a_terminal_has_one_of_the_same_size() {
    let home = Home::shared();
    let id = home.create(&[]);
    let script = "test -t 0 && test -t 1 && stty size && echo $TERM && trap 'stty size; exit 9' WINCH && \
                  echo up && while :; do sleep 0.01; done";
    let terminal = Terminal::start(&home, &["exec", &id, "sh", "-c", script]);
    terminal.expect("30 100");
    terminal.expect("xterm");
    terminal.expect("up");
    resize(&terminal.master, 40, 120);
    terminal.expect("40 120");
    assert_eq!(terminal.finish(), 9);
}

#[test]
fn ctrl_c_goes_to_the_command_on_the_terminal() {
    let home = Home::shared();
    let id = home.create(&[]);
    let script = "trap 'echo caught; exit 5' INT; echo up; while :; do sleep 0.01; done";
    let mut terminal = Terminal::start(&home, &["exec", &id, "sh", "-c", script]);
    terminal.expect("up");
    terminal.keys("\x03");
    terminal.expect("caught");
    assert_eq!(terminal.finish(), 5);
}

#[test]
fn ctrl_c_ends_run_and_its_sandbox() {
    let home = Home::own();
    let mut terminal = Terminal::start(&home, &["run", "-c", "print('up'); input()"]);
    terminal.expect("sandbox ready in ");
    terminal.expect("up");
    let id = home.records().pop().unwrap();
    terminal.keys("\x03");
    assert_eq!(terminal.finish(), 130);
    home.assert_nothing_left(&id);
}

#[test]
fn a_program_can_be_run_on_a_terminal() {
    let home = Home::shared();
    let code = "import sys; print(sys.stdin.isatty(), sys.stdout.isatty()); print(input('? ') * 2)";
    let mut terminal = Terminal::start(&home, &["run", "--tty", "-c", code]);
    terminal.expect("True True");
    terminal.expect("? ");
    terminal.keys("ab\n");
    terminal.expect("abab");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn a_shell_runs_what_is_typed_and_ends_with_its_code() {
    let home = Home::shared();
    let id = home.create(&[]);
    let mut terminal = Terminal::start(&home, &["shell", &id]);
    terminal.keys("echo $((6 * 7))-$(whoami)\n");
    terminal.expect("42-user");
    terminal.keys("exit 4\n");
    assert_eq!(terminal.finish(), 4);
}

#[test]
fn the_terminal_is_restored_when_we_are_told_to_end() {
    // Some shells forget that they were told, and others were told not to care.
    for (prepare, codes) in [("", [129, 137]), ("trap '' HUP; ", [137, 137])] {
        told_to_end(prepare, codes);
    }
}

fn told_to_end(prepare: &str, codes: [i32; 2]) {
    let home = Home::shared();
    let id = home.create(&[]);
    let mut terminal = Terminal::start(&home, &["shell", &id]);
    terminal.keys(&format!("{prepare}echo $((40 + 2))up\n"));
    terminal.expect("42up");
    let raw = termios::tcgetattr(&terminal.slave).unwrap().local_modes;
    assert!(!raw.contains(LocalModes::ICANON));
    // `setsid` has become the command, without a process between.
    let pid = Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let code = terminal.finish();
    assert!(codes.contains(&code), "{code}");
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let home = Home::own();
    let id = home.create(&[]);
    let terminal = Terminal::start(&home, &["ls"]);
    let text = terminal.expect(&id);
    assert!(text.contains("\u{1b}[1mID"), "{text:?}");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn a_copy_shows_progress_and_a_summary() {
    let home = Home::shared();
    let id = home.create(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(5 << 20).unwrap();
    let source = file.path().to_str().unwrap();
    let terminal = Terminal::start(&home, &["cp", source, &format!("{id}:x")]);
    terminal.expect("copied 1 file, 5.00 MiB");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn two_keys_leave_a_command_that_was_joined() {
    let home = Home::shared();
    let id = home.create(&[]);
    let first = Terminal::start(&home, &["exec", "--tty", &id, "--", "cat"]);
    crate::support::wait_for("the command", || home.running(&id, "cat ") == 1);
    let mut second = Terminal::start(&home, &["attach", &id]);
    second.keys("hello\r");
    // Both see it: as it is typed, and as it comes back.
    for terminal in [&first, &second] {
        terminal.expect("hello");
        terminal.expect("hello");
    }
    second.keys("\u{10}\u{11}");
    second.expect("runs on");
    assert_eq!(second.finish(), 0);
    let mut first = first;
    first.keys("still there\r");
    first.expect("still there");
    first.keys("\u{4}");
    assert_eq!(first.finish(), 0);
}
