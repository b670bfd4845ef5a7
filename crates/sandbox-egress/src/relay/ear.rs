//! Finds the name in the first bytes of a connection, by the protocol that they are of.

use super::{http, sandbox::Heard};
use crate::Name;
use rustls::server::Acceptor;

/// Most bytes that are read for a name.
pub(super) const MOST: usize = 16 * 1024;

/// Content types of TLS records (RFC 8446, section 5.1), of which a connection begins with the handshake.
const HANDSHAKE: u8 = 22;
const OTHER_RECORDS: [u8; 4] = [20, 21, 23, 24];

/// What the first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) heard: Heard,
    /// Whether they begin a request of HTTP/1 with a name. More requests may follow, with other names.
    pub(super) is_http: bool,
}

impl From<Heard> for Said {
    fn from(heard: Heard) -> Self {
        Self {
            heard,
            is_http: false,
        }
    }
}

/// Listens to the beginning of one connection.
#[derive(Default)]
pub(super) struct Ear {
    tls: Acceptor,
    /// How much TLS has heard, and where the last line ended.
    taken: usize,
}

impl Ear {
    /// What all bytes so far say; `None` if more are needed.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Option<Said> {
        match bytes {
            [] => None,
            [HANDSHAKE, ..] => self.hear_tls(bytes),
            // A server that takes these before the handshake would take the rest as well.
            [first] if OTHER_RECORDS.contains(first) => None,
            [first, 3, ..] if OTHER_RECORDS.contains(first) => Some(Heard::Hidden.into()),
            // A greeting of the form that SSL 2 had, which has no room for a name.
            [0x80..=0xff, _, 1, ..] => Some(Heard::Hidden.into()),
            [0x80..=0xff] | [0x80..=0xff, _] => None,
            _ => self.hear_http(bytes),
        }
        .or_else(|| (bytes.len() >= MOST).then(|| Heard::Hidden.into()))
    }

    /// What the bytes say if no more come.
    pub(super) fn hear_no_more(bytes: &[u8]) -> Said {
        if bytes.is_empty() {
            Heard::Nothing.into()
        } else {
            // What has begun like TLS or HTTP and does not go on may still do so on the other side.
            Heard::Hidden.into()
        }
    }

    fn hear_tls(&mut self, bytes: &[u8]) -> Option<Said> {
        let mut rest = &bytes[self.taken..];
        while !rest.is_empty() {
            if self.tls.read_tls(&mut rest).is_err() {
                return Some(Heard::Hidden.into());
            }
            self.taken = bytes.len() - rest.len();
            match self.tls.accept() {
                Ok(None) => {}
                Err(_) => return Some(Heard::Hidden.into()),
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let name = hello.server_name().and_then(|name| Name::new(name).ok());
                    return Some(name.map_or(Heard::Hidden, Heard::Name).into());
                }
            }
        }
        None
    }

    fn hear_http(&mut self, bytes: &[u8]) -> Option<Said> {
        match http::is_request(bytes) {
            Some(false) => return Some(Heard::Nothing.into()),
            // A request ends with a line.
            Some(true) if bytes[self.taken..].contains(&b'\n') => self.taken = bytes.len(),
            Some(true) | None => return None,
        }
        match http::head(bytes, true) {
            http::Parsed::More => None,
            http::Parsed::Bad => Some(Heard::Hidden.into()),
            http::Parsed::Whole(head) => Some(match head.name {
                None => Heard::Hidden.into(),
                Some(name) => Said {
                    heard: Heard::Name(name),
                    is_http: true,
                },
            }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
