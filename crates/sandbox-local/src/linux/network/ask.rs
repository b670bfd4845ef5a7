//! A question to another program of the same user and its answer, one packet each.

use crate::linux::{made::wait, socket};
use rustix::net::{RecvFlags, SendFlags};
use sandbox_core::Error;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// What is said if all went well.
pub(super) const DONE: &[u8] = b"done";

/// Longest question, and longest answer.
pub(super) const LONGEST: usize = 1024;

/// A connection to the socket of this name; `None` if nobody listens there.
pub(super) fn connect(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<OwnedFd>> {
    use io::ErrorKind::{ConnectionRefused, NotFound};

    match socket::connect(directory, name) {
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => Ok(None),
        connection => connection.map(Some),
    }
}

/// Asks whoever listens at the socket of this name; `None` if nobody does.
pub(super) fn ask(
    directory: BorrowedFd<'_>,
    name: &str,
    question: &[u8],
    within: Duration,
) -> io::Result<Option<Vec<u8>>> {
    let Some(connection) = connect(directory, name)? else {
        return Ok(None);
    };
    rustix::net::send(&connection, question, SendFlags::NOSIGNAL)?;
    if !wait(connection.as_fd(), within) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut answer = vec![0; LONGEST];
    match rustix::net::recv(&connection, answer.as_mut_slice(), RecvFlags::empty())?.0 {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => {
            answer.truncate(length);
            Ok(Some(answer))
        }
    }
}

/// An answer that says why something could not be done.
pub(super) fn reason(error: &Error) -> Vec<u8> {
    error.to_string().bytes().take(LONGEST).collect()
}

/// The reason in an answer.
pub(super) fn refused(answer: &[u8]) -> io::Error {
    io::Error::other(String::from_utf8_lossy(answer).into_owned())
}
