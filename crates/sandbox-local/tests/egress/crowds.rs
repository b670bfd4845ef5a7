//! Many connections, and peers that are slow or never read.

use crate::{
    ordinary,
    world::{DEADLINE, Inside, in_time, parsed, python, told},
};
use sandbox_core::{Existing, ProcessEvent, Stdin};
use std::{fs, time::Instant};

/// Descriptors of this program, which carries the connections.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many connections there can be here: each takes two descriptors of this program.
fn most() -> usize {
    let wanted = match ordinary::is_ordinary() {
        true => 4_000,
        false => 10_000,
    };
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let fitting: usize = line
        .unwrap()
        .split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap();
    let most = wanted.min((fitting - 1_000) / 2);
    assert!(
        most >= 4_000,
        "too few descriptors for this test: {fitting}"
    );
    most
}

const CROWD: &str = r#"
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
count = int(sys.argv[1])
made = [connected("203.0.113.10", 7002) for _ in range(count)]
for s in made:
    s.sendall(b"!")
assert all_answer(made)
print("ready", flush=True)
sys.stdin.read()
for s in made:
    s.sendall(b"?")
assert all_answer(made)
print("done", flush=True)
"#;

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn thousands_of_connections_are_carried_at_the_same_time() {
    let inside = Inside::new("public").await;
    let before = descriptors();
    let count = most();
    let command = python(CROWD).arg(count.to_string()).stdin(Stdin::Open);
    let mut process = inside.sandbox.spawn(command.merge_stderr()).await.unwrap();
    let mut said = String::new();
    while !said.contains("ready") {
        match in_time(process.try_next()).await.unwrap() {
            Some(ProcessEvent::Stdout(bytes)) => said += &String::from_utf8_lossy(&bytes),
            Some(ProcessEvent::Started { .. }) => {}
            other => panic!("{other:?}: {said}"),
        }
    }
    let now = descriptors();
    assert!(now >= before + 2 * count, "{before} {now} {count}");
    process.control().close_stdin().await.unwrap();
    let output = in_time(process.output()).await.unwrap();
    assert!(output.stdout_text().contains("done"), "{output:?}");
    until_released(before).await;
}

/// Waits until the descriptors of connections are given back; others may be open by other tests' doing.
async fn until_released(before: usize) {
    let start = Instant::now();
    while descriptors() > before + 200 {
        assert!(start.elapsed() < DEADLINE, "{} are left", descriptors());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn whoever_does_not_read_makes_the_other_side_wait() {
    let inside = Inside::new("public").await;
    let code = r#"
with connected("203.0.113.10", 7000) as s:
    s.settimeout(1)
    sent = 0
    try:
        while sent < 1 << 30:
            sent += s.send(b"x" * 65536)
    except TimeoutError:
        pass
    print(sent)
"#;
    let said = inside.python(code).await;
    let sent: u64 = said.parse().expect(&said);
    assert!(sent < 64 << 20, "{sent} bytes are held somewhere");
    let code = "s = connected('203.0.113.10', 7001)\nprint('ready', flush=True)\nsys.stdin.read()";
    let command = python(code).stdin(Stdin::Open);
    let mut process = inside.sandbox.spawn(command).await.unwrap();
    while !matches!(
        in_time(process.try_next()).await.unwrap(),
        Some(ProcessEvent::Stdout(_))
    ) {}
    // It stands still in the end: as many bytes as before, however often it is asked.
    let mut same = (0, 0);
    let start = Instant::now();
    while same.1 < 200 {
        let written = told()["written"].as_u64().unwrap();
        same = match written == same.0 {
            true => (written, same.1 + 1),
            false => (written, 0),
        };
        assert!(written < 64 << 20, "{written} bytes are held somewhere");
        assert!(start.elapsed() < DEADLINE);
    }
    inside.set("off", Existing::Cut).await;
    process.control().close_stdin().await.unwrap();
    in_time(process.wait()).await.unwrap();
    let policy = inside.sandbox.network().unwrap().policy().await.unwrap();
    assert_eq!(policy, parsed("off"));
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn large_answers_come_whole_to_slow_readers() {
    let inside = Inside::new("allow a.example").await;
    let script = "curl -s http://a.example/large | (read -r -N 1 first; sleep 1; wc -c)";
    assert_eq!(inside.sh(script).await, ((32 << 20) - 1).to_string());
    assert_eq!(
        inside
            .sh("curl -s --limit-rate 16M http://a.example/large | wc -c")
            .await,
        (32 << 20).to_string()
    );
}
