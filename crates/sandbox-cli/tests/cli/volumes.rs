//! `--volume` and `sandbox volumes`.

use crate::support::Home;
use std::{fs, os::unix::fs::chown};

#[test]
fn a_named_volume_goes_from_sandbox_to_sandbox() {
    let home = Home::own();
    let run = |script: &str| {
        let words = [
            "run",
            "--volume",
            "cache:/home/user/cache",
            "--lang",
            "sh",
            "-c",
            script,
        ];
        home.sandbox(&words)
    };
    run("true").assert_refused("no such volume");
    assert_eq!(
        home.sandbox(&["volumes", "create", "cache"]).ok(),
        "cache\n"
    );
    home.sandbox(&["volumes", "create", "cache"])
        .assert_refused("of this name");
    run("echo kept > ~/cache/file").ok();
    assert_eq!(run("cat ~/cache/file").ok(), "kept\n");
    assert_eq!(
        home.sandbox(&["volumes", "--json"])
            .ok()
            .split_whitespace()
            .collect::<String>(),
        "[\"cache\"]"
    );
    // What can be done is done and told, and what cannot be is named.
    let mixed = home.sandbox(&["volumes", "create", "cache", "a/b", "other"]);
    mixed.assert_code(125);
    assert_eq!(mixed.stdout, "other\n");
    assert!(
        mixed.stderr.contains("(volume: a/b)") && mixed.stderr.contains("(volume: cache)"),
        "{mixed:?}"
    );
    let mixed = home.sandbox(&["volumes", "rm", "none", "cache", "other", "--json"]);
    mixed.assert_code(125);
    assert!(mixed.stderr.contains("(volume: none)"), "{mixed:?}");
    let names: Vec<String> = serde_json::from_str(&mixed.stdout).unwrap();
    assert_eq!(names, ["cache", "other"]);
    home.sandbox(&["volumes", "rm", "cache"]).assert_code(125);
    assert_eq!(home.sandbox(&["volumes", "ls"]).ok(), "");
}

#[test]
fn a_folder_is_shared_as_it_is_asked_for() {
    let home = Home::own();
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(4321), Some(4321)).unwrap();
    fs::write(folder.path().join("in"), "in\n").unwrap();
    let path = folder.path().to_str().unwrap();
    let run = |volume: &str, script: &str| {
        home.sandbox(&["run", "--volume", volume, "--lang", "sh", "-c", script])
    };
    let script = "cat /srv/in; echo out > /srv/out";
    assert_eq!(run(&format!("{path}:/srv"), script).ok(), "in\n");
    assert_eq!(
        fs::read_to_string(folder.path().join("out")).unwrap(),
        "out\n"
    );
    let script = "cat /srv/out; echo out > /srv/new || echo no";
    assert_eq!(run(&format!("{path}:/srv:ro"), script).stdout, "out\nno\n");
    assert!(!folder.path().join("new").exists());
    run(&format!("{path}:srv"), "true").assert_refused("absolute path");
    run(&format!("{path}/none:/srv"), "true").assert_refused("cannot be opened");
    run("a:/b:rx", "true").assert_code(125);
    run("a", "true").assert_code(125);
}
