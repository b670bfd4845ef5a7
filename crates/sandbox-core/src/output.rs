//! The collected output of a command.

use crate::{Bytes, Error, ErrorKind, ExitStatus, Result};

/// All that a command said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, or a terminal's.
    pub stdout: Bytes,
    /// Standard error.
    pub stderr: Bytes,
    /// Some output is missing: there was more than the limit, or it was dropped on the way.
    pub truncated: bool,
}

impl Output {
    /// Bytes of each stream that [`Process::output`](crate::Process::output) keeps: 16 MiB.
    pub const DEFAULT_LIMIT: usize = 16 * 1024 * 1024;

    /// The output itself if the command returned 0.
    ///
    /// # Errors
    /// `InvalidState` that names the exit and the end of standard error.
    pub fn check(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.stderr);
        let tail: String = text
            .trim_end()
            .chars()
            .rev()
            .take(500)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let message = format!("the command failed: {}", self.status);
        Err(Error::new(ErrorKind::InvalidState, message).with_context("stderr", tail))
    }

    /// Standard output as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}
