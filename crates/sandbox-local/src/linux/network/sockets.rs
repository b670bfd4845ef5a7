//! Sockets that a sandbox has handed over, of its own network: no packet of the host's is ever on them. They are checked,
//! since a PID 1 may have been taken over.

use rustix::net::{AddressFamily, SocketType, sockopt};
use sandbox_core::{Error, ErrorKind, Result};
use std::{io, os::fd::OwnedFd};

/// The descriptors that came with an answer, if they are internet sockets of these kinds, in this order. They do not wait.
pub(super) fn checked<const COUNT: usize>(
    fds: Vec<OwnedFd>,
    kinds: [SocketType; COUNT],
) -> Result<[OwnedFd; COUNT]> {
    let is_one = |fd: &OwnedFd, kind: SocketType| {
        let domain = sockopt::socket_domain(fd)?;
        let is_internet = matches!(domain, AddressFamily::INET | AddressFamily::INET6);
        let is_kind = is_internet && sockopt::socket_type(fd)? == kind;
        if is_kind {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok::<_, rustix::io::Errno>(is_kind)
    };
    let fds = <[OwnedFd; COUNT]>::try_from(fds).map_err(|_| unfit())?;
    for (fd, kind) in fds.iter().zip(kinds) {
        if !is_one(fd, kind).map_err(io::Error::from).unwrap_or(false) {
            return Err(unfit());
        }
    }
    Ok(fds)
}

pub(super) fn unfit() -> Error {
    let message = "the sandbox gave sockets that do not fit";
    Error::new(ErrorKind::Protocol, message)
}
