//! Connections to ports inside a sandbox.

use super::sockets::{checked, unfit};
use crate::linux::{
    sandbox::{Link, unexpected},
    socket::Connection,
};
use async_trait::async_trait;
use rustix::net::SocketType;
use sandbox_agent::protocol::agent::{Event, Failure, Request};
use sandbox_core::{Error, ErrorKind, PortStream, Ports, Result};
use std::{
    io::{self, IoSlice},
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Mutex,
};

/// How long a server may take to have room for one more connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// The ports of one sandbox. All connections share one to its PID 1, for which the sandbox is not idle as long as one of
/// them is in use.
#[derive(Debug)]
pub(crate) struct LocalPorts {
    link: Arc<Link>,
    /// Taken out while somebody asks on it, so that an answer which nobody has waited for is never taken for another one.
    control: Mutex<Weak<OwnedFd>>,
}

impl LocalPorts {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            control: Mutex::default(),
        }
    }

    /// Connects to whatever listens on `port` of a loopback address inside: that of IPv4 first.
    async fn reach(&self, port: u16) -> Result<Reached> {
        for v6 in [false, true] {
            if let Some(reached) = self.try_reach(port, v6).await? {
                return Ok(reached);
            }
        }
        let message = format!("nothing listens on port {port} in the sandbox");
        Err(Error::new(ErrorKind::NotFound, message))
    }

    async fn try_reach(&self, port: u16, v6: bool) -> Result<Option<Reached>> {
        let (answer, held) = self.ask(&Request::Connect { port, v6 }).await?;
        match answer {
            (Event::Connecting {}, fds) => {
                let [socket] = checked(fds, [SocketType::STREAM])?;
                let stream = await_connected(socket).await?;
                Ok(stream.map(|stream| Reached {
                    stream,
                    _held: held,
                }))
            }
            (
                Event::Failed {
                    failure: Failure::NotFound {},
                    ..
                },
                _,
            ) => Ok(None),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Asks on the one connection, which the answer belongs to.
    async fn ask(&self, request: &Request) -> Result<((Event, Vec<OwnedFd>), Arc<OwnedFd>)> {
        let mut control = self.control.lock().await;
        let held = match std::mem::take(&mut *control).upgrade() {
            Some(held) => held,
            None => Arc::new(self.link.connect().await?),
        };
        // Others may use it in other runtimes.
        let connection = held.try_clone().and_then(Connection::new);
        let connection = connection.map_err(|error| self.link.failed(error))?;
        let sent = connection.send(request).await;
        sent.map_err(|error| self.link.failed(error))?;
        let answer = self.link.receive_with_fds(&connection).await?;
        *control = Arc::downgrade(&held);
        Ok((answer, held))
    }
}

#[async_trait]
impl Ports for LocalPorts {
    async fn connect(&self, port: u16) -> Result<PortStream> {
        let reached = self.reach(port).await;
        reached
            .map(PortStream::new)
            .map_err(|error| error.with_operation("ports.connect"))
    }
}

/// Waits until a socket is connected; `None` if nobody listens.
async fn await_connected(socket: OwnedFd) -> Result<Option<TcpStream>> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Ok(None),
        _ => {
            let message = "the port of the sandbox cannot be reached";
            Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
        }
    };
    let stream = TcpStream::from_std(socket.into()).map_err(|_| unfit())?;
    let is_connected = tokio::time::timeout(CONNECTED_WITHIN, stream.writable());
    if let Err(error) = is_connected.await.unwrap_or_else(|late| Err(late.into())) {
        return failed(error);
    }
    match stream.take_error() {
        Ok(None) => Ok(Some(stream)),
        Ok(Some(error)) | Err(error) => failed(error),
    }
}

/// A connection to a port, and what keeps the sandbox from being idle meanwhile.
#[derive(Debug)]
struct Reached {
    stream: TcpStream,
    _held: Arc<OwnedFd>,
}

impl Reached {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Reached {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

#[deny(clippy::missing_trait_methods)]
impl AsyncWrite for Reached {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
