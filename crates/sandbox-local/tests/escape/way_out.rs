//! The way out of a sandbox with a network: turned off, turned aside, taken over, or used for more than it is for.

use crate::{
    attempt::attempt,
    lab::{Lab, Who},
};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, SECCOMP};
use std::net::{Ipv4Addr, TcpListener};

/// Sends the kernel messages and says what it answers to the last one.
const ASK: &str = r#"
    import socket
    def message(kind, flags, body):
        return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body
    def ask(protocol, messages):
        asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        asking.send(messages)
        code = -struct.unpack("=i", asking.recv(4096)[16:20])[0]
        if code:
            raise OSError(code, "netlink")
        return "changed"
"#;

#[test]
fn without_the_route_that_leads_back() {
    let code = "return ask(0, message(25, 5, struct.pack('=8BI', 2, 0, 0, 0, 255, 0, 255, 0, 0)))";
    attempt(format!("{ASK}\n    {code}"))
        .with_network()
        .fails("EPERM")
        .works_without(CAPABILITIES, Who::Root, "changed");
}

#[test]
fn without_the_rules_that_catch() {
    // Removes all tables.
    let code = r#"
    edge, table = bytes([0, 0, 0, 10]), bytes([0, 0, 0, 0])
    return ask(12, message(16, 1, edge) + message(0xa02, 5, table) + message(17, 1, edge))
"#;
    attempt(format!("{ASK}{code}"))
        .with_network()
        .fails("EPROTONOSUPPORT")
        .still_fails_without(SECCOMP, Who::Root, "EPERM")
        .works_without(SECCOMP | CAPABILITIES, Who::Root, "changed");
}

#[test]
fn in_the_place_of_who_catches() {
    for (kind, port) in [("STREAM", 1), ("DGRAM", 53)] {
        for address in ["127.0.0.1", "0.0.0.0", "203.0.113.7", "::1", "::"] {
            let code = r#"
    import socket
    address, kind = given("ADDRESS"), getattr(socket, "SOCK_" + given("KIND"))
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind((address, int(given("PORT"))))
    return "bound"
"#;
            let tried = attempt(code)
                .given("KIND", kind)
                .given("ADDRESS", address)
                .given("PORT", port)
                .with_network()
                .fails_as(Who::Root, "EADDRINUSE");
            if address != "203.0.113.7" {
                tried.without_network().works_without(0, Who::Root, "bound");
            }
        }
    }
}

#[test]
fn packets_past_what_is_caught() {
    attempt("import socket; socket.socket(17, socket.SOCK_RAW, 0); return 'open'")
        .with_network()
        .fails("EAFNOSUPPORT")
        .works_without(SECCOMP | CAPABILITIES, Who::Root, "open");
    attempt("import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 6); return 'open'")
        .with_network()
        .fails("EPERM")
        .works_without(CAPABILITIES, Who::Root, "open");
}

#[test]
fn other_protocols_than_those_that_are_carried() {
    // That nobody receives the first datagram is told to the sender of the second.
    let code = r#"
    import socket
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((given("ADDRESS"), 443))
    for _ in range(2):
        sender.send(b"x")
    return "sent"
"#;
    for address in ["203.0.113.7", "8.8.8.8", "10.0.0.1"] {
        attempt(code)
            .given("ADDRESS", address)
            .with_network()
            .fails("ECONNREFUSED");
    }
}

#[test]
fn services_on_the_hosts_loopback() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let code = r#"
    import socket
    socket.create_connection((given("ADDRESS"), int(given("PORT"))), timeout=9)
    return "connected"
"#;
    for address in [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "0.0.0.0",
        "::ffff:127.0.0.1",
    ] {
        attempt(code)
            .given("ADDRESS", address)
            .given("PORT", port)
            .with_network()
            .fails("ECONNREFUSED")
            .works_on_host("connected");
    }
}

#[tokio::test]
async fn another_sandbox_by_the_address_that_both_have() {
    let listen = r#"
    import socket
    listener = socket.create_server(("0.0.0.0", 8000))
    ready()
"#;
    let connect = r#"
    import socket
    socket.create_connection(("192.0.0.2", 8000), timeout=9)
    return "connected"
"#;
    let lab = Lab::new();
    let (victim, attacker) = (lab.networked().await, lab.networked().await);
    let running = victim.start(Who::User, listen, &[]).await;
    let tried = [&attacker, &victim].map(|sandbox| sandbox.python(Who::User, connect));
    let [attacked, own] = tried;
    assert_eq!(attacked.await, "ECONNREFUSED");
    assert_eq!(own.await, "connected");
    running.finish().await;
}
