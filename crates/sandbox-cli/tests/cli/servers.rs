//! Servers in sandboxes, reached from this machine.

use crate::support::{Home, Talk, wait_for};
use rustix::process::Signal;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// Listens on its loopback address only.
fn start_server(home: &Home, id: &str, port: u16) {
    let serve = format!(
        "mkdir -p /tmp/www && echo from $HOSTNAME inside > /tmp/www/index.html && \
         exec python3 -m http.server {port} --bind 127.0.0.1 --directory /tmp/www > /tmp/log 2>&1 &"
    );
    home.sandbox(&["exec", id, "--", "sh", "-c", &serve]).ok();
}

/// Starts a command that serves until it is stopped.
fn serving(home: &Home, args: &[&str]) -> Talk {
    // The tests themselves may run under `nohup`.
    Talk::start(home.command_by(&["env", "--default-signal"], args))
}

/// What a server says to a request of this host; nothing if it could not be asked.
fn get(address: SocketAddr, host: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        let asked = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        // It may be reset at any time.
        let _ = stream.write_all(asked.as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

#[track_caller]
fn wait_for_page(address: SocketAddr, host: &str) {
    wait_for("the page", || {
        let answer = get(address, host);
        answer.contains(" 200 OK\r\n") && answer.ends_with("inside\n")
    });
}

/// The address at the beginning of a line.
fn address(line: &str) -> SocketAddr {
    let word = line.split(' ').next().unwrap();
    word.parse().unwrap_or_else(|_| panic!("{line:?}"))
}

#[test]
fn a_port_is_served_until_ctrl_c_by_its_own_number_or_another() {
    let home = Home::shared();
    let id = home.create(&["--name", "served"]);
    let mut first = serving(&home, &["port", "served", "18123"]);
    let line = first.line();
    assert!(line.ends_with(" is port 18123 of served"), "{line}");
    let at = address(&line);
    assert!(at.ip().is_loopback(), "{at}");
    // Nobody listens yet, which is said once.
    assert_eq!((get(at, "x"), get(at, "x")), (String::new(), String::new()));
    start_server(&home, &id, 18123);
    wait_for_page(at, "x");

    let mut second = serving(&home, &["port", &id, "18123", "18124"]);
    let taken = address(&second.line());
    assert_ne!(taken, at);
    wait_for_page(taken, "x");
    let line = second.line();
    assert!(line.ends_with(&format!(" is port 18124 of {id}")), "{line}");
    second.signal(Signal::TERM);
    second.finish().assert_code(143);

    first.signal(Signal::INT);
    let outcome = first.finish();
    outcome.assert_code(130);
    let told = outcome.stderr.matches("nobody listens on it").count();
    assert_eq!(told, 1, "{outcome:?}");
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn where_a_port_is_served_can_be_said() {
    let home = Home::shared();
    let id = home.create(&[]);
    start_server(&home, &id, 8000);
    let mut talk = serving(
        &home,
        &["port", &id, "8000", "--listen", "127.0.0.2:0", "--json"],
    );
    let mut json = String::new();
    while !json.ends_with("]\n") {
        json += &(talk.line() + "\n");
    }
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["port"], 8000);
    let at = address(json[0]["address"].as_str().unwrap());
    assert_eq!(at.ip().to_string(), "127.0.0.2");
    wait_for_page(at, "x");

    // What is asked for and cannot be had is no other one.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port().to_string();
    let refused = home.sandbox(&["port", &id, "8000", "--listen", &taken]);
    refused.assert_refused(&format!("cannot listen on 127.0.0.1:{taken}"));
    let several = home.sandbox(&["port", &id, "1", "2", "--listen", "9000"]);
    several.assert_refused("several ports");
    home.sandbox(&["port", "no-such", "1"])
        .assert_refused("no sandbox");

    // It ends with the sandbox.
    home.sandbox(&["kill", &id]).ok();
    let outcome = talk.finish();
    outcome.assert_code(125);
    assert!(
        outcome.stderr.contains("the sandbox has ended"),
        "{outcome:?}"
    );
}

#[test]
fn all_sandboxes_are_served_by_name() {
    let home = Home::shared();
    let id = home.create(&["--name", "named"]);
    start_server(&home, &id, 8000);
    let mut talk = serving(&home, &["proxy", "--listen", "0"]);
    let url = talk.line();
    let port = url
        .strip_prefix("http://<port>-<sandbox>.localhost:")
        .unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    wait_for_page(at, &format!("8000-named.localhost:{port}"));
    wait_for_page(at, &format!("8000-{id}.localhost"));
    let later = home.create(&["--name", "later"]);
    start_server(&home, &later, 9000);
    wait_for_page(at, "9000-later.localhost");
    for (host, words) in [
        ("8000-gone.localhost", " 404 "),
        ("8001-named.localhost", " 502 "),
        ("example.com", " 421 "),
    ] {
        let answer = get(at, host);
        assert!(answer.contains(words), "{host}: {answer}");
    }
    talk.signal(Signal::INT);
    talk.finish().assert_code(130);
}
