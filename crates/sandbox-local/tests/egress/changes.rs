//! Policies that change, and sandboxes that are paused, resumed and forked.

use crate::world::{Inside, builder, in_time, parsed, python, said, state};
use futures_util::StreamExt;
use sandbox_core::{Existing, NetworkEventKind, Process, ProcessEvent, Stdin, prelude::*};

/// Holds a connection over which each line of the input is said, and tells what comes back.
const HELD: &str = r#"
s = connected("203.0.113.10", 7002)
print("ready", flush=True)
for line in sys.stdin:
    print(tried(lambda: (s.sendall(line.strip().encode()), s.recv(1).decode())[1] or "ended"), flush=True)
"#;

/// A program in a sandbox that is talked to line by line.
struct Talk {
    process: Process,
}

impl Talk {
    async fn start(inside: &Inside, code: &str) -> Self {
        let command = python(code).stdin(Stdin::Open).merge_stderr();
        let process = inside.sandbox.spawn(command).await.unwrap();
        let mut talk = Self { process };
        assert_eq!(talk.line().await, "ready");
        talk
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with('\n') {
            match in_time(self.process.try_next()).await.unwrap() {
                Some(ProcessEvent::Stdout(bytes)) => line += &String::from_utf8_lossy(&bytes),
                Some(ProcessEvent::Started { .. }) => {}
                other => panic!("{other:?}: {line}"),
            }
        }
        line.trim().to_owned()
    }

    async fn ask(&mut self) -> String {
        let control = self.process.control();
        control.write_stdin("!\n".into()).await.unwrap();
        self.line().await
    }
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn a_change_holds_at_once_and_cuts_what_it_is_told_to() {
    let inside = Inside::new("public").await;
    let mut held = Talk::start(&inside, HELD).await;
    assert_eq!(held.ask().await, "!");
    inside
        .set("deny 203.0.113.10:7002\ndefault allow", Existing::Keep)
        .await;
    assert_eq!(held.ask().await, "!");
    let new = inside.python("print(talk('203.0.113.10', 7002))").await;
    assert_eq!(new, "ECONNRESET");
    assert_eq!(
        inside.python("print(talk('203.0.113.10', 8080))").await,
        "reached 203.0.113.10"
    );
    // The same again, and what no longer fits is cut.
    inside
        .set("deny 203.0.113.10:7002\ndefault allow", Existing::Cut)
        .await;
    assert_eq!(held.ask().await, "ECONNRESET");
    let cut = inside
        .until_told("the cut", |event| event.kind == NetworkEventKind::Cut)
        .await;
    assert_eq!((cut.port, cut.sent, cut.received), (7002, 2, 2), "{cut:?}");
    inside.set("off", Existing::Cut).await;
    let nothing = inside
        .python("print(talk('203.0.113.10', 8080), get('a.example'))")
        .await;
    assert_eq!(nothing, "ECONNRESET no name");
    inside.set("public", Existing::Cut).await;
    assert_eq!(
        inside.python("print(talk('203.0.113.10', 8080))").await,
        "reached 203.0.113.10"
    );
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn another_provider_on_the_same_state_changes_and_sees_the_same() {
    let state = state();
    let inside = Inside::of(builder(state.path()).build().unwrap(), "public").await;
    let mut held = Talk::start(&inside, HELD).await;
    let other = builder(state.path()).build().unwrap();
    let seen = other.sandbox(inside.sandbox.id());
    let network = seen.network().unwrap();
    assert_eq!(network.policy().await.unwrap(), parsed("public"));
    let events = network.events(true).await.unwrap();
    network
        .set_policy(parsed("off"), Existing::Cut)
        .await
        .unwrap();
    assert_eq!(held.ask().await, "ECONNRESET");
    assert_eq!(
        inside.sandbox.network().unwrap().policy().await.unwrap(),
        parsed("off")
    );
    assert_eq!(
        said(&seen, python("print(talk('203.0.113.10', 8080))")).await,
        "ECONNRESET"
    );
    assert!(in_time(inside.sandbox.kill()).await.unwrap());
    // The stream that follows ends with the sandbox.
    let kinds: Vec<_> = in_time(events.map(|event| event.unwrap().kind).collect()).await;
    use NetworkEventKind::{Cut, Denied, Opened};
    assert_eq!(kinds, [Opened, Cut, Denied]);
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn a_policy_outlives_pauses_and_passes_to_forks() {
    let inside = Inside::new("allow 203.0.113.10:8080").await;
    let try_both = "print(talk('203.0.113.10', 8080), talk('203.0.113.11', 8080))";
    if let Some(pause) = inside.sandbox.pause() {
        in_time(pause.pause()).await.unwrap();
        in_time(pause.resume()).await.unwrap();
    }
    assert_eq!(
        inside.python(try_both).await,
        "reached 203.0.113.10 ECONNRESET"
    );
    let options = CreateOptions::new();
    let fork = inside
        .provider
        .fork(inside.sandbox.id(), 1, options)
        .await
        .unwrap()
        .remove(0);
    let network = fork.network().unwrap();
    assert_eq!(
        network.policy().await.unwrap(),
        parsed("allow 203.0.113.10:8080")
    );
    assert_eq!(
        said(&fork, python(try_both)).await,
        "reached 203.0.113.10 ECONNRESET"
    );
    // They are two from now on.
    inside.set("off", Existing::Cut).await;
    assert_eq!(
        said(&fork, python(try_both)).await,
        "reached 203.0.113.10 ECONNRESET"
    );
    assert_eq!(inside.python(try_both).await, "ECONNRESET ECONNRESET");
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn two_sandboxes_cannot_meet_and_none_listens_for_another() {
    let first = Inside::new("public").await;
    let second = Inside::of(first.provider.clone(), "public").await;
    let listens = r#"
server = socket.create_server(("", 8081))
six = socket.create_server(("::", 8081), family=socket.AF_INET6)
print("ready", flush=True)
sys.stdin.read()
"#;
    let _server = Talk::start(&first, listens).await;
    let addresses = first
        .python("import subprocess\nprint(*open('/proc/net/fib_trie').read().split(), *(line.split()[0] for line in open('/proc/net/if_inet6')))")
        .await;
    assert!(!addresses.is_empty());
    let code = r#"
import re
found = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", sys.argv[1])) | {
    ":".join(one[i:i + 4] for i in range(0, 32, 4)) for one in re.findall(r"\b[0-9a-f]{32}\b", sys.argv[1])}
assert found
for address in sorted(found):
    print(address, talk(address, 8081))
"#;
    let said = said(&second.sandbox, python(code).arg(addresses)).await;
    for line in said.lines() {
        assert!(line.contains(" E"), "{said}");
    }
    // Nor can a program put itself before what catches its connections.
    let takes = r#"
for address in ("203.0.113.10", "0.0.0.0", "2001:db8::10", "::"):
    for port in (80, 53, 443):
        s = socket.socket(family(address))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried(lambda: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1))
        tried(lambda: s.setsockopt(socket.IPPROTO_IP, 19, 1))
        tried(lambda: (s.bind((address, port)), s.listen()))
        globals()[f"s{address}{port}"] = s
print(get("203.0.113.10"), get("10.0.0.1"))
"#;
    let said = second.python(takes).await;
    assert_eq!(said, "hello 203.0.113.10 at 203.0.113.10 ECONNRESET");
}
