//! What is set on the sockets of a connection.

use rustix::net::sockopt;
use std::{io, net::SocketAddr, os::fd::AsFd, time::Duration};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream},
};

/// After how long without a packet the other side is asked whether it is still there, and how often until it is given up.
const IDLE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// Sends what is written at once, asks a silent peer from time to time, and resets the connection if the socket is
/// closed before [`end`].
pub(super) fn prepare(stream: impl AsFd) -> io::Result<()> {
    let stream = stream.as_fd();
    sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

/// Connects to an address.
pub(super) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    prepare(&socket)?;
    socket.connect(to).await
}

/// Lets what was written arrive when the socket is closed.
pub(super) fn end(stream: &TcpStream) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, None)?)
}

/// Waits until the connection has failed, and says why.
pub(super) async fn failed(stream: &TcpStream) -> io::Error {
    match stream.ready(Interest::ERROR).await {
        Ok(_) => match stream.take_error() {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => io::ErrorKind::ConnectionReset.into(),
        },
        Err(error) => error,
    }
}
