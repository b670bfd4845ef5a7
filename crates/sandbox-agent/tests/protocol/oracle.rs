//! What must hold of any bytes that a peer may send, for tests and for the fuzz target `protocol`.

use std::fmt::Debug;

use sandbox_agent::protocol::{
    Wire,
    agent::{Event, Request},
    files::{FileReply, FileRequest},
    sudo::{SudoControl, SudoReply, SudoRequest},
    zygote::{Configure, Reply, Request as ZygoteRequest},
};

/// One check for each kind of message.
pub(crate) const KINDS: [fn(&[u8]) -> bool; 10] = [
    check::<Configure>,
    check::<ZygoteRequest>,
    check::<Reply>,
    check::<Request>,
    check::<Event>,
    check::<FileRequest>,
    check::<FileReply>,
    check::<SudoRequest>,
    check::<SudoControl>,
    check::<SudoReply>,
];

/// Decodes `bytes`, which must not panic; a message that comes of it has these bytes as its only encoding.
///
/// Says whether the bytes were a message.
fn check<M: Wire + Debug + PartialEq>(bytes: &[u8]) -> bool {
    let Ok(message) = M::decode(bytes) else {
        return false;
    };
    assert_eq!(message.encode(), bytes, "{message:?} has two encodings");
    assert_eq!(M::decode(&message.encode()).as_ref(), Ok(&message));
    true
}
