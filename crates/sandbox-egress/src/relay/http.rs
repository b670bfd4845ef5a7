//! Requests of HTTP/1 as they are understood here: which host they name and where they end. What is forwarded is written
//! anew from what was understood, so that whoever reads it next cannot understand something else.

use crate::Name;
use httparse::{EMPTY_HEADER, Header, Request, Status};

/// Most fields of a request.
const MOST_FIELDS: usize = 128;

/// Methods that every server knows: what begins with one is a request, whatever follows.
const METHODS: [&[u8]; 10] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE", b"PRI",
];

/// The beginning of a request, to the end of its fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The host; `None` where it is missing, no name, or said in two ways.
    pub(super) name: Option<Name>,
    /// How many bytes it took.
    pub(super) length: usize,
    /// What is forwarded.
    pub(super) bytes: Vec<u8>,
    pub(super) body: Body,
    /// Whether it asks for a WebSocket.
    pub(super) is_upgrade: bool,
}

/// What follows the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Bytes(u64),
    Chunks,
}

/// What was found in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<T> {
    More,
    /// Nobody knows how others would read it.
    Bad,
    Whole(T),
}

/// Whether bytes begin something that a server may take for a request; `None` if more are needed to tell.
pub(super) fn is_request(bytes: &[u8]) -> Option<bool> {
    // Servers pass over these before a request.
    let start = bytes.iter().position(|byte| !is_space(*byte))?;
    let line = &bytes[start..];
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = line.iter().position(|byte| !is_token(byte))?;
    if end == 0 || !is_space(line[end]) {
        return Some(false);
    }
    if METHODS.contains(&&line[..end]) {
        return Some(true);
    }
    let end = line.iter().position(|byte| matches!(byte, b'\n' | 0))?;
    if line[end] == 0 {
        // No server goes on reading.
        return Some(false);
    }
    let mut words = line[..end].windows(5);
    Some(words.any(|word| word.eq_ignore_ascii_case(b"http/")))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c)
}

/// Reads the beginning of a request. Only the first of a connection may ask for a WebSocket.
pub(super) fn head(bytes: &[u8], is_first: bool) -> Parsed<Head> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut request = Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Parsed::More,
        Err(_) => return Parsed::Bad,
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Parsed::Bad;
    };
    let Some(body) = body(request.headers, version) else {
        return Parsed::Bad;
    };
    let is_upgrade = is_first && body == Body::Bytes(0) && asks_for_websocket(request.headers);
    let mut written = format!("{method} {target} HTTP/1.{version}\r\n").into_bytes();
    for field in request.headers.iter() {
        // Whatever else it is, another protocol than this one would follow.
        if is_upgrade || !field.name.eq_ignore_ascii_case("upgrade") {
            write_field(&mut written, field);
        }
    }
    written.extend(b"\r\n");
    Parsed::Whole(Head {
        name: name(method, target, request.headers),
        length,
        bytes: written,
        body,
        is_upgrade,
    })
}

fn write_field(written: &mut Vec<u8>, field: &Header<'_>) {
    written.extend(field.name.as_bytes());
    written.extend(b": ");
    written.extend(field.value);
    written.extend(b"\r\n");
}

fn values<'a>(fields: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let mut fields = fields.iter();
    std::iter::from_fn(move || {
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(field.value.trim_ascii())
    })
}

/// The value of a field that may be there once.
fn only<'a>(fields: &'a [Header<'_>], name: &'a str) -> Result<Option<&'a [u8]>, Twice> {
    let mut values = values(fields, name);
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Twice),
    }
}

struct Twice;

/// What the fields say of the body. Where they can be read in two ways, they are not read at all (RFC 9112, section 6.3).
fn body(fields: &[Header<'_>], version: u8) -> Option<Body> {
    let length = only(fields, "content-length").ok()?;
    let coding = only(fields, "transfer-encoding").ok()?;
    match (length, coding) {
        (None, None) => Some(Body::Bytes(0)),
        (Some(length), None) => {
            let is_number =
                (1..=18).contains(&length.len()) && length.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(length).ok().filter(|_| is_number)?;
            length.parse().ok().map(Body::Bytes)
        }
        (None, Some(coding)) => {
            let is_chunked = version == 1 && coding.eq_ignore_ascii_case(b"chunked");
            is_chunked.then_some(Body::Chunks)
        }
        (Some(_), Some(_)) => None,
    }
}

fn asks_for_websocket(fields: &[Header<'_>]) -> bool {
    matches!(only(fields, "upgrade"), Ok(Some(value)) if value.eq_ignore_ascii_case(b"websocket"))
}

/// The host that a request names. One for a proxy names another one.
fn name(method: &str, target: &str, fields: &[Header<'_>]) -> Option<Name> {
    let host = only(fields, "host").ok()??;
    let name = host_name(std::str::from_utf8(host).ok()?)?;
    if method == "CONNECT" {
        return None;
    }
    if target.starts_with('/') || target == "*" {
        return Some(name);
    }
    let (scheme, rest) = target.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let is_same = scheme.eq_ignore_ascii_case("http") && host_name(&rest[..end])? == name;
    is_same.then_some(name)
}

/// The name in `name` or `name:port`.
fn host_name(host: &str) -> Option<Name> {
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    Name::new(name).ok().filter(|_| is_port)
}

/// The length of the chunk that begins here, and of the line that says so.
pub(super) fn chunk(bytes: &[u8]) -> Parsed<(usize, u64)> {
    match httparse::parse_chunk_size(bytes) {
        Ok(Status::Complete(found)) => Parsed::Whole(found),
        Ok(Status::Partial) => Parsed::More,
        Err(_) => Parsed::Bad,
    }
}

/// The fields after the last chunk, how many bytes they took and what is forwarded.
pub(super) fn trailer(bytes: &[u8]) -> Parsed<(usize, Vec<u8>)> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let (length, fields) = match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete(found)) => found,
        Ok(Status::Partial) => return Parsed::More,
        Err(_) => return Parsed::Bad,
    };
    let mut written = Vec::new();
    for field in fields {
        let is_framing = ["host", "content-length", "transfer-encoding", "upgrade"]
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name));
        if is_framing {
            return Parsed::Bad;
        }
        write_field(&mut written, field);
    }
    written.extend(b"\r\n");
    Parsed::Whole((length, written))
}

/// The status of an answer, and where its fields end.
pub(super) fn status(bytes: &[u8]) -> Parsed<(usize, u16)> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match (response.parse(bytes), response.code) {
        (Ok(Status::Complete(length)), Some(code)) => Parsed::Whole((length, code)),
        (Ok(Status::Partial), _) => Parsed::More,
        _ => Parsed::Bad,
    }
}

#[cfg(test)]
mod tests;
