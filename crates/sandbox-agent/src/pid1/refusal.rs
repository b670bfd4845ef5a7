//! Why a request is not carried out, for the peer's program and for its user.

use std::io;

use sandbox_agent::protocol::agent::{Event, Failure};

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 2048;

/// A request that is not carried out.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) failure: Failure,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self {
            failure,
            message: message.into(),
        }
    }

    /// The request makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Failure::Invalid {}, message)
    }

    /// A system call failed that was to achieve `what`.
    pub(super) fn system(what: &str, error: &io::Error) -> Self {
        let limit = match error.raw_os_error() {
            Some(libc::EAGAIN) => Some("its limit on processes is reached"),
            Some(libc::ENOMEM) => Some("its memory is used up"),
            Some(libc::EMFILE | libc::ENFILE) => Some("there are no more file descriptors"),
            Some(libc::ENOSPC | libc::EDQUOT) => Some("a limit of the kernel is reached"),
            _ => None,
        };
        match limit {
            Some(limit) => Self::new(
                Failure::Exhausted {},
                format!("the sandbox cannot {what}: {limit}"),
            ),
            None => Self::new(
                Failure::Internal {},
                format!("the sandbox cannot {what}: {error}"),
            ),
        }
    }

    /// What the peer is told.
    pub(super) fn into_event(self) -> Event {
        let mut message = self.message;
        // Short enough to be written to a pipe in one piece.
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        Event::Failed {
            failure: self.failure,
            message,
        }
    }
}
