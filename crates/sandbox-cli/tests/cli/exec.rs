//! `sandbox exec` without a terminal: streams, exit codes, options, and how a sandbox is named.

use crate::support::{Home, finish};
use std::{
    fs,
    io::{Read, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    process::{Command, Stdio},
    thread,
};

#[test]
fn a_command_has_its_streams_and_its_exit_code() {
    let home = Home::shared();
    let id = home.create(&[]);
    let outcome = home.sandbox(&[
        "exec",
        &id,
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    outcome.assert_code(7);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("out\n", "err\n")
    );
    let outcome = home.sandbox(&["exec", &id, "surely-not-there"]);
    outcome.assert_code(127);
    assert!(outcome.stderr.contains("surely-not-there"), "{outcome:?}");
    home.sandbox(&["exec", &id, "/etc/passwd"]).assert_code(126);
    let outcome = home.sandbox(&["exec", "--timeout", "0.2", &id, "sleep", "60"]);
    outcome.assert_code(124);
    assert!(outcome.stderr.contains("--timeout"), "{outcome:?}");
}

#[test]
fn standard_input_flows_through_both_ways_at_once() {
    const SIZE: usize = 24 << 20;
    let home = Home::shared();
    let id = home.create(&[]);
    let mut child = home
        .command(&["exec", &id, "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes: Vec<u8> = (0..SIZE).map(|at| ((at * at) >> 7) as u8).collect();
    let sent = bytes.clone();
    let writer = thread::spawn(move || stdin.write_all(&sent));
    let mut received = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut received)
        .unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(
        received == bytes,
        "{} of {SIZE} bytes came back",
        received.len()
    );
}

#[test]
fn an_input_that_cannot_be_read_is_said_unless_it_means_none() {
    let home = Home::shared();
    let id = home.create(&[]);
    let cat = |input: fs::File| {
        let mut command = home.command(&["exec", &id, "cat"]);
        finish(command.stdin(input).spawn().unwrap())
    };
    let outcome = cat(fs::File::open("/").unwrap());
    outcome.assert_refused("cannot read standard input: Is a directory");
    // As `nohup` does.
    let outcome = cat(fs::File::create("/dev/null").unwrap());
    assert_eq!((outcome.stderr.as_str(), outcome.code), ("", 0));
}

#[test]
fn streams_that_do_not_wait_are_waited_for() {
    let home = Home::shared();
    let id = home.create(&[]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    for stream in [reader.as_fd(), stdout.as_fd()] {
        rustix::io::ioctl_fionbio(stream, true).unwrap();
    }
    let script = "echo up; cat; yes | head -c 1000000";
    let mut command = home.command(&["exec", &id, "sh", "-c", script]);
    let child = command.stdin(reader).stdout(stdout).spawn().unwrap();
    drop(command);
    let mut start = [0; 3];
    output.read_exact(&mut start).unwrap();
    writer.write_all(b"late").unwrap();
    drop(writer);
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    finish(child).assert_code(0);
    assert_eq!((&start, &rest[..4]), (b"up\n", &b"late"[..]));
    assert_eq!(rest.len(), 1_000_004);
}

#[test]
fn options_reach_the_command() {
    let home = Home::shared();
    let id = home.create(&["--env", "BASE=1"]);
    let exec = |args: &[&str]| home.sandbox(&[&["exec"], args].concat()).ok();
    assert_eq!(exec(&["--user", "root", &id, "id", "-u"]), "0\n");
    assert_eq!(exec(&["-w", "/usr", &id, "--", "pwd"]), "/usr\n");
    assert_eq!(
        exec(&["-e", "A=b c", &id, "sh", "-c", "echo $A $BASE"]),
        "b c 1\n"
    );
    assert_eq!(exec(&[&id, "pwd"]), "/home/user\n");
    home.sandbox(&["exec", "-w", "/nowhere", &id, "pwd"])
        .assert_refused("/nowhere");
    home.sandbox(&["exec", "--user", "nobody-knows", &id, "pwd"])
        .assert_refused("nobody-knows");
}

#[test]
fn a_sandbox_goes_by_id_start_of_id_or_name() {
    let home = Home::own();
    let id = home.create(&["--name", "build"]);
    for text in [id.as_str(), &id[..5], "build"] {
        assert_eq!(home.sandbox(&["exec", text, "echo", "x"]).ok(), "x\n");
    }
    home.sandbox(&["exec", "other", "true"])
        .assert_refused("no sandbox \"other\"");
    home.sandbox(&["exec", "", "true"]).assert_refused("empty");
    home.sandbox(&["create", "--name", "build"])
        .assert_refused("build");
    home.sandbox(&["create", "--name", &id])
        .assert_refused("must not look like an id");
    home.sandbox(&["create", "--name", "a/b"])
        .assert_refused("letters");
}

#[test]
fn empty_and_enormous_arguments_are_refused_or_taken_as_they_are() {
    let home = Home::shared();
    let id = home.create(&[]);
    home.sandbox(&["exec", &id, ""]).assert_refused("program");
    home.sandbox(&["exec", "-w", "", &id, "pwd"])
        .assert_refused("working directory");
    home.sandbox(&["exec", "-u", "", &id, "pwd"])
        .assert_refused("user");
    let long = "x".repeat(100_000);
    assert_eq!(
        home.sandbox(&["exec", &id, "printf", "%s", &long]).ok(),
        long
    );
    assert_eq!(
        home.sandbox(&[
            "exec", &id, "printf", "[%s]", "", "a\nb
"
        ])
        .ok(),
        "[][a\nb
]"
    );
    home.sandbox(&["create", "--lifetime", "99y"])
        .assert_refused("lifetime");
    home.sandbox(&["create", "--memory", "1"])
        .assert_refused("memory");
    home.sandbox(&["cp", &format!("{id}:{}", "a".repeat(5000)), "x"])
        .assert_refused("4095 bytes");
}

#[test]
fn ordinary_users_get_sandboxes_too_and_are_told_what_these_lack() {
    // The build's own directory may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (copy, home) = (
        directory.path().join("sandbox"),
        directory.path().join("home"),
    );
    fs::copy(env!("CARGO_BIN_EXE_sandbox"), &copy).unwrap();
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    // Other tests mount something below /usr for a while, which ordinary users could make no overlay of.
    let as_nobody = "umount --lazy /usr/share/sandbox-test-covered 2>/dev/null
        exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
    let run = |args: &[&str]| {
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .args([as_nobody, "sh"])
            .arg(&copy)
            .env("HOME", &home)
            .env_remove("XDG_STATE_HOME")
            .env_remove("SANDBOX_STATE_DIR")
            .args(args)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = run(&["run", "-c", "import os; print(os.getuid(), os.getcwd())"]);
    assert_eq!((code, text.as_str()), (0, "1000 /home/user\n"));
    assert!(home.join(".local/state/sandbox").is_dir());
    let (code, id) = run(&["create"]);
    assert_eq!(code, 0, "{id}");
    let (code, text) = run(&["exec", "--user", "root", id.trim(), "id"]);
    assert!(
        code == 125 && text.contains("ordinary user"),
        "{code}: {text}"
    );
    assert_eq!(run(&["kill", id.trim()]).0, 0);
    let (code, text) = run(&["run", "--memory", "1g", "-c", ""]);
    assert!(
        code == 125 && text.contains("limit on memory"),
        "{code}: {text}"
    );
    let (code, text) = run(&["doctor"]);
    assert!(code == 0 && text.contains("! root"), "{code}: {text}");
    let (code, text) = run(&["--state-dir", "/proc/none", "run", "-c", ""]);
    assert!(
        code == 125 && text.contains("SANDBOX_STATE_DIR"),
        "{code}: {text}"
    );
}

#[test]
fn a_shell_without_a_terminal_says_what_to_use() {
    Home::shared()
        .sandbox(&["shell", "x"])
        .assert_refused("sandbox exec x -- sh");
}
