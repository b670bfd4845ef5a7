//! What is understood of requests, and what is forwarded of them.

use super::*;
use proptest::prelude::*;

fn whole(request: &str) -> Head {
    match head(request.as_bytes(), true) {
        Parsed::Whole(head) => head,
        other => panic!("{request:?}: {other:?}"),
    }
}

fn named(request: &str) -> Option<String> {
    whole(request).name.map(|name| name.to_string())
}

fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

#[test]
fn the_host_is_said_once_and_everywhere_the_same() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.0\r\nhost:A.Example.\r\n\r\n",
        "GET http://a.example/b?c HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
        "GET http://A.example:80?c HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\nHost: a.example\n\n",
    ] {
        assert_eq!(named(request).as_deref(), Some("a.example"), "{request:?}");
    }
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHOST: b.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example:80:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example:x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 2130706433\r\n\r\n",
        "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET http://u@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET http://a.example\\@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET a.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    ] {
        assert_eq!(named(request), None, "{request:?}");
    }
}

#[test]
fn what_others_may_read_otherwise_is_not_read() {
    for fields in [
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 9999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " folded: x\r\n",
        "X: a\r\n b\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        ": x\r\n",
        "x\r\n",
    ] {
        assert_eq!(
            head(with(fields).as_bytes(), true),
            Parsed::Bad,
            "{fields:?}"
        );
    }
    for request in [
        "GET / HTTP/1.1 \r\nHost: a.example\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a.example\r\n\r\n",
        "GET / http/1.1\r\nHost: a.example\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(head(request.as_bytes(), true), Parsed::Bad, "{request:?}");
        assert_ne!(is_request(request.as_bytes()), Some(false), "{request:?}");
    }
}

#[test]
fn it_is_known_what_follows_the_fields() {
    assert_eq!(whole(&with("")).body, Body::Bytes(0));
    assert_eq!(whole(&with("content-length: 12\r\n")).body, Body::Bytes(12));
    assert_eq!(
        whole(&with("Transfer-Encoding: Chunked\r\n")).body,
        Body::Chunks
    );
    assert_eq!(chunk(b"1f;x=y\r\nabc"), Parsed::Whole((8, 31)));
    assert_eq!(chunk(b"1f"), Parsed::More);
    for bad in [
        b"-1\r\n".as_slice(),
        b"1f\n",
        b"g\r\n",
        b"11111111111111111\r\n",
    ] {
        assert_eq!(chunk(bad), Parsed::Bad, "{bad:?}");
    }
    assert_eq!(trailer(b"\r\n"), Parsed::Whole((2, b"\r\n".to_vec())));
    assert_eq!(
        trailer(b"A:b\n\nx"),
        Parsed::Whole((5, b"A: b\r\n\r\n".to_vec()))
    );
    assert_eq!(trailer(b"Host: b.example\r\n\r\n"), Parsed::Bad);
}

#[test]
fn what_is_forwarded_is_written_anew() {
    let request = "GET /a HTTP/1.1\nHost:a.example \nX:   y  z\t\nUpgrade: h2c\n\nrest";
    let head = whole(request);
    let written = "GET /a HTTP/1.1\r\nHost: a.example\r\nX: y  z\r\n\r\n";
    assert_eq!(String::from_utf8(head.bytes).unwrap(), written);
    assert_eq!(&request[head.length..], "rest");
    assert!(!head.is_upgrade);
}

#[test]
fn only_a_websocket_is_another_protocol_and_only_at_first() {
    let request = with("Connection: Upgrade\r\nUpgrade: WebSocket\r\n");
    let first = whole(&request);
    assert!(first.is_upgrade);
    assert_eq!(String::from_utf8(first.bytes).unwrap(), request);
    let Parsed::Whole(later) = head(request.as_bytes(), false) else {
        panic!("it is whole");
    };
    assert!(!later.is_upgrade);
    assert!(!String::from_utf8(later.bytes).unwrap().contains("Upgrade:"));
    for fields in [
        "Upgrade: h2c\r\n",
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket\r\nContent-Length: 1\r\n",
    ] {
        let head = whole(&with(fields));
        assert!(!head.is_upgrade, "{fields:?}");
        assert!(!String::from_utf8(head.bytes).unwrap().contains("Upgrade"));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_understood_as_it_was(
        fields in prop::collection::vec(("[A-Za-z-]{1,12}|Host|Upgrade", "[ -~]{0,20}"), 0..8),
        ends in prop::sample::select(vec!["\r\n", "\n"]),
    ) {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}:{value}{ends}")).collect();
        let request = format!("PUT /x HTTP/1.1{ends}Host: a.example{ends}{fields}{ends}");
        if let Parsed::Whole(first) = head(request.as_bytes(), true) {
            let Parsed::Whole(again) = head(&first.bytes, true) else {
                panic!("{:?}", first.bytes);
            };
            prop_assert_eq!(&again.bytes, &first.bytes);
            prop_assert_eq!(again.length, again.bytes.len());
            prop_assert_eq!(again.name, first.name);
            prop_assert_eq!(again.body, first.body);
            prop_assert_eq!(again.is_upgrade, first.is_upgrade);
        }
    }

    #[test]
    fn nothing_that_is_read_is_taken_for_another_protocol(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Parsed::Whole(_) = head(&bytes, true) {
            prop_assert_eq!(is_request(&bytes), Some(true));
        }
    }
}
