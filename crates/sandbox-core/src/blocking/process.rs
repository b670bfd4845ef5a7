//! A running command, without a runtime.

use super::runtime::Shared;
use crate::{
    Bytes, ExitStatus, Output, Process, ProcessControl, ProcessEvent, ProcessId, PtySize, Result,
    Signal,
};
use std::sync::Arc;

/// A [`Process`] whose events are iterated over: each `next` waits for one. After an error, none.
///
/// Dropping it detaches, as it does with a [`Process`].
#[derive(Debug)]
pub struct BlockingProcess {
    inner: Process,
    runtime: Shared,
    failed: bool,
}

impl BlockingProcess {
    pub(super) fn new(inner: Process, runtime: Shared) -> Self {
        Self {
            inner,
            runtime,
            failed: false,
        }
    }

    /// Its name within the sandbox.
    #[must_use]
    pub fn id(&self) -> &ProcessId {
        self.inner.id()
    }

    /// As [`Process::cursor`].
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.inner.cursor()
    }

    /// How it ended, once [`ProcessEvent::Exited`] has come.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        self.inner.exit()
    }

    /// Controls that other threads can use while this one reads.
    #[must_use]
    pub fn control(&self) -> BlockingControl {
        BlockingControl {
            inner: self.inner.control(),
            runtime: self.runtime.clone(),
        }
    }

    /// As [`Process::wait`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.runtime.run(self.inner.wait())
    }

    /// As [`Process::output`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn output(self) -> Result<Output> {
        self.runtime.run(self.inner.output())
    }

    /// As [`Process::output_within`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn output_within(self, limit: usize) -> Result<Output> {
        self.runtime.run(self.inner.output_within(limit))
    }
}

impl Iterator for BlockingProcess {
    type Item = Result<ProcessEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let event = self.runtime.run(self.inner.try_next()).transpose();
        self.failed = matches!(event, Some(Err(_)));
        event
    }
}

/// What can be done to a process from any thread: a [`ProcessControl`] whose calls return when they are done.
#[derive(Debug, Clone)]
pub struct BlockingControl {
    inner: Arc<dyn ProcessControl>,
    runtime: Shared,
}

impl BlockingControl {
    /// As [`ProcessControl::write_stdin`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn write_stdin(&self, data: impl Into<Bytes>) -> Result<()> {
        self.runtime.run(self.inner.write_stdin(data.into()))
    }

    /// As [`ProcessControl::close_stdin`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn close_stdin(&self) -> Result<()> {
        self.runtime.run(self.inner.close_stdin())
    }

    /// As [`ProcessControl::signal`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.runtime.run(self.inner.signal(signal))
    }

    /// As [`ProcessControl::resize`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn resize(&self, size: PtySize) -> Result<()> {
        self.runtime.run(self.inner.resize(size))
    }
}
