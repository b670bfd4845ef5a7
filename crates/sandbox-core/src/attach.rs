//! Processes that somebody else follows, or that have ended: finding them and reading on.

use crate::{ExitStatus, Process, ProcessId, Result};
use async_trait::async_trait;
use serde::Serialize;
use std::time::Duration;

/// Where an attached reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// With what comes from now on; [`Process::cursor`] counts from the process's start all the same.
    Now,
    /// At this byte, counted as [`Process::cursor`] does. If it is no longer kept, a
    /// [`ProcessEvent::Lost`](crate::ProcessEvent::Lost) comes first.
    Cursor(u64),
}

/// A process that runs in a sandbox or has run there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its name.
    pub id: ProcessId,
    /// The sandbox's number for it.
    pub pid: Option<u32>,
    /// Its label.
    pub tag: Option<String>,
    /// Program and arguments, possibly shortened.
    pub argv: Vec<String>,
    /// Whether it has a terminal.
    pub pty: bool,
    /// How it ended, if it did.
    pub exit: Option<ExitStatus>,
    /// From its start to now or to its end.
    pub elapsed: Option<Duration>,
}

impl ProcessInfo {
    /// A process of which only the name is known.
    #[must_use]
    pub fn new(id: ProcessId) -> Self {
        Self {
            id,
            pid: None,
            tag: None,
            argv: Vec::new(),
            pty: false,
            exit: None,
            elapsed: None,
        }
    }
}

/// Processes that another reader, or another program, has started.
#[async_trait]
pub trait Attach: Send + Sync {
    /// Follows a process that runs or has ended.
    ///
    /// # Behavior
    /// - Several readers may follow one process. A slow one loses output, is told so by
    ///   [`ProcessEvent::Lost`](crate::ProcessEvent::Lost), and stops nobody.
    /// - After the end, what is still kept comes, and then the exit.
    /// - Standard input stays open between readers, and each of them may write to it.
    ///
    /// # Errors
    /// `NotFound` if there is no such process (any more).
    async fn attach(&self, id: &ProcessId, from: Position) -> Result<Process>;

    /// The processes that were started through the contract, oldest first, those that have ended included while they
    /// are kept.
    async fn processes(&self) -> Result<Vec<ProcessInfo>>;
}
