//! What of a message is about one connection alone, and what the server inside is told of the other one.

use hyper::{
    HeaderMap, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
        TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};
use std::net::IpAddr;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removes what is about the connection that a message came by (RFC 9110, 7.6.1).
///
/// How its body ends is told anew by what sends it on, so that both sides of the proxy agree on that.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<_> = tokens(headers, &CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .collect();
    let trailers = tokens(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes a length that the body does not have.
pub(crate) fn strip_length(headers: &mut HeaderMap, body: Option<u64>) {
    if body.is_none() {
        headers.remove(CONTENT_LENGTH);
    }
}

/// The protocol that a message asks to go on with, or that it agrees to.
///
/// HTTP/2 is none: it is spoken from the first byte on, or not at all.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let http2 = tokens(headers, &UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("h2c"));
    headers.get(UPGRADE).filter(|_| asked && !http2).cloned()
}

/// Asks for a protocol, or agrees to it.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Says by whom and under which name the server was asked. What the client claims of itself is not passed on: a server that
/// believes these fields would believe anybody.
pub(crate) fn forwarded(headers: &mut HeaderMap, peer: IpAddr, host: &HeaderValue, by: Version) {
    headers.remove(FORWARDED);
    headers.remove(PROXY_AUTHORIZATION);
    if let Ok(peer) = HeaderValue::from_str(&peer.to_canonical().to_string()) {
        headers.insert(FORWARDED_FOR, peer);
    }
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    let version = match by {
        Version::HTTP_10 => "1.0 sandbox-proxy",
        Version::HTTP_2 => "2.0 sandbox-proxy",
        _ => "1.1 sandbox-proxy",
    };
    headers.append(VIA, HeaderValue::from_static(version));
}

/// The host that HTTP/1.1 names. One that is named twice is none.
pub(crate) fn only_host(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut all = headers.get_all(HOST).iter();
    let first = all.next();
    first.filter(|_| all.next().is_none())
}

/// The members of a list that may be spread over several fields.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_is_about_the_connection_is_removed() {
        let mut all = headers(&[
            ("connection", "close, X-Own"),
            ("connection", "upgrade"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AA"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        strip(&mut all);
        let left = headers(&[("trailer", "x-sum"), ("accept", "*/*"), ("te", "trailers")]);
        assert_eq!(all, left);
    }

    #[test]
    fn an_upgrade_is_asked_for_by_both_fields_and_never_to_http2() {
        let asked = |connection, protocol| {
            let all = headers(&[("connection", connection), ("upgrade", protocol)]);
            upgrade(&all).is_some()
        };
        assert!(asked("keep-alive, Upgrade", "websocket"));
        assert!(!asked("keep-alive", "websocket"));
        assert!(!asked("upgrade", "h2c"));
        assert!(!asked("upgrade", "websocket, h2c"));
    }

    #[test]
    fn the_clients_claims_are_replaced() {
        let mut all = headers(&[
            ("x-forwarded-for", "203.0.113.1"),
            ("x-forwarded-for", "203.0.113.2"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=203.0.113.1"),
            ("proxy-authorization", "Basic AA"),
        ]);
        let peer = "::ffff:127.0.0.1".parse().unwrap();
        let host = HeaderValue::from_static("1-a.localhost");
        forwarded(&mut all, peer, &host, Version::HTTP_11);
        let told = headers(&[
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", "1-a.localhost"),
            ("x-forwarded-proto", "http"),
            ("via", "1.1 sandbox-proxy"),
        ]);
        assert_eq!(all, told);
    }

    #[test]
    fn a_host_is_named_once() {
        assert!(only_host(&headers(&[("host", "a")])).is_some());
        assert!(only_host(&headers(&[])).is_none());
        assert!(only_host(&headers(&[("host", "a"), ("host", "b")])).is_none());
    }
}
