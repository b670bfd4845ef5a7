//! One port of a sandbox as a port of this machine: bytes, whatever they say.

use crate::{
    activity::Activity,
    serving::{Place, Serving},
};
use sandbox_core::{Error, ErrorKind, PortStream, Sandbox, SandboxExt};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
};

/// Most connections at a time.
const MOST: u32 = 512;

/// How long a connection may stand without a byte.
pub(crate) const IDLE: Duration = Duration::from_secs(60 * 60);

/// How long a connection inside may take to stand.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// Bytes on their way in each direction.
const BUFFER: usize = 64 * 1024;

/// Forwards each connection that `listener` accepts to `port` of `sandbox`.
///
/// # Behavior
/// - Bytes pass unchanged, both ways at a time. Who does not read makes the other side wait, and the end of one direction
///   is passed on while the other one goes on.
/// - If nobody listens inside, or the sandbox is paused or gone, the connection is reset, and `refused` is told why.
/// - 512 connections stand at a time, more wait. One without a byte in either direction for an hour is closed.
///
/// # Errors
/// If the listener has no address.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn forward(
    listener: TcpListener,
    sandbox: Arc<dyn Sandbox>,
    port: u16,
    refused: impl Fn(Error) + Send + Sync + 'static,
) -> io::Result<Serving> {
    let refused: Arc<dyn Fn(Error) + Send + Sync> = Arc::new(refused);
    Serving::start(listener, MOST, move |stream, _, place| {
        one(
            stream,
            Arc::clone(&sandbox),
            port,
            Arc::clone(&refused),
            place,
        )
    })
}

async fn one(
    stream: TcpStream,
    sandbox: Arc<dyn Sandbox>,
    port: u16,
    refused: Arc<dyn Fn(Error) + Send + Sync>,
    place: Place,
) {
    match connect(&*sandbox, port).await {
        Ok(inside) => tunnel(stream, inside, place).await,
        Err(error) => {
            // Who has connected sees that it was refused, and not an end without a byte.
            let _best_effort = stream.set_zero_linger();
            refused(error);
        }
    }
}

/// Connects within bounds.
pub(crate) async fn connect(sandbox: &dyn Sandbox, port: u16) -> sandbox_core::Result<PortStream> {
    let connect = sandbox.require_ports()?.connect(port);
    let late = |_| {
        let message = "the server did not take the connection in time";
        Error::new(ErrorKind::Timeout, message)
    };
    tokio::time::timeout(CONNECT, connect).await.map_err(late)?
}

/// Passes bytes both ways until both have ended, one is broken, or none came for too long.
pub(crate) async fn tunnel(
    outside: impl AsyncRead + AsyncWrite + Unpin,
    mut inside: impl AsyncRead + AsyncWrite + Unpin,
    mut place: Place,
) {
    let activity = Activity::new();
    let mut outside = activity.watch(outside);
    tokio::select! {
        // A broken connection ends both.
        _ = copy_bidirectional_with_sizes(&mut outside, &mut inside, BUFFER, BUFFER) => {}
        () = activity.idle(IDLE) => {}
        () = place.ended() => {}
    }
}
