//! The worker's side of its connection: one request comes in, replies go out.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sandbox_agent::protocol::Wire;
use sandbox_agent::protocol::files::{FileReply, FileRequest};

use super::error::FileError;
use crate::sys::{file, socket};

/// Steps of a long operation between two looks at whether anybody still waits for it.
const STEPS_PER_LOOK: u32 = 64;

/// The peer is gone, or does not keep to the protocol: nothing can be answered any more.
#[derive(Debug)]
pub(super) struct Gone;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) enum Abort {
    /// It failed; the peer is told.
    Failed(FileError),
    /// Nobody waits for it any more.
    Gone,
}

impl From<FileError> for Abort {
    fn from(error: FileError) -> Self {
        Self::Failed(error)
    }
}

impl From<Gone> for Abort {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// The result of an operation that may take long or answer more than once.
pub(super) type Outcome<T> = std::result::Result<T, Abort>;

/// A connection to the host.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    steps: Cell<u32>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            steps: Cell::new(0),
        }
    }

    /// Waits for a request. `None`: there will be no more.
    pub(super) fn receive(&self) -> Result<Option<Result<FileRequest, FileError>>, Gone> {
        let Some(message) = socket::receive(self.socket.as_fd()).map_err(|_| Gone)? else {
            return Ok(None);
        };
        if !message.fds.is_empty() {
            return Ok(Some(Err(FileError::new(
                libc::EPROTO,
                "a file request comes without descriptors",
            ))));
        }
        let invalid = |error| FileError::new(libc::EPROTO, format!("file request: {error}"));
        Ok(Some(FileRequest::decode(&message.bytes).map_err(invalid)))
    }

    /// Sends a reply, and a descriptor with it. Waits while the peer is behind.
    pub(super) fn send(&self, reply: &FileReply, fd: Option<BorrowedFd<'_>>) -> Result<(), Gone> {
        socket::send(self.socket.as_fd(), &reply.encode(), fd.as_slice())
            .map_err(|_: io::Error| Gone)
    }

    /// To be called at each step of an operation that takes long: ends it if the peer has hung up.
    pub(super) fn still_wanted(&self) -> Result<(), Gone> {
        let steps = self.steps.get().wrapping_add(1);
        self.steps.set(steps);
        if steps.is_multiple_of(STEPS_PER_LOOK) && file::is_hung_up(self.socket.as_fd()) {
            Err(Gone)
        } else {
            Ok(())
        }
    }
}
