//! Ports on which programs in a sandbox listen: connections to them, and addresses for a browser.

use crate::Result;
use async_trait::async_trait;
use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reaches the servers of a sandbox by connections.
#[async_trait]
pub trait Ports: Send + Sync {
    /// Connects to the program that listens on `port` of the sandbox's own loopback, or on all its addresses.
    ///
    /// # Behavior
    /// - Returns once the connection stands. If nobody listens that is an error at once.
    /// - A connection that stands, and bytes on it, keep the sandbox from being idle as other work does.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if nobody listens there;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for port 0;
    /// [`InvalidState`](crate::ErrorKind::InvalidState) if the sandbox is paused;
    /// [`SandboxNotFound`](crate::ErrorKind::SandboxNotFound) if it is gone.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    async fn connect(&self, port: u16) -> Result<PortStream>;
}

/// Gives the servers of a sandbox addresses at which a browser reaches them without this program.
#[async_trait]
pub trait Previews: Send + Sync {
    /// The preview URL of `port`. Whether anybody listens there is not looked at.
    async fn url(&self, port: u16) -> Result<String>;
}

/// A connection to a server in a sandbox.
///
/// # Behavior
/// - Bytes come as they were sent, both ways at a time. Who does not read makes the other side wait.
/// - `shutdown` ends this direction alone: the server reads its end, and what it still sends is read here.
/// - A drop ends both.
pub struct PortStream(Pin<Box<dyn Duplex>>);

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Duplex for S {}

impl PortStream {
    /// A connection over `stream`.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl fmt::Debug for PortStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortStream").finish_non_exhaustive()
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buffer)
    }
}

#[deny(clippy::missing_trait_methods)]
impl AsyncWrite for PortStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
