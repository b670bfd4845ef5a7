//! Taking what leaves a sandbox.

use super::sockets::checked;
use crate::linux::{
    made::{ANSWER_WITHIN, mute},
    record::SOCKET,
    sandbox::unexpected,
    socket,
};
use rustix::net::SocketType;
use sandbox_agent::protocol::agent::{Event, Request};
use sandbox_core::Result;
use std::{
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// What leaves a sandbox, as long as [`held`](Self::held) is open. After that the sandbox refuses everything itself.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Accepts connections, whose own address (`local_addr`) is the one that was meant. Does not wait.
    pub(crate) tcp: TcpListener,
    /// Receives questions for names, with the address that was asked as `IPV6_PKTINFO` (without IPv6 `IP_PKTINFO`), from
    /// which they must be answered. Does not wait.
    pub(crate) dns: UdpSocket,
    /// The connection to PID 1. It hangs up when the sandbox ends.
    pub(crate) held: OwnedFd,
}

/// Takes what leaves the sandbox of the record in `directory`. Blocks until PID 1 has answered, which it does at once.
///
/// # Errors
/// `Unsupported` if nothing is caught there, `InvalidState` if somebody else has taken it.
pub(crate) fn take(directory: BorrowedFd<'_>) -> Result<Taken> {
    let held = socket::connect(directory, SOCKET).map_err(mute)?;
    let request = Request::Network {};
    let answer = socket::ask_with_fds(held.as_fd(), &request, ANSWER_WITHIN).map_err(mute)?;
    let fds = match answer {
        (Event::Network { .. }, fds) => fds,
        (other, _) => return Err(unexpected(other)),
    };
    let [tcp, dns] = checked(fds, [SocketType::STREAM, SocketType::DGRAM])?;
    Ok(Taken {
        tcp: tcp.into(),
        dns: dns.into(),
        held,
    })
}
