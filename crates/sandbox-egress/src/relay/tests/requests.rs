//! HTTP under rules for names: every request is for a host that may be reached.

use super::*;
use std::io::Write;

/// A connection to a host of that name, beside which none is allowed.
struct Site {
    sandbox: Captured,
    remote: Remote,
}

impl Site {
    fn new() -> Self {
        let sandbox = Captured::new(only(&["a.example", "b.example"]));
        sandbox
            .nameserver
            .know_addresses("a.example", &["127.0.0.7"]);
        sandbox
            .nameserver
            .know_addresses("b.example", &["127.0.0.7"]);
        sandbox.learn("a.example.");
        sandbox.learn("b.example.");
        let remote = sandbox.remote("127.0.0.7");
        Self { sandbox, remote }
    }

    fn send(&self, bytes: &str) -> std::net::TcpStream {
        let mut program = self.sandbox.connect("127.0.0.7");
        program.write_all(bytes.as_bytes()).unwrap();
        program
    }
}

fn expect(stream: &mut std::net::TcpStream, text: &str) {
    let found = String::from_utf8(read(stream, text.len())).unwrap();
    assert_eq!(found, text);
}

const FIRST: &str = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\n";
const SECOND: &str = "GET /2 HTTP/1.1\r\nHost: b.example\r\n\r\n";
const OTHER: &str = "GET /3 HTTP/1.1\r\nHost: c.example\r\n\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn requests_to_allowed_hosts_go_through_one_after_the_other() {
    let site = Site::new();
    let mut program = site.send(&format!("{FIRST}ab"));
    let mut other = site.remote.accept();
    expect(&mut other, &format!("{FIRST}ab"));
    program
        .write_all(format!("c{SECOND}{CHUNKED}").as_bytes())
        .unwrap();
    expect(&mut other, &format!("c{SECOND}{CHUNKED}"));
    other.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    expect(&mut program, "HTTP/1.1 100 Continue\r\n\r\n");
    let long = "x".repeat(100_000);
    program
        .write_all(
            format!(
                "3;a=b\r\nabc\r\n{:x}\r\n{long}\r\n0\r\nT:  1\r\n\r\n{SECOND}",
                long.len()
            )
            .as_bytes(),
        )
        .unwrap();
    expect(
        &mut other,
        &format!(
            "3\r\nabc\r\n{:x}\r\n{long}\r\n0\r\nT: 1\r\n\r\n{SECOND}",
            long.len()
        ),
    );
    program.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
    other.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    drop(other);
    let mut answer = String::new();
    program.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(
        site.sandbox
            .log
            .wait(NetworkEventKind::Closed)
            .name
            .as_deref(),
        Some("a.example")
    );
}

#[test]
fn a_request_to_another_host_ends_the_connection_however_it_is_hidden() {
    for (before, after) in [
        (format!("{FIRST}abc"), OTHER.to_owned()),
        (SECOND.to_owned(), OTHER.to_owned()),
        (SECOND.to_owned(), "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (SECOND.to_owned(), "\0\0".to_owned()),
        (SECOND.to_owned(), "PRI * HTTP/2.0\r\n\r\n".to_owned()),
        (SECOND.to_owned(), "GET http://c.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned()),
        (SECOND.to_owned(), "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned()),
        (SECOND.to_owned(), "A / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
        (format!("{CHUNKED}1\r\na\r\n0\r\n\r\n"), OTHER.to_owned()),
    ] {
        let site = Site::new();
        let mut program = site.send(&before);
        let mut other = site.remote.accept();
        expect(&mut other, &before);
        let _ = program.write_all(after.as_bytes());
        let mut leaked = Vec::new();
        other.read_to_end(&mut leaked).unwrap_err();
        assert_eq!(leaked, b"", "{after:?}");
        assert_reset(&mut program);
        site.sandbox.log.wait(NetworkEventKind::Denied);
    }
}

#[test]
fn chunks_that_cannot_be_read_end_the_connection() {
    for bad in [
        "g\r\n",
        "1\r\nabc",
        "-1\r\n",
        "0\r\nHost: c.example\r\n\r\n",
    ] {
        let site = Site::new();
        let mut program = site.send(CHUNKED);
        let mut other = site.remote.accept();
        expect(&mut other, CHUNKED);
        let _ = program.write_all(bad.as_bytes());
        assert!(other.read_to_end(&mut Vec::new()).is_err(), "{bad:?}");
        assert_reset(&mut program);
    }
}

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_websocket_is_no_more_http() {
    let site = Site::new();
    let mut program = site.send(UPGRADE);
    let mut other = site.remote.accept();
    expect(&mut other, UPGRADE);
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello";
    let (early, late) = switch.split_at(20);
    other
        .write_all(format!("HTTP/1.1 103 Early Hints\r\n\r\n{early}").as_bytes())
        .unwrap();
    expect(&mut program, "HTTP/1.1 103 Early Hints\r\n\r\n");
    other.write_all(late.as_bytes()).unwrap();
    expect(&mut program, switch);
    program.write_all(OTHER.as_bytes()).unwrap();
    expect(&mut other, OTHER);
    other.write_all(b"frame").unwrap();
    expect(&mut program, "frame");
}

#[test]
fn what_was_to_be_a_websocket_and_is_none_stays_http() {
    let site = Site::new();
    let mut program = site.send(&format!("{UPGRADE}{OTHER}"));
    let mut other = site.remote.accept();
    expect(&mut other, UPGRADE);
    other
        .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut leaked = Vec::new();
    other.read_to_end(&mut leaked).unwrap_err();
    assert_eq!(leaked, b"");
    assert!(program.read_to_end(&mut Vec::new()).is_err());
    site.sandbox.log.wait(NetworkEventKind::Denied);
}

#[test]
fn a_websocket_may_be_asked_for_late() {
    let site = Site::new();
    let mut program = site.sandbox.connect("127.0.0.7");
    // It was let through for saying nothing.
    let mut other = site.remote.accept();
    program.write_all(UPGRADE.as_bytes()).unwrap();
    expect(&mut other, UPGRADE);
    let switch = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    other.write_all(switch.as_bytes()).unwrap();
    expect(&mut program, switch);
    program.write_all(OTHER.as_bytes()).unwrap();
    expect(&mut other, OTHER);
}

#[test]
fn who_has_been_spoken_to_asks_for_no_websocket() {
    let site = Site::new();
    let mut program = site.sandbox.connect("127.0.0.7");
    let mut other = site.remote.accept();
    other.write_all(b"hello").unwrap();
    expect(&mut program, "hello");
    program.write_all(UPGRADE.as_bytes()).unwrap();
    let left = UPGRADE.replace("Upgrade: websocket\r\n", "");
    expect(&mut other, &left);
    other
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        .unwrap();
    program.write_all(OTHER.as_bytes()).unwrap();
    assert!(program.read_to_end(&mut Vec::new()).is_err());
    site.sandbox.log.wait(NetworkEventKind::Denied);
}
