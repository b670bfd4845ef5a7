//! Compares the README's table of capabilities with what the providers say of themselves.

#![cfg(all(feature = "local", target_os = "linux"))]
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of an integration test for a program"
)]

use sandbox::{Capabilities, SandboxProvider, local::LocalProvider};
use serde_json::{Map, Value};
use std::{fs, path::Path};

/// What each capability is good for, in the order of the table.
const GAINS: [(&str, &str); 20] = [
    ("shell", "commands run for real, with the usual tools"),
    ("stdin", "standard input can be kept open"),
    (
        "split_stderr",
        "standard error comes apart from standard output",
    ),
    ("signals", "signals other than KILL reach a process"),
    ("pty", "commands on a terminal that can be resized"),
    (
        "attach",
        "output and exit code for who comes later or comes back",
    ),
    ("users", "commands and files as another user"),
    ("range_read", "a part of a file without the rest"),
    ("symlinks", "symbolic links can be made"),
    ("detached", "sandboxes outlive the program that made them"),
    ("lifecycle", "a lifetime can be changed later"),
    ("max_lifetime", "longest lifetime"),
    ("templates", "what sandboxes can start from is listed"),
    ("pause", "a sandbox rests and goes on"),
    ("watch", "changes of files are told, or that some were lost"),
    ("metrics", "processor time, memory, processes, disk"),
    ("snapshots", "a sandbox's state is kept and started from"),
    ("ports", "connections to servers inside"),
    ("previews", "servers inside have addresses for a browser"),
    (
        "network",
        "what is reached outside is told, and can be changed",
    ),
];

/// Capabilities that depend on the machine, and on what of it.
const CONDITIONS: [(&str, &str); 4] = [
    ("users", "for root"),
    ("pause", "where a cgroup of version 2 can be made"),
    (
        "snapshots",
        "files, for root where a cgroup of version 2 can be made; what runs is not carried over",
    ),
    (
        "metrics",
        "yes; bytes read and written for root, and where the cgroup counts them",
    ),
];

fn fields(capabilities: &Capabilities) -> Map<String, Value> {
    match serde_json::to_value(capabilities).unwrap() {
        Value::Object(fields) => fields,
        other => panic!("capabilities are an object, not {other}"),
    }
}

/// A cell of the table.
fn cell(name: &str, value: &Value) -> String {
    if let Some((_, condition)) = CONDITIONS.iter().find(|(known, _)| *known == name) {
        return (*condition).to_owned();
    }
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "-".to_owned(),
        Value::Null => "no limit".to_owned(),
        time => format!("{} days", time["secs"].as_u64().unwrap() / 86400),
    }
}

#[test]
fn the_readme_says_what_the_providers_can_do() {
    let state = tempfile::tempdir().unwrap();
    let local = LocalProvider::builder().state_dir(state.path()).build();
    let fields = fields(&local.unwrap().capabilities());
    let mut known: Vec<_> = GAINS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    let mut all: Vec<_> = fields.keys().map(String::as_str).collect();
    all.sort_unstable();
    assert_eq!(known, all, "GAINS and the fields of `Capabilities` differ");

    let rows = GAINS.iter().map(|(name, gain)| {
        let local = cell(name, &fields[*name]);
        format!("| `{name}` | {gain} | {local} |\n")
    });
    let table: String = rows.collect();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    assert!(
        readme.contains(&table),
        "the rows of the README's table of capabilities must be\n{table}"
    );
}
