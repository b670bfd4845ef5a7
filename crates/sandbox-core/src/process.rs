//! A running command: one type for foreground, background and terminals, a stream of events plus controls.

use crate::{
    BoxStream, Bytes, Error, ErrorKind, ExitStatus, Output, ProcessId, PtySize, Result, Signal,
};
use async_trait::async_trait;
use futures_util::StreamExt;
use std::{fmt, sync::Arc};

/// What a process says, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessEvent {
    /// It exists. `pid` is the sandbox's number for it, if there is one.
    Started {
        /// Process id inside the sandbox.
        pid: Option<u32>,
    },
    /// Standard output, or both streams if they are merged.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// A terminal's output.
    Pty(Bytes),
    /// This many bytes were dropped because this reader was too slow or came too late.
    Lost {
        /// Number of bytes.
        bytes: u64,
    },
    /// It ended. The last event.
    Exited(ExitStatus),
}

/// What can be done to a process from any task.
#[async_trait]
pub trait ProcessControl: fmt::Debug + Send + Sync + 'static {
    /// Sends bytes to standard input or the terminal; waits while the program does not read.
    ///
    /// # Errors
    /// `InvalidState` if it was not kept open, has been closed, or nobody reads it any more.
    async fn write_stdin(&self, data: Bytes) -> Result<()>;

    /// Ends standard input; a terminal gets its end-of-file character. `InvalidState` if it was not kept open.
    async fn close_stdin(&self) -> Result<()>;

    /// Sends a signal to the command's process group; KILL reaches every process that it started.
    ///
    /// # Errors
    /// `InvalidState` if it has ended.
    async fn signal(&self, signal: Signal) -> Result<()>;

    /// Resizes the terminal. `InvalidState` if there is none.
    async fn resize(&self, size: PtySize) -> Result<()>;
}

/// A running command.
///
/// # Behavior
/// - Exactly one [`ProcessEvent::Started`], first, also of a process that is attached later. Exactly one
///   [`ProcessEvent::Exited`], last. A stream that ends without it is an error. No output event is empty.
/// - The exit comes as soon as the program itself has ended and what it had written is delivered. Children that it
///   leaves behind do not delay it, even if they hold its output open; they live on until they end, are killed with the
///   command's tree, or the sandbox ends.
/// - While the process that `spawn` returned is its only reader, nothing is lost: the program waits for a slow reader.
/// - Dropping a `Process` detaches: it does not kill, and the program waits for nobody.
/// - Where the sandbox ends first, the stream ends with KILL as the exit, or with `SandboxNotFound`.
pub struct Process {
    id: ProcessId,
    events: BoxStream<'static, Result<ProcessEvent>>,
    control: Arc<dyn ProcessControl>,
    cursor: u64,
    exit: Option<ExitStatus>,
    failed: bool,
}

impl Process {
    /// Builds a process from its events and controls, as providers, layers and replays do.
    pub fn new(
        id: ProcessId,
        events: BoxStream<'static, Result<ProcessEvent>>,
        control: Arc<dyn ProcessControl>,
    ) -> Self {
        Self {
            id,
            events,
            control,
            cursor: 0,
            exit: None,
            failed: false,
        }
    }

    /// Puts something around its events and its controls, as layers do. All else stays as it is.
    #[must_use]
    pub fn map(
        self,
        events: impl FnOnce(
            BoxStream<'static, Result<ProcessEvent>>,
        ) -> BoxStream<'static, Result<ProcessEvent>>,
        control: impl FnOnce(Arc<dyn ProcessControl>) -> Arc<dyn ProcessControl>,
    ) -> Self {
        Self {
            events: events(self.events),
            control: control(self.control),
            ..self
        }
    }

    /// Starts counting at `cursor`, for a process that was attached later.
    #[must_use]
    pub fn with_cursor(mut self, cursor: u64) -> Self {
        self.cursor = cursor;
        self
    }

    /// Its name within the sandbox.
    #[must_use]
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Controls that other tasks can use while this one reads.
    #[must_use]
    pub fn control(&self) -> Arc<dyn ProcessControl> {
        Arc::clone(&self.control)
    }

    /// Bytes of output up to the last event, over all streams, dropped ones included: where to come back to with
    /// [`Position::Cursor`](crate::Position::Cursor).
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// How it ended, once [`ProcessEvent::Exited`] has come.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        self.exit
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// Whatever the provider fails with; `Protocol` if the events stop before the exit. After an error, `None`.
    ///
    /// # Cancel safety
    /// No event is lost if the future is dropped.
    pub async fn try_next(&mut self) -> Result<Option<ProcessEvent>> {
        if self.exit.is_some() || self.failed {
            return Ok(None);
        }
        let event = match self.events.next().await {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                self.failed = true;
                return Err(error);
            }
            None => {
                self.failed = true;
                let message = "the process's events stopped before it ended";
                return Err(
                    Error::new(ErrorKind::Protocol, message).with_context("process", &self.id)
                );
            }
        };
        match &event {
            ProcessEvent::Stdout(bytes)
            | ProcessEvent::Stderr(bytes)
            | ProcessEvent::Pty(bytes) => {
                self.cursor = self.cursor.saturating_add(bytes.len() as u64);
            }
            // The number comes from the sandbox, and may be any.
            ProcessEvent::Lost { bytes } => self.cursor = self.cursor.saturating_add(*bytes),
            ProcessEvent::Exited(status) => self.exit = Some(*status),
            ProcessEvent::Started { .. } => {}
        }
        Ok(Some(event))
    }

    /// Reads to the end and returns how it ended, dropping the output.
    ///
    /// # Errors
    /// As [`Process::try_next`].
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            match self.try_next().await? {
                Some(ProcessEvent::Exited(status)) => return Ok(status),
                Some(_) => {}
                None => {
                    let gone = || {
                        Error::new(
                            ErrorKind::InvalidState,
                            "the process's events have failed before",
                        )
                    };
                    return self.exit.ok_or_else(gone);
                }
            }
        }
    }

    /// Collects all output up to [`Output::DEFAULT_LIMIT`] a stream.
    ///
    /// # Errors
    /// As [`Process::try_next`].
    pub async fn output(self) -> Result<Output> {
        self.output_within(Output::DEFAULT_LIMIT).await
    }

    /// Collects the first `limit` bytes of each stream; the rest is read and dropped.
    ///
    /// # Errors
    /// As [`Process::try_next`].
    pub async fn output_within(mut self, limit: usize) -> Result<Output> {
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        let mut truncated = false;
        loop {
            match self.try_next().await? {
                Some(ProcessEvent::Stdout(bytes) | ProcessEvent::Pty(bytes)) => {
                    truncated |= append(&mut stdout, &bytes, limit);
                }
                Some(ProcessEvent::Stderr(bytes)) => {
                    truncated |= append(&mut stderr, &bytes, limit)
                }
                Some(ProcessEvent::Lost { .. }) => truncated = true,
                Some(ProcessEvent::Started { .. }) => {}
                Some(ProcessEvent::Exited(status)) => {
                    return Ok(Output {
                        status,
                        stdout: stdout.into(),
                        stderr: stderr.into(),
                        truncated,
                    });
                }
                None => {
                    return Err(Error::new(
                        ErrorKind::InvalidState,
                        "the process's events were taken before",
                    ));
                }
            }
        }
    }
}

/// Appends what fits below `limit`; true if something did not.
fn append(all: &mut Vec<u8>, bytes: &[u8], limit: usize) -> bool {
    let fits = limit.saturating_sub(all.len()).min(bytes.len());
    all.extend_from_slice(&bytes[..fits]);
    fits < bytes.len()
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("id", &self.id)
            .field("cursor", &self.cursor)
            .field("exit", &self.exit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[derive(Debug)]
    struct NoControl;

    #[async_trait]
    impl ProcessControl for NoControl {
        async fn write_stdin(&self, _: Bytes) -> Result<()> {
            Err(Error::unsupported("stdin"))
        }
        async fn close_stdin(&self) -> Result<()> {
            Err(Error::unsupported("stdin"))
        }
        async fn signal(&self, _: Signal) -> Result<()> {
            Err(Error::unsupported("signals"))
        }
        async fn resize(&self, _: PtySize) -> Result<()> {
            Err(Error::unsupported("pty"))
        }
    }

    #[tokio::test]
    async fn the_cursor_stays_at_the_end_of_numbers() {
        let events = [
            ProcessEvent::Stdout(Bytes::from_static(b"four")),
            ProcessEvent::Lost { bytes: u64::MAX },
            ProcessEvent::Lost { bytes: u64::MAX },
            ProcessEvent::Stderr(Bytes::from_static(b"more")),
            ProcessEvent::Exited(ExitStatus::Code(0)),
        ];
        let events = stream::iter(events.map(Ok)).boxed();
        let mut process = Process::new(ProcessId::new("1"), events, Arc::new(NoControl));
        process.try_next().await.unwrap();
        assert_eq!(process.cursor(), 4);
        assert_eq!(process.wait().await.unwrap(), ExitStatus::Code(0));
        assert_eq!(process.cursor(), u64::MAX);
    }
}
