//! The worker's side of its connection: one request comes in, replies go out.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use sandbox_agent::protocol::Wire;
use sandbox_agent::protocol::files::{FileReply, FileRequest};

use super::error::FileError;
use crate::sys::{file, pipe, socket, wait};

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
    /// Closed at its other end if a worker without a request had better end.
    farewell: Option<OwnedFd>,
    idle: Duration,
    served: Cell<bool>,
    steps: Cell<u32>,
}

impl Connection {
    /// A connection on which a request comes within `idle` and before `farewell` is closed, or none.
    pub(super) fn new(socket: OwnedFd, farewell: Option<OwnedFd>, idle: Duration) -> Self {
        Self {
            socket,
            farewell,
            idle,
            served: Cell::new(false),
            steps: Cell::new(0),
        }
    }

    /// Waits for a request. `None`: there will be no more, or there was none for so long that the worker had better end.
    pub(super) fn receive(&self) -> Result<Option<Result<FileRequest, FileError>>, Gone> {
        let waited = [
            Some(self.socket.as_fd()),
            // Who has asked for this worker has a first request, which is on its way.
            self.farewell
                .as_ref()
                .filter(|_| self.served.get())
                .map(OwnedFd::as_fd),
        ];
        let [comes, _] = wait::poll(waited, Some(self.idle)).map_err(|_| Gone)?;
        if !comes {
            // From here on the peer cannot send, and knows. What it has sent just before is still served.
            socket::shut_reading(self.socket.as_fd()).map_err(|_| Gone)?;
        }
        self.served.set(true);
        let received = socket::receive(self.socket.as_fd());
        let Some(message) = received.map_err(|_| Gone)? else {
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

    /// Sends a reply if the peer takes one now. Only while sending does not wait.
    pub(super) fn try_send(&self, reply: &FileReply) -> Result<bool, Gone> {
        match socket::send(self.socket.as_fd(), &reply.encode(), &[]) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Gone),
        }
    }

    /// Whether sending waits while the peer is behind.
    pub(super) fn set_waiting(&self, waiting: bool) -> Result<(), Gone> {
        pipe::set_nonblocking(self.socket.as_fd(), !waiting).map_err(|_| Gone)
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

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> FileRequest {
        FileRequest::Stat {
            path: "/".into(),
            user: None,
            follow: false,
        }
    }

    #[test]
    fn a_worker_that_nobody_asks_ends_and_the_peer_learns_it_from_the_next_request() {
        let (ours, peer) = socket::pair().unwrap();
        let connection = Connection::new(ours, None, Duration::from_millis(1));
        assert!(connection.receive().unwrap().is_none());
        let error = socket::send(peer.as_fd(), &done().encode(), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_worker_that_is_sent_away_serves_what_it_was_made_for() {
        let (ours, peer) = socket::pair().unwrap();
        let (farewell, stay) = io::pipe().unwrap();
        let connection = Connection::new(ours, Some(farewell.into()), Duration::from_secs(60));
        socket::send(peer.as_fd(), &done().encode(), &[]).unwrap();
        drop(stay);
        assert_eq!(connection.receive().unwrap(), Some(Ok(done())));
        assert!(connection.receive().unwrap().is_none());
        let error = socket::send(peer.as_fd(), &done().encode(), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_came_just_before_is_served() {
        let (ours, peer) = socket::pair().unwrap();
        let connection = Connection::new(ours, None, Duration::from_secs(60));
        socket::send(peer.as_fd(), &done().encode(), &[]).unwrap();
        socket::shut_reading(connection.socket.as_fd()).unwrap();
        assert_eq!(connection.receive().unwrap(), Some(Ok(done())));
        assert!(connection.receive().unwrap().is_none());
    }
}
