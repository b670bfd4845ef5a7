//! Sandboxes that outlive their program: a process of their user's carries their connections. And what is left of an
//! owner that is killed.

use crate::world::{DEADLINE, Inside, builder, in_time, parsed, python, said, state};
use sandbox_core::{Existing, NetworkEventKind, prelude::*};
use sandbox_local::LocalProvider;
use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command as Program, Stdio},
    sync::Arc,
    time::Instant,
};

/// Runs this program's part that is a relay, of which the third line says that it serves: those before are the test
/// harness's. Its name is not on this script's command line.
const RELAY: &str = r#"
    "$0" "detached::"relay --exact --ignored --nocapture | {
        read -r _ && read -r _ && read -r _ && echo
        cat >/dev/null
    }
"#;

/// What carries the connections of detached sandboxes: it is named as the relay program.
#[test]
#[ignore = "run by other tests, as their relay program"]
fn relay() {
    let state = env::var_os("SANDBOX_STATE_DIR").unwrap();
    LocalProvider::builder()
        .state_dir(state)
        .run_relay()
        .unwrap();
}

/// What owns a sandbox until it is killed.
#[tokio::test]
#[ignore = "run by another test, as its owner"]
async fn owner() {
    let state = env::var_os("SANDBOX_STATE_DIR").unwrap();
    let inside = Inside::of(builder(Path::new(&state)).build().unwrap(), "public").await;
    let reached = inside.python("print(talk('203.0.113.10', 8080))").await;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{reached}").unwrap();
    std::future::pending::<()>().await;
}

fn open(state: &Path) -> LocalProvider {
    let program = env::current_exe().unwrap();
    let arguments = ["-c", RELAY].map(OsString::from);
    let arguments = arguments.into_iter().chain([program.into_os_string()]);
    builder(state)
        .relay_program("/bin/sh", arguments)
        .build()
        .unwrap()
}

/// Processes with the state directory in their environment and this word on their command line.
fn processes(state: &Path, word: &str) -> Vec<i32> {
    let holds = |path: &Path, text: &str| {
        let read = fs::read(path).unwrap_or_default();
        read.windows(text.len()).any(|part| part == text.as_bytes())
    };
    let state = format!("SANDBOX_STATE_DIR={}", state.display());
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        let place = Path::new("/proc").join(pid.to_string());
        holds(&place.join("environ"), &state) && holds(&place.join("cmdline"), word)
    };
    pids.filter(is_one).collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Waits for a fact that nothing announces.
async fn until(what: &str, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < DEADLINE, "still not so: {what}");
        tokio::task::yield_now().await;
    }
}

const TRY: &str = "print(talk('203.0.113.10', 8080), talk('203.0.113.11', 8080))";

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn the_relay_of_detached_sandboxes_may_die_and_comes_back_and_goes_with_the_last() {
    let state = state();
    let provider = open(state.path());
    let mut made: Vec<Arc<dyn Sandbox>> = Vec::new();
    for _ in 0..2 {
        let options = CreateOptions::new().ownership(Ownership::Detached);
        let options = options.network(parsed("allow 203.0.113.10"));
        made.push(in_time(provider.create(options)).await.unwrap());
    }
    let relay = processes(state.path(), "detached::relay");
    assert_eq!(relay.len(), 1, "one for both");
    for sandbox in &made {
        assert_eq!(
            said(sandbox, python(TRY)).await,
            "reached 203.0.113.10 ECONNRESET"
        );
    }
    kill(relay[0]);
    until("the relay is dead", || {
        processes(state.path(), "detached::relay").is_empty()
    })
    .await;
    assert_eq!(said(&made[0], python(TRY)).await, "ECONNRESET ECONNRESET");
    assert_eq!(
        said(&made[0], python("print(get('a.example'))")).await,
        "no name"
    );
    // What is changed meanwhile holds when it is carried again.
    let network = made[1].network().unwrap();
    in_time(network.set_policy(parsed("allow 203.0.113.11"), Existing::Cut))
        .await
        .unwrap();
    drop(provider);
    let provider = open(state.path());
    assert_eq!(processes(state.path(), "detached::relay").len(), 1);
    assert_eq!(
        said(&made[0], python(TRY)).await,
        "reached 203.0.113.10 ECONNRESET"
    );
    assert_eq!(
        said(&made[1], python(TRY)).await,
        "ECONNRESET reached 203.0.113.11"
    );
    let inside = Inside {
        sandbox: Arc::clone(&made[0]),
        provider: provider.clone(),
    };
    inside.set("off", Existing::Cut).await;
    assert_eq!(inside.python(TRY).await, "ECONNRESET ECONNRESET");
    let denied = inside.events().await;
    let denied = denied
        .iter()
        .filter(|event| event.kind == NetworkEventKind::Denied);
    assert_eq!(denied.count(), 4, "of both relays");
    for sandbox in &made {
        assert!(in_time(sandbox.kill()).await.unwrap());
    }
    until("the relay has ended", || {
        processes(state.path(), "detached::relay").is_empty()
    })
    .await;
    let left = provider.leftovers().unwrap().sandboxes;
    assert!(left.is_empty(), "{left:?}");
    assert!(!state.path().join("relay/sock").exists());
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn nothing_is_left_of_an_owner_that_is_killed() {
    let state = state();
    let mut owner = start_owner(state.path());
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let reached = lines.find(|line| line.as_ref().unwrap().starts_with("reached"));
    assert!(reached.is_some());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let provider = open(state.path());
    let sandboxes = || {
        fs::read_dir(state.path().join("sandboxes"))
            .unwrap()
            .count()
    };
    until("no record is left", || {
        provider.prune().unwrap();
        sandboxes() == 0
    })
    .await;
    assert!(provider.leftovers().unwrap().sandboxes.is_empty());
    assert!(processes(state.path(), "sandbox").is_empty());
}

fn start_owner(state: &Path) -> Child {
    let mut owner = Program::new(env::current_exe().unwrap());
    owner
        .args(["detached::owner", "--exact", "--ignored", "--nocapture"])
        .env("SANDBOX_STATE_DIR", state);
    owner
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
