//! Connections to ports inside a sandbox.

use super::{checked, unfit};
use crate::linux::{
    sandbox::{Link, unexpected},
    socket::Connection,
};
use rustix::net::SocketType;
use sandbox_agent::protocol::agent::{Event, Failure, Request};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::net::TcpStream;

/// The way to the ports of one sandbox. All connections share one to its PID 1, for which the sandbox is not idle as long
/// as one of them is in use.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// Not there while somebody asks on it, so that an answer which nobody has waited for is never taken for another one.
    control: Mutex<Weak<OwnedFd>>,
}

/// A connection to a port.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) stream: TcpStream,
    /// To be kept as long as the connection is in use.
    pub(crate) held: Arc<OwnedFd>,
}

impl Ports {
    /// Connects to whatever listens on `port` of a loopback address inside: that of IPv4 first.
    ///
    /// # Errors
    /// `NotFound` if nothing does.
    pub(crate) async fn connect(&self, link: &Link, port: u16) -> Result<Reached> {
        for v6 in [false, true] {
            if let Some(reached) = self.try_connect(link, port, v6).await? {
                return Ok(reached);
            }
        }
        let message = format!("nothing listens on port {port} in the sandbox");
        Err(Error::new(ErrorKind::NotFound, message).with_context("id", link.id.as_str()))
    }

    async fn try_connect(&self, link: &Link, port: u16, v6: bool) -> Result<Option<Reached>> {
        let held = self.take_control();
        let held = match held {
            Some(held) => held,
            None => Arc::new(link.connect().await?),
        };
        let (event, fds) = ask(link, &held, &Request::Connect { port, v6 }).await?;
        self.put_control(&held);
        match event {
            Event::Connecting {} => {
                let [socket] = checked(fds, [SocketType::STREAM])?;
                let stream = await_connected(socket).await?;
                Ok(stream.map(|stream| Reached { stream, held }))
            }
            Event::Failed {
                failure: Failure::NotFound {},
                ..
            } => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    fn take_control(&self) -> Option<Arc<OwnedFd>> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *control).upgrade()
    }

    fn put_control(&self, held: &Arc<OwnedFd>) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        *control = Arc::downgrade(held);
    }
}

/// Asks on a connection that other runtimes may use as well.
async fn ask(link: &Link, held: &OwnedFd, request: &Request) -> Result<(Event, Vec<OwnedFd>)> {
    let connection = held.try_clone().and_then(Connection::new);
    let connection = connection.map_err(|error| link.failed(error))?;
    let sent = connection.send(request).await;
    sent.map_err(|error| link.failed(error))?;
    link.receive_with_fds(&connection).await
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
    if let Err(error) = stream.writable().await {
        return failed(error);
    }
    match stream.take_error() {
        Ok(None) => Ok(Some(stream)),
        Ok(Some(error)) | Err(error) => failed(error),
    }
}
