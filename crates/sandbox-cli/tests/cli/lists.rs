//! `create`, `ls`, `kill`, `prune`, `doctor`: what they print, for people and for programs.

use crate::support::{Home, Talk, finish, wait_for};
use serde_json::Value;
use std::{fs, time::Instant};

/// How far a wall of a report holds.
fn enforcement<'a>(report: &'a Value, name: &str) -> &'a str {
    let walls = report["enforcement"].as_array().unwrap();
    let mut walls = walls.iter().filter(|wall| wall["name"] == name);
    walls.next().unwrap()["enforcement"].as_str().unwrap()
}

/// What the part of jq that the examples use makes of `value`.
fn jq(program: &str, value: &Value) -> Vec<Value> {
    let mut values = vec![value.clone()];
    for step in program.split(" | ") {
        if let Some(condition) = step.strip_prefix("select(.") {
            let (key, text) = condition
                .strip_suffix("\")")
                .unwrap()
                .split_once(" != \"")
                .unwrap();
            values.retain(|value| value.get(key).expect(key) != text);
            continue;
        }
        for part in step.strip_prefix('.').unwrap().split_inclusive("[]") {
            let key = part.trim_end_matches("[]").trim_start_matches('.');
            if !key.is_empty() {
                values = values
                    .iter()
                    .map(|value| value.get(key).expect(key).clone())
                    .collect();
            }
            if part.ends_with("[]") {
                values = values
                    .iter()
                    .flat_map(|value| value.as_array().unwrap().clone())
                    .collect();
            }
        }
    }
    values
}

#[test]
fn the_examples_of_the_help_find_what_they_look_for() {
    let home = Home::own();
    let id = home.create(&["--metadata", "job=nightly"]);
    home.create(&["--metadata", "job=other"]);
    let results = |name: &str| -> Vec<Vec<Value>> {
        let help = home.sandbox(&[name, "--help"]).ok();
        let lines = help.lines().filter_map(|line| {
            let line = line.trim().strip_prefix("sandbox ")?;
            line.split_once(" | jq ")
        });
        let run = |(command, program): (&str, &str)| {
            let words: Vec<_> = command.split(' ').collect();
            let program = program.trim_start_matches("-r ").trim_matches('\'');
            jq(program, &home.sandbox(&words).json())
        };
        lines.map(run).collect()
    };
    assert_eq!(results("ls"), [[Value::from(id)]]);
    let [made] = &results("create")[..] else {
        panic!("`create` was to have one such example");
    };
    let made = made[0].as_str().unwrap();
    assert_eq!(home.sandbox(&["kill", made]).ok(), format!("{made}\n"));
    // On a machine that lacks nothing no check is shown.
    let [checks] = &results("doctor")[..] else {
        panic!("`doctor` was to have one such example");
    };
    assert!(
        checks.iter().all(|check| check["fix"].is_string()),
        "{checks:?}"
    );
}

#[test]
fn a_sandbox_is_listed_from_create_to_kill() {
    let home = Home::own();
    let made = home
        .sandbox(&[
            "create",
            "--json",
            "--name",
            "build",
            "--metadata",
            "job=x",
            "--cpus",
            "0.5",
            "--lifetime",
            "2d",
        ])
        .json();
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["name"], "build");
    assert_eq!(made["ownership"], "detached");
    assert_eq!(made["limits"]["cpus"], 0.5);
    assert_eq!(made["metadata"]["job"], "x");
    assert_eq!(enforcement(&made, "cpus"), "enforced");
    assert_eq!(enforcement(&made, "disk"), "not_enforced");

    let table = home.sandbox(&["ls"]).ok();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.starts_with("ID "), "{table}");
    for word in [id, "build", "running", "host", "in 1d 23h", "job=x"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert!(!table.contains('\u{1b}'));
    let listed = home.sandbox(&["ls", "--json"]).json();
    assert_eq!(listed[0]["id"], id);
    assert_eq!(listed[0]["created_at"], made["created_at"]);
    assert_eq!(
        home.sandbox(&["ls", "-q", "--metadata", "job=x"]).ok(),
        format!("{id}\n")
    );
    assert_eq!(home.sandbox(&["ls", "-q", "--metadata", "job=y"]).ok(), "");

    let killed = home.sandbox(&["kill", "--json", "build"]).json();
    assert_eq!(killed["killed"][0], id);
    home.assert_nothing_left(id);
    let outcome = home.sandbox(&["ls"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    assert_eq!(home.sandbox(&["ls", "--json"]).ok(), "[]\n");
    home.sandbox(&["kill", id]).assert_refused("no sandbox");
}

#[test]
fn a_paused_sandbox_is_listed_as_such_and_goes_on_when_it_is_resumed() {
    let home = Home::own();
    let id = home.create(&["--name", "build"]);
    assert_eq!(home.sandbox(&["pause", "build"]).ok(), format!("{id}\n"));
    let listed = home.sandbox(&["ls", "--json"]).json();
    assert_eq!(listed[0]["state"], "paused");
    assert!(home.sandbox(&["ls"]).ok().contains("paused"));
    home.sandbox(&["exec", &id, "true"])
        .assert_refused("the sandbox is paused");
    let outcome = home.sandbox(&["resume", "nobody", &id]);
    outcome.assert_code(125);
    assert_eq!(outcome.stdout, format!("{id}\n"));
    assert!(outcome.stderr.contains("nobody"), "{outcome:?}");
    assert_eq!(home.sandbox(&["exec", &id, "echo", "on"]).ok(), "on\n");
    home.sandbox(&["pause", &id]).ok();
    assert_eq!(home.sandbox(&["kill", &id]).ok(), format!("{id}\n"));
    home.assert_nothing_left(&id);
}

#[test]
fn what_a_sandbox_uses_is_shown() {
    let home = Home::own();
    let id = home.create(&["--name", "build"]);
    let table = home.sandbox(&["stats", "--once"]).ok();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.starts_with("ID ") && table.contains(&id), "{table}");
    assert!(table.contains("MiB") || table.contains("KiB"), "{table}");
    let rows = home.sandbox(&["stats", "--once", "--json", "build"]).json();
    assert_eq!(rows[0]["id"], id);
    assert_eq!(rows[0]["processes"], 0);
    assert!(
        rows[0]["cpu_seconds"]
            .as_f64()
            .is_some_and(|used| used > 0.0)
    );
    home.sandbox(&["stats", "--once", "nobody"])
        .assert_refused("no sandbox");
    // Without `--once` it goes on, with those that are left.
    let other = home.create(&[]);
    let mut talk = Talk::start(home.command(&["stats", "--json", &other, "build"]));
    let first: Value = serde_json::from_str(&talk.line()).unwrap();
    assert_eq!(first.as_array().unwrap().len(), 2);
    home.sandbox(&["kill", &other]).ok();
    while serde_json::from_str::<Value>(&talk.line()).unwrap()[0]["id"] != id {}
    for _ in 0..2 {
        let rows: Value = serde_json::from_str(&talk.line()).unwrap();
        assert_eq!(rows[0]["id"], id);
    }
    talk.signal(rustix::process::Signal::INT);
    talk.finish().assert_code(130);
}

#[test]
fn a_sandbox_can_be_paused_by_its_own_clock() {
    let home = Home::own();
    for end in [["--idle-timeout", "1s"], ["--lifetime", "1s"]] {
        let id = home.create(&[&end[..], &["--pause-at-end"]].concat());
        wait_for("the pause", || {
            let listed = home.sandbox(&["ls", "--json"]).json();
            listed[0]["state"] == "paused"
        });
        home.sandbox(&["kill", &id]).ok();
    }
    let id = home.create(&["--idle-timeout", "1s"]);
    // Whoever looks next removes what is left of it.
    wait_for("the end", || {
        home.sandbox(&["ls", "-q"]).ok();
        home.records().is_empty()
    });
    home.assert_nothing_left(&id);
}

#[test]
fn kill_ends_all_it_can_and_leaves_what_belongs_to_programs() {
    let home = Home::own();
    let mut talk =
        Talk::start(home.command(&["run", "-c", "print('up'); input(); print('still')"]));
    assert_eq!(talk.line(), "up");
    let (first, second) = (home.create(&[]), home.create(&[]));
    assert_eq!(
        home.sandbox(&["ls", "-q"]).ok(),
        format!("{first}\n{second}\n")
    );
    assert_eq!(home.sandbox(&["ls", "-a", "-q"]).ok().lines().count(), 3);
    assert!(home.sandbox(&["ls", "-a"]).ok().contains("a program"));

    let outcome = home.sandbox(&["kill", "nobody", &first]);
    outcome.assert_code(125);
    assert_eq!(outcome.stdout, format!("{first}\n"));
    assert!(outcome.stderr.contains("nobody"), "{outcome:?}");
    assert_eq!(home.sandbox(&["kill", "--all"]).ok(), format!("{second}\n"));
    assert_eq!(home.records().len(), 1);

    use std::io::Write;
    writeln!(talk.stdin).unwrap();
    assert_eq!(talk.line(), "still");
    talk.finish().assert_code(0);
    assert_eq!(home.records(), [""; 0]);
}

#[test]
fn a_sandbox_whose_id_cannot_be_printed_does_not_stay() {
    let home = Home::own();
    for json in [&["create"][..], &["create", "--json"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let child = home.command(json).stdout(full).spawn().unwrap();
        finish(child).assert_refused("cannot write to standard output");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = home.command(json).stdout(writer).spawn().unwrap();
        finish(child).assert_code(141);
    }
    assert_eq!(home.records(), [""; 0]);
}

#[test]
fn a_sandbox_that_does_not_answer_troubles_no_other_and_can_be_killed() {
    let home = Home::own();
    let (silent, other) = (home.create(&[]), home.create(&["--name", "other"]));
    home.silence(&silent);
    assert_eq!(home.sandbox(&["exec", &other, "echo", "x"]).ok(), "x\n");
    assert_eq!(home.sandbox(&["exec", "other", "echo", "x"]).ok(), "x\n");
    let waiting = home.command(&["exec", &silent, "true"]).spawn().unwrap();
    let outcome = home.sandbox(&["ls"]);
    outcome.assert_code(0);
    assert!(outcome.stdout.contains(&other), "{outcome:?}");
    assert!(outcome.stdout.contains(&silent), "{outcome:?}");
    let advice = format!("the sandbox does not answer; `sandbox kill {silent}` kills it");
    assert!(outcome.stderr.contains(&advice), "{outcome:?}");
    finish(waiting).assert_refused("no answer");
    let outcome = home.sandbox(&["kill", "--all"]);
    outcome.assert_code(125);
    assert_eq!(outcome.stdout, format!("{other}\n"));
    assert!(outcome.stderr.contains("answer"), "{outcome:?}");
    home.assert_nothing_left(&other);

    assert_eq!(home.sandbox(&["kill", &silent]).ok(), format!("{silent}\n"));
    home.assert_nothing_left(&silent);
}

#[test]
fn prune_says_what_it_would_remove_then_removes_it() {
    let home = Home::own();
    let living = home.create(&[]);
    let left = home.state().join("sandboxes/sleft");
    fs::create_dir(&left).unwrap();
    let would = home.sandbox(&["prune", "--dry-run", "--json"]).json();
    assert_eq!(would["sandboxes"], serde_json::json!(["sleft"]));
    assert!(left.exists());
    assert_eq!(home.sandbox(&["prune"]).ok(), "sandbox sleft\n");
    assert!(!left.exists());
    assert_eq!(home.sandbox(&["prune"]).ok(), "");
    assert_eq!(home.sandbox(&["exec", &living, "echo", "x"]).ok(), "x\n");
}

#[test]
fn doctor_reports_and_its_code_says_whether_sandboxes_can_be_made() {
    let home = Home::own();
    let report = home.sandbox(&["doctor", "--json"]).json();
    assert_eq!(report["ready"], true);
    assert_eq!(enforcement(&report, "files"), "enforced");
    assert_eq!(enforcement(&report, "disk"), "not_enforced");
    let checks = report["checks"].as_array().unwrap();
    let text = home.sandbox(&["doctor"]).ok();
    for check in checks {
        assert!(text.contains(check["name"].as_str().unwrap()), "{text}");
    }
    assert!(text.contains("\n- disk "), "{text}");
    assert_eq!(home.records(), [""; 0]);

    let mut command = home.command(&["--state-dir", "/proc/nowhere", "doctor"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("✗ state directory"), "{text}");
    assert!(text.contains("fix: "), "{text}");
}

#[test]
fn a_state_directory_that_cannot_be_used_is_said() {
    let home = Home::own();
    home.sandbox(&["--state-dir", "/proc/nowhere", "ls"])
        .assert_refused("SANDBOX_STATE_DIR");
}

#[test]
fn version_and_help_are_there_at_once() {
    let home = Home::own();
    let version = home.sandbox(&["--version"]).ok();
    assert_eq!(
        version,
        concat!("sandbox ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert!(home.sandbox(&["help", "run"]).ok().contains("Examples:"));
    home.sandbox(&[]).assert_code(125);
    home.sandbox(&["fly"]).assert_refused("fly");
    // The best of many says what it takes; the others say how busy the machine is.
    let time = || {
        let start = Instant::now();
        home.command(&["--version"]).output().unwrap();
        start.elapsed()
    };
    let best = (0..50).map(|_| time()).min().unwrap();
    assert!(best.as_micros() < 5000, "--version takes {best:?}");
}
