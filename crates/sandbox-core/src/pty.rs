//! Commands on a terminal.

use crate::{Command, Process, Result};
use async_trait::async_trait;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PtySize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl PtySize {
    /// A size in characters.
    #[must_use]
    pub fn new(rows: u16, columns: u16) -> Self {
        Self { rows, columns }
    }
}

impl Default for PtySize {
    fn default() -> Self {
        Self::new(24, 80)
    }
}

/// Starts commands on a terminal.
#[async_trait]
pub trait Pty: Send + Sync {
    /// As [`Sandbox::spawn`](crate::Sandbox::spawn), on a terminal of this size. Output comes as
    /// [`ProcessEvent::Pty`](crate::ProcessEvent::Pty), standard input is open.
    async fn spawn(&self, command: Command, size: PtySize) -> Result<Process>;
}
