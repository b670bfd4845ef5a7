//! What pipes and terminals can be asked besides reading and writing.

#![expect(unsafe_code, reason = "fcntl(2) and ioctl(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Sets whether reads and writes wait, on a pipe or socket without other status flags.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let flags = if nonblocking { libc::O_NONBLOCK } else { 0 };
    // SAFETY: a plain call on an open descriptor.
    super::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// Changes how many bytes a pipe holds.
pub(crate) fn set_capacity(pipe: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    // SAFETY: a plain call on an open descriptor.
    super::check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) }).map(drop)
}

/// How many bytes can be read right now.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is a place for the result.
    super::check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Copies a descriptor to a number of at least `lowest`, close-on-exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>, lowest: i32) -> io::Result<OwnedFd> {
    // SAFETY: the returned descriptor is new.
    unsafe {
        let copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest);
        Ok(OwnedFd::from_raw_fd(super::check(copy)?))
    }
}
