//! Nothing is left behind, whoever is killed and whenever.

use crate::support::{State, example, until};
use sandbox_core::prelude::*;
use std::{collections::BTreeSet, fs, process::Stdio, thread, time::Duration};

/// How often somebody is killed.
const MOMENTS: u32 = 50;

/// Whom to kill.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Program,
    Zygote,
    SandboxesInit,
}

#[tokio::test]
async fn killed_at_any_moment_nothing_is_left() {
    let state = State::new();
    // Makes the template, which is no part of any sandbox.
    state.sandbox().await.1.kill().await.unwrap();
    for moment in 0..MOMENTS {
        let victim = [Victim::Program, Victim::Zygote, Victim::SandboxesInit][moment as usize % 3];
        // Spread over the whole of a creation and a bit beyond, in no rhythm with the victims.
        let delay = Duration::from_micros(u64::from(moment) * 7919 % 60_000);
        let ids = kill_one(&state, victim, delay);
        let running = || {
            ids.iter()
                .flat_map(|id| state.traces(id))
                .any(|trace| trace.starts_with("process"))
        };
        until(
            &format!("no process is left of {victim:?} killed after {delay:?}"),
            || !running(),
        )
        .await;
        // The killed program's zygote may still be on its way out, with the lock of what it was making.
        let left = || {
            drop(state.provider());
            ids.iter().any(|id| !state.traces(id).is_empty()) || ids_of(&state) != BTreeSet::new()
        };
        until(
            &format!("the next start removes what {victim:?} left"),
            || !left(),
        )
        .await;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(state.path().to_str().unwrap()), "{mounts}");
}

#[tokio::test]
async fn directories_in_each_other_go_away_however_many_they_are() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let nest = "import os\nfor _ in range(5000): os.mkdir('d'); os.chdir('d')\nprint('made')";
    let made = Command::new("python3").args(["-c", nest]);
    let output = sandbox.exec(made).await.unwrap();
    assert_eq!(output.stdout_text(), "made\n", "{output:?}");
    assert!(sandbox.kill().await.unwrap());
    assert_eq!(state.traces(sandbox.id().as_str()), Default::default());
}

/// Starts a program that makes sandboxes, kills `victim` after `delay` and then the program; returns all ids there were.
fn kill_one(state: &State, victim: Victim, delay: Duration) -> BTreeSet<String> {
    let mut program = std::process::Command::new(example("owner"))
        .arg("3")
        .env("SANDBOX_STATE_DIR", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The moment itself is what is tried.
    thread::sleep(delay);
    let mut ids = ids_of(state);
    match victim {
        Victim::Program => {}
        Victim::Zygote => children(program.id()).into_iter().for_each(kill),
        Victim::SandboxesInit => children(program.id())
            .into_iter()
            .flat_map(children)
            .for_each(kill),
    }
    ids.extend(ids_of(state));
    program.kill().unwrap();
    program.wait().unwrap();
    ids.extend(ids_of(state));
    ids
}

fn ids_of(state: &State) -> BTreeSet<String> {
    let entries = fs::read_dir(state.path().join("sandboxes"))
        .unwrap()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn children(of: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?
            .1
            .split(' ')
            .nth(1)?
            .parse::<u32>()
            .ok()
    };
    pids.filter(|pid| parent(pid) == Some(of)).collect()
}

fn kill(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
