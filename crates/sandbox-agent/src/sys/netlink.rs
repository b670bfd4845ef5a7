//! Sockets by which the kernel is asked to change a network namespace.

#![expect(unsafe_code, reason = "netlink(7)")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Bytes that the answers to one request fit into: each repeats the message that it is about.
const ROOM: usize = 16 * 1024;

/// A socket to one part of the kernel.
#[derive(Debug)]
pub(crate) struct Netlink(File);

impl Netlink {
    /// Opens one; `protocol` is a `NETLINK_` number.
    pub(crate) fn open(protocol: libc::c_int) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the returned descriptor is new.
        let socket = unsafe {
            let fd = super::check(libc::socket(libc::AF_NETLINK, kind, protocol))?;
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(socket.into()))
    }

    /// Asks for something, which the kernel does at once.
    pub(crate) fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        let sent = self.0.write(messages)?;
        if sent == messages.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Takes the next answer, which is there already: the kernel gives it before it goes on with anything else.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; ROOM];
        let len = self.0.read(&mut answer)?;
        answer.truncate(len);
        Ok(answer)
    }
}
