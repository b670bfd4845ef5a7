//! Addresses that no policy opens, in every spelling that programs take.

use crate::world::{Inside, seen_by_host, seen_by_world};
use sandbox_core::{NetworkEvent, NetworkEventKind};
use std::net::IpAddr;

/// Addresses of all closed classes, with a part of what is said of them.
const CLOSED: &[(&str, &str)] = &[
    ("169.254.169.254", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "metadata"),
    ("fd00:ec2::254", "metadata"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.254", "private"),
    ("192.168.1.1", "private"),
    ("fd00::1", "private"),
    ("fec0::1", "private"),
    ("169.254.1.1", "link-local"),
    ("100.64.0.1", "translation"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.2", "documentation"),
    ("3fff::1", "documentation"),
    ("198.18.0.1", "benchmark"),
    ("2001:2::1", "benchmark"),
    ("192.0.0.8", "reserved"),
    ("192.88.99.1", "reserved"),
    ("240.0.0.1", "reserved"),
    ("2001::1", "reserved"),
    ("2002:a00:1::1", "reserved"),
    ("100::1", "reserved"),
    ("64:ff9b::a00:1", "private"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b::7f00:1", "this host"),
    ("64:ff9b:1::a00:1", "reserved"),
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:169.254.169.254", "metadata"),
    // The host's own, on which the trap listens: of its link, and one like any other of the internet.
    ("198.51.100.1", "this host"),
    ("192.5.6.30", "this host"),
    ("::ffff:192.5.6.30", "this host"),
    ("64:ff9b::c005:61e", "this host"),
    ("2001:db8:ffff::1", "this host"),
    // The neighbour.
    ("2001:db8:ffff::2", "documentation"),
];

/// Spellings of 169.254.169.254, 10.0.0.1 and 127.0.0.1 that the C library takes, and so Python, curl and others do.
const SPELLINGS: &[&str] = &[
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518",
    "169.16689662",
    "025177524776",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "10.1",
    "10.0.1",
    "167772161",
    "0xA000001",
    "012.0.0.1",
    "[::ffff:10.0.0.1]",
];

/// What asks for a socket that takes more than connections.
const RAW: &[&str] = &["raw EPERM", "raw EPROTONOSUPPORT", "raw EAFNOSUPPORT"];

fn is_denied(events: &[NetworkEvent], address: IpAddr, word: &str) -> bool {
    events.iter().any(|event| {
        event.kind == NetworkEventKind::Denied
            && event.address == Some(address)
            && event.reason.contains(word)
    })
}

/// As events name it.
fn meant(text: &str) -> IpAddr {
    text.parse::<IpAddr>().unwrap().to_canonical()
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn addresses_of_all_closed_classes_are_refused_at_once_and_it_is_told_why() {
    for policy in [
        "public",
        "allow *\nallow 0.0.0.0/0\nallow ::/0\ndefault allow",
    ] {
        let inside = Inside::new(policy).await;
        let list = CLOSED.iter().map(|(address, _)| format!("{address:?},"));
        let code = format!(
            "start = time.monotonic()\n\
             for address in [{}]:\n    print(address, talk(address, 8080))\n\
             assert time.monotonic() - start < 20",
            list.collect::<String>()
        );
        let said = inside.python(&code).await;
        for (address, _) in CLOSED {
            assert!(said.contains(&format!("{address} ECONNRE")), "{said}");
        }
        assert_eq!(said.lines().count(), CLOSED.len(), "{said}");
        let events = inside.events().await;
        for (address, word) in CLOSED {
            let meant = meant(address);
            let told = events.iter().filter(|event| event.address == Some(meant));
            let told: Vec<_> = told.collect();
            assert!(
                is_denied(&events, meant, word),
                "{address} {meant}: {told:?}"
            );
            let arrived = format!("{meant} 8080");
            assert!(!seen_by_world().contains(&arrived), "{address}");
        }
        assert_eq!(seen_by_host(), Vec::<String>::new());
        // What is not closed is reached the same way.
        for open in ["203.0.113.10", "2001:db8::10", "::ffff:203.0.113.10"] {
            let said = inside.python(&format!("print(talk('{open}', 8080))")).await;
            assert_eq!(said, format!("reached {}", meant(open)));
        }
    }
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn no_spelling_of_an_address_opens_it() {
    let inside = Inside::new("public").await;
    let urls = SPELLINGS
        .iter()
        .map(|text| format!("'http://{text}:8080/' "));
    let urls: String = urls.collect();
    let script =
        format!("for url in {urls}; do curl -sg -m 20 -o /dev/null $url; echo $? $url; done");
    let said = inside.sh(&script).await;
    for line in said.lines() {
        // Reset by whoever the program speaks to, or never connected.
        let is_refused = ["7 ", "52 ", "55 ", "56 "]
            .iter()
            .any(|code| line.starts_with(code));
        assert!(is_refused, "{said}");
    }
    assert_eq!(said.lines().count(), SPELLINGS.len(), "{said}");
    let list: String = SPELLINGS.iter().map(|text| format!("{text:?},")).collect();
    let code = format!("for text in [{list}]:\n    print(talk(text.strip('[]'), 8080))");
    let said = inside.python(&code).await;
    assert!(
        said.lines().all(|line| line.starts_with("ECONNRE")),
        "{said}"
    );
    let events = inside.events().await;
    for (address, word) in [("169.254.169.254", "metadata"), ("10.0.0.1", "private")] {
        assert!(is_denied(&events, address.parse().unwrap(), word));
    }
    let denied = events
        .iter()
        .filter(|event| event.kind == NetworkEventKind::Denied);
    assert_eq!(denied.count(), 2 * SPELLINGS.len(), "{events:?}");
    assert_eq!(seen_by_host(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn loopback_inside_is_the_sandboxs_own() {
    let inside = Inside::new("public").await;
    let code = "for address in ['127.0.0.1', '127.8.8.8', '0.0.0.0', '::1', '::', 'localhost', '127.1', '0']:\n    \
                print(address, talk(address, 8080))";
    let said = inside.python(code).await;
    assert!(said.lines().all(|line| line.contains(" ECONNRE")), "{said}");
    assert_eq!(seen_by_host(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn only_connections_and_questions_for_names_leave() {
    let inside = Inside::new("public").await;
    let code = r#"
def sent(kind, address, port):
    with socket.socket(family(address), kind) as s:
        s.settimeout(20)
        s.connect((address, port))
        s.send(b"x" * 20)
        return s.recv(100)
def raw(family, kind, protocol):
    socket.socket(family, kind, protocol).close()
    return "made"
for address in ("203.0.113.10", "2001:db8::10"):
    for port in (53, 123, 443, 8080):
        print("udp", tried(lambda: sent(socket.SOCK_DGRAM, address, port)) if port != 53 else "ECONNREFUSED")
for f, k, p in ((socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP),
                (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW), (socket.AF_PACKET, socket.SOCK_RAW, 0x300)):
    print("raw", tried(lambda: raw(f, k, p)))
"#;
    let said = inside.python(code).await;
    for line in said.lines() {
        let refused = [
            "udp ECONNREFUSED",
            "udp ENETUNREACH",
            "udp EHOSTUNREACH",
            "udp EACCES",
            "udp EPERM",
        ];
        let is_refused = refused.contains(&line) || RAW.contains(&line);
        assert!(is_refused, "{said}");
    }
    assert_eq!(said.lines().count(), 12, "{said}");
}
