//! Commands that look at a sandbox and at what runs in it: `inspect`, `logs`, `attach`; and what starts it.

use crate::support::{Home, Talk, finish, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// A command that prints a line, and another one when there is a file `go`.
const WAITS: &str =
    "echo before; echo aside >&2; while ! test -e go; do :; done; echo after; exit 3";

fn detach(home: &Home, id: &str, script: &str) -> String {
    let number = home
        .sandbox(&["exec", "--detach", id, "--", "sh", "-c", script])
        .ok();
    number.trim_end().to_owned()
}

fn go(home: &Home, id: &str) {
    home.sandbox(&["exec", id, "--", "touch", "go"]).ok();
}

/// What `inspect --json` knows of a command.
fn command(home: &Home, id: &str, number: &str) -> Value {
    let all = home.sandbox(&["inspect", "--json", id]).json();
    let commands = all[0]["commands"].as_array().unwrap().clone();
    let found = commands
        .into_iter()
        .find(|command| command["number"] == number);
    found.unwrap()
}

fn printed(home: &Home, id: &str, number: &str, line: &str) {
    wait_for(line, || {
        home.sandbox(&["logs", id, number]).ok().contains(line)
    });
}

#[test]
fn inspect_shows_what_a_sandbox_is_and_what_runs_in_it() {
    let home = Home::shared();
    let id = home.create(&["--memory", "512M", "--metadata", "job=nightly"]);
    home.sandbox(&["exec", &id, "--", "sh", "-c", "exit 7"])
        .assert_code(7);
    let number = detach(&home, &id, "exec sleep 1000");
    let text = home.sandbox(&["inspect", &id]).ok();
    for words in [
        &id,
        "running",
        "512.0 MiB of memory",
        "job=nightly",
        "sleep 1000",
        "exit code 7",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let all = home.sandbox(&["inspect", "--json", &id]).json();
    let sandbox = &all[0];
    assert_eq!(sandbox["id"], id);
    assert_eq!(sandbox["limits"]["memory"], 512 << 20);
    let wall = |name| {
        let walls = sandbox["walls"].as_array().unwrap().iter();
        walls.filter(|wall| wall["name"] == name).count()
    };
    assert_eq!((wall("files"), wall("disk")), (1, 1));
    let running = command(&home, &id, &number);
    assert_eq!(running["exit_code"], Value::Null);
    assert_eq!(running["tty"], false);
    // One that is not there is named, and the others are shown.
    let some = home.sandbox(&["inspect", "--json", "nosuch", &id]);
    some.assert_code(125);
    assert!(some.stderr.contains("nosuch"), "{some:?}");
    let shown: Value = serde_json::from_str(&some.stdout).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 1);
}

#[test]
fn logs_print_what_was_kept_and_follow_to_the_end() {
    let home = Home::shared();
    let id = home.create(&[]);
    assert_eq!(home.sandbox(&["logs", &id]).ok(), "");
    let number = detach(&home, &id, WAITS);
    printed(&home, &id, &number, "before");
    let now = home.sandbox(&["logs", &id, &number]);
    assert_eq!(
        (now.stdout.as_str(), now.stderr.as_str()),
        ("before\n", "aside\n")
    );
    // Two commands: lines say whose they are, and nobody's bytes get among another's.
    home.sandbox(&["exec", &id, "--", "printf", "x\r[9] no end"])
        .ok();
    let all = home.sandbox(&["logs", &id]);
    assert_eq!(
        all.stdout,
        format!("[{number}] before\n[2] x\n[2] [9] no end\n")
    );
    assert_eq!(all.stderr, format!("[{number}] aside\n"));
    let follower = home
        .command(&["logs", "--follow", "--json", &id])
        .spawn()
        .unwrap();
    go(&home, &id);
    let lines = finish(follower).ok();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |stream: &str| {
        let lines = lines.iter();
        let lines = lines.filter(|line| line["stream"] == stream && line["command"] == *number);
        lines
            .map(|line| line["text"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("stdout"), ["before", "after"]);
    assert_eq!(of("stderr"), ["aside"]);
    let wrong = home.sandbox(&["logs", &id, "99"]);
    wrong.assert_refused("knows no command 99");
}

#[test]
fn logs_say_what_is_not_kept() {
    let home = Home::shared();
    let id = home.create(&[]);
    let number = detach(
        &home,
        &id,
        "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end",
    );
    wait_for("the end of the command", || {
        command(&home, &id, &number)["exit_code"] == 0
    });
    let logs = home.sandbox(&["logs", &id]);
    assert!(
        logs.stderr.contains("bytes of command 1 are not kept"),
        "{:?}",
        logs.stderr
    );
    assert!(logs.stdout.ends_with("x\nend\n"));
    assert_eq!(logs.stdout.len(), 1 << 20);
}

#[test]
fn attach_joins_a_command_until_its_end() {
    let home = Home::shared();
    let id = home.create(&[]);
    home.sandbox(&["attach", &id])
        .assert_refused("no command runs in it");
    let number = detach(&home, &id, WAITS);
    printed(&home, &id, &number, "before");
    let mut joined = Talk::start(home.command(&["attach", "--replay", &id]));
    assert_eq!(joined.line(), "before");
    go(&home, &id);
    let outcome = joined.finish();
    outcome.assert_code(3);
    assert_eq!(outcome.stdout, "after\n");
    assert_eq!(outcome.stderr, "aside\n");
    home.sandbox(&["attach", &id, &number])
        .assert_refused("has ended");
    home.sandbox(&["attach", &id, "99"])
        .assert_refused("knows no command 99");
}

#[test]
fn who_was_joined_lives_on_when_the_other_is_told_to_end() {
    let home = Home::shared();
    let id = home.create(&[]);
    let number = detach(&home, &id, WAITS);
    let joined = |args: &[&str]| {
        let mut joined = Talk::start(home.command(&[args, &["--replay", &id]].concat()));
        assert_eq!(joined.line(), "before");
        joined
    };
    for (signal, args, code) in [
        (Signal::TERM, &["attach"][..], 143),
        (Signal::HUP, &["attach"], 129),
        (Signal::INT, &["attach", "--no-stdin"], 130),
    ] {
        let joined = joined(args);
        joined.signal(signal);
        joined.finish().assert_code(code);
        assert_eq!(command(&home, &id, &number)["exit_code"], Value::Null);
    }
    // Ctrl-C without `--no-stdin` is for the command.
    let joined = joined(&["attach"]);
    joined.signal(Signal::INT);
    joined.finish().assert_code(130);
    assert_eq!(command(&home, &id, &number)["exit_code"], 130);
}

#[test]
fn a_project_comes_along_and_its_program_runs_in_it() {
    let home = Home::shared();
    let project = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(project.path().join(name), text).unwrap();
    std::fs::create_dir(project.path().join("src")).unwrap();
    write(
        "src/main.py",
        "import helper; print(helper.x, open('data.txt').read())",
    );
    write("src/helper.py", "x = 5");
    write("data.txt", "hi");
    let dir = project.path().to_str().unwrap();
    let run = |args: &[&str]| home.sandbox(&[&["run", "--dir", dir], args].concat());
    assert_eq!(run(&["src/main.py"]).ok(), "5 hi\n");
    assert_eq!(run(&["-c", "print(open('data.txt').read())"]).ok(), "hi\n");
    run(&["../main.py"]).assert_refused("is not written as a path in");
    run(&["/etc/passwd"]).assert_refused("is not written as a path in");
    run(&["src/none.py"]).assert_refused("No such file");
    write("main.py", "");
    run(&["-c", "1"]).assert_refused("take the place of main.py");
    let file = project.path().join("data.txt");
    let file = file.to_str().unwrap();
    home.sandbox(&["run", "--dir", file, "-c", "1"])
        .assert_refused("is no directory");
}

#[test]
fn shells_and_man_know_every_command() {
    let home = Home::shared();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.sandbox(&["completions", shell]).ok();
        for word in ["inspect", "attach", "state-dir", "no-stdin"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    home.sandbox(&["completions", "nosuch"]).assert_code(125);
    assert!(home.sandbox(&["man"]).ok().contains(".TH sandbox 1"));
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    home.sandbox(&["man", "--directory", pages.to_str().unwrap()])
        .ok();
    let page = std::fs::read_to_string(pages.join("sandbox-attach.1")).unwrap();
    assert!(
        page.contains("Join a command that runs in a sandbox"),
        "{page}"
    );
}

#[test]
fn logs_of_many_commands_need_few_descriptors() {
    let home = Home::shared();
    let id = home.create(&[]);
    for number in 1..=40 {
        home.sandbox(&["exec", &id, "--", "echo", &format!("line {number}")])
            .ok();
    }
    let few = ["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh"];
    for args in [&["logs", &id][..], &["logs", "--follow", &id]] {
        let printed = finish(home.command_by(&few, args).spawn().unwrap()).ok();
        assert_eq!(printed.lines().count(), 40, "{printed}");
        assert!(printed.ends_with("[40] line 40\n"), "{printed}");
    }
}
