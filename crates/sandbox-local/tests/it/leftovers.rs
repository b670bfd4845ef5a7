//! Nothing is left behind, whoever is killed and whenever.

use crate::ordinary;
use crate::support::{State, example, holders, namespaces, parent, processes, until};
use sandbox_core::prelude::*;
use sandbox_local::LocalProvider;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

/// How often each victim is killed.
const MOMENTS: u32 = 50;

/// Whom to kill.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Program,
    Zygote,
    SandboxesInit,
    /// What PID 1 keeps ready, and commands.
    ChildrenOfInit,
}

/// What there was when somebody was killed.
#[derive(Debug, Default)]
struct Seen {
    ids: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

#[tokio::test]
async fn a_program_killed_at_any_moment_leaves_nothing() {
    kill_at_any_moment(Victim::Program).await;
}

#[tokio::test]
async fn a_zygote_killed_at_any_moment_leaves_nothing() {
    kill_at_any_moment(Victim::Zygote).await;
}

#[tokio::test]
async fn the_init_of_a_sandbox_killed_at_any_moment_leaves_nothing() {
    kill_at_any_moment(Victim::SandboxesInit).await;
}

#[tokio::test]
async fn children_of_init_killed_at_any_moment_leave_nothing() {
    kill_at_any_moment(Victim::ChildrenOfInit).await;
}

async fn kill_at_any_moment(victim: Victim) {
    let state = State::new();
    // Makes the template, which is no part of any sandbox.
    state.sandbox().await.1.kill().await.unwrap();
    let whole = time_of_program(&state);
    let (mut ids, mut all) = (BTreeSet::new(), BTreeSet::new());
    // What an ordinary user's programs do differently takes no more of them.
    let moments = if ordinary::is_ordinary() {
        MOMENTS / 4
    } else {
        MOMENTS
    };
    for moment in 0..moments {
        let delay = whole.mul_f64(f64::from(random()) / f64::from(u32::MAX));
        // It falls with a pool, and without one while sandboxes are forked.
        let pool = if moment / 2 % 2 == 0 { "0" } else { "2" };
        let seen = kill_one(&state, victim, delay, pool);
        let when = format!("{victim:?} killed after {delay:?}, with a pool of {pool}");
        let running = || processes().iter().any(|(_, of)| seen.ids.contains(of));
        until(&format!("no process is left of {when}"), || !running()).await;
        // The killed program's zygote may still be on its way out, with the lock of what it was making.
        let left = || {
            clean(&state, moment);
            !ids_of(&state).is_empty()
                || seen.ids.iter().any(|id| !state.traces(id).is_empty())
                || !parts_of_snapshots(&state).is_empty()
        };
        until(&format!("what is left of {when} is removed"), || !left()).await;
        ids.extend(seen.ids);
        all.extend(seen.namespaces);
    }
    // They have been there. To an ordinary user only those of commands are shown, which are short, if any.
    assert!(!ids.is_empty());
    assert!(all.len() > 10 || ordinary::is_ordinary(), "{all:?}");
    until("no namespace is left", || holders(&all).is_empty()).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(state.path().to_str().unwrap()), "{mounts}");
    assert_eq!(loop_devices(&state), Vec::<String>::new());
}

/// How often a program is killed that has large disks made.
const DISKS: u32 = 12;

#[tokio::test]
async fn the_file_system_for_large_disks_goes_with_a_killed_program() {
    let state = State::new();
    state.sandbox().await.1.kill().await.unwrap();
    for moment in 0..DISKS {
        let mut program = std::process::Command::new(example("owner"));
        program
            .args(["2", "owned", "0", "large"])
            .env("SANDBOX_STATE_DIR", state.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut program = program.spawn().unwrap();
        // The moment itself is what is tried.
        thread::sleep(Duration::from_millis(u64::from(moment) * 60));
        program.kill().unwrap();
        program.wait().unwrap();
        // What it has started may be on its way out.
        let left = || {
            clean(&state, moment);
            !ids_of(&state).is_empty()
                || !parts_of_snapshots(&state).is_empty()
                || !loop_devices(&state).is_empty()
                || ["disk.img", "disk.new"]
                    .iter()
                    .any(|name| state.path().join(name).exists())
        };
        until("what is left is removed", || !left()).await;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(state.path().to_str().unwrap()), "{mounts}");
    }
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

/// How long a program takes to make its sandboxes, and a bit more.
fn time_of_program(state: &State) -> Duration {
    let start = Instant::now();
    let mut program = owner(state, "0").stdout(Stdio::piped()).spawn().unwrap();
    let ids = BufReader::new(program.stdout.take().unwrap()).lines();
    assert_eq!(ids.take(3).count(), 3);
    let time = start.elapsed().mul_f64(1.2);
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    time
}

/// The program that makes three sandboxes and holds them, and has a pool of this size.
fn owner(state: &State, pool: &str) -> std::process::Command {
    let mut program = std::process::Command::new(example("owner"));
    program
        .args(["3", "owned", pool])
        .args((pool == "0" && state.has_disks()).then_some("small"))
        .env("SANDBOX_STATE_DIR", state.path());
    program.stdin(Stdio::piped()).stderr(Stdio::null());
    program
}

/// Cleans up as the next program does by its mere start, and as `prune` does.
fn clean(state: &State, moment: u32) {
    if moment.is_multiple_of(2) {
        drop(state.provider());
    } else {
        let builder = LocalProvider::builder().state_dir(state.path());
        let provider = builder.keep_leftovers().build().unwrap();
        provider.prune().unwrap();
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

/// Loop devices on files of the state directory.
fn loop_devices(state: &State) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices
        .filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files
        .filter(|file| file.contains(state.path().to_str().unwrap()))
        .collect()
}

/// Starts a program that makes sandboxes, kills `victim` after `delay` and then the program.
fn kill_one(state: &State, victim: Victim, delay: Duration, pool: &str) -> Seen {
    let mut program = owner(state, pool).stdout(Stdio::null()).spawn().unwrap();
    // The moment itself is what is tried.
    thread::sleep(delay);
    let mut seen = Seen::default();
    seen.look(state);
    let below = |pids: Vec<u32>| pids.into_iter().flat_map(children).collect::<Vec<_>>();
    let zygotes = children(program.id());
    match victim {
        Victim::Program => {}
        Victim::Zygote => zygotes.into_iter().for_each(kill),
        Victim::SandboxesInit => below(zygotes).into_iter().for_each(kill),
        Victim::ChildrenOfInit => below(below(zygotes)).into_iter().for_each(kill),
    }
    seen.look(state);
    program.kill().unwrap();
    program.wait().unwrap();
    seen.look(state);
    seen
}

impl Seen {
    fn look(&mut self, state: &State) {
        self.ids.extend(ids_of(state));
        self.namespaces.extend(namespaces(&self.ids));
    }
}

fn ids_of(state: &State) -> BTreeSet<String> {
    let entries = fs::read_dir(state.path().join("sandboxes"))
        .unwrap()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Snapshots that are not whole, and those that are neither offered nor stood on by one that is.
fn parts_of_snapshots(state: &State) -> BTreeSet<String> {
    let names = |keep: &dyn Fn(&Path) -> bool| {
        let entries = fs::read_dir(state.path().join("snapshots")).into_iter();
        let entries = entries.flatten().flatten();
        let kept = entries.filter(|entry| entry.path().is_dir() && keep(&entry.path()));
        let names = kept.filter_map(|entry| entry.file_name().into_string().ok());
        names.collect::<BTreeSet<_>>()
    };
    let manifest = |path: &Path| fs::read_to_string(path.join("manifest.json"));
    let offered = names(&|path| manifest(path).is_ok());
    let texts = offered.iter().filter_map(|name| {
        let path = state.path().join("snapshots").join(name);
        manifest(&path).ok()
    });
    let texts: Vec<String> = texts.collect();
    let mut parts = names(&|path| manifest(path).is_err());
    parts.retain(|name| {
        !texts
            .iter()
            .any(|text| text.contains(&format!("snapshots/{name}/")))
    });
    parts
}

pub(crate) fn children(of: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}

pub(crate) fn kill(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
