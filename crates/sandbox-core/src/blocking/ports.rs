//! Connections of a sandbox for programs without a runtime.

use super::runtime::Shared;
use crate::PortStream;
use std::io::{Read, Result, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// As [`PortStream`], read and written by calls that wait.
#[derive(Debug)]
pub struct BlockingPortStream {
    inner: PortStream,
    runtime: Shared,
}

impl BlockingPortStream {
    pub(super) fn new(inner: PortStream, runtime: Shared) -> Self {
        Self { inner, runtime }
    }

    /// Ends this direction: the server reads its end.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn shutdown(&mut self) -> Result<()> {
        let (stream, runtime) = (&mut self.inner, &self.runtime);
        runtime.wait(stream.shutdown())
    }
}

impl Read for BlockingPortStream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let (stream, runtime) = (&mut self.inner, &self.runtime);
        runtime.wait(stream.read(buffer))
    }
}

impl Write for BlockingPortStream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let (stream, runtime) = (&mut self.inner, &self.runtime);
        runtime.wait(stream.write(bytes))
    }

    fn flush(&mut self) -> Result<()> {
        let (stream, runtime) = (&mut self.inner, &self.runtime);
        runtime.wait(stream.flush())
    }
}
