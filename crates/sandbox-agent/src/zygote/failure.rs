//! Why a sandbox could not be made: the step, in words for a person, and the system's error.

use std::borrow::Cow;
use std::io;

use sandbox_agent::protocol::zygote::Reply;

/// A step that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    step: Cow<'static, str>,
    errno: i32,
}

impl Failure {
    /// A failure that another process reports.
    pub(crate) fn new(step: String, errno: i32) -> Self {
        Self {
            step: step.into(),
            errno,
        }
    }

    /// A request that cannot be carried out as it is; no system call failed.
    pub(crate) fn invalid(step: impl Into<Cow<'static, str>>) -> Self {
        Self {
            step: step.into(),
            errno: 0,
        }
    }

    /// The system's error; 0 if no system call failed.
    pub(crate) fn errno(&self) -> i32 {
        self.errno
    }

    /// The answer that tells of it.
    pub(crate) fn into_reply(self) -> Reply {
        Reply::Failed {
            step: self.step.into_owned(),
            errno: self.errno,
        }
    }
}

/// Says what was being done when an error came up.
pub(crate) trait During<T> {
    /// With a fixed text.
    fn during(self, step: &'static str) -> Result<T, Failure>;
    /// With a text made only if it is needed.
    fn during_with(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step: step.into(),
            errno: errno(&error),
        })
    }

    fn during_with(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step: step().into(),
            errno: errno(&error),
        })
    }
}

/// Errors that the standard library makes itself have no number; they are rare and mean broken I/O.
fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
