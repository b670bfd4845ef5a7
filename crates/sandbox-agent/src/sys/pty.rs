//! Pseudo-terminals of the sandbox's own devpts.

#![expect(unsafe_code, reason = "openat(2) and the ioctls of terminals")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The directory `/dev/pts`, opened while nobody else could put something in its place.
#[derive(Debug)]
pub(crate) struct Terminals(OwnedFd);

impl Terminals {
    /// Opens the directory.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the path is a C string, and the returned descriptor is new.
        let fd =
            unsafe { OwnedFd::from_raw_fd(super::check(libc::open(c"/dev/pts".as_ptr(), flags))?) };
        Ok(Self(fd))
    }

    /// Makes a terminal: its master, which does not wait, and its slave.
    pub(crate) fn create(&self, rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let nonblocking = flags | libc::O_NONBLOCK | libc::O_NOFOLLOW;
        // Not /dev/ptmx: the sandbox's root could have replaced that, but nothing inside a devpts.
        // SAFETY: the path is a C string, and the returned descriptor is new.
        let master = unsafe {
            let fd = libc::openat(self.0.as_raw_fd(), c"ptmx".as_ptr(), nonblocking);
            OwnedFd::from_raw_fd(super::check(fd)?)
        };
        let unlocked: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads an int; TIOCGPTPEER takes open flags and returns a new descriptor.
        let slave = unsafe {
            let fd = master.as_raw_fd();
            super::check(libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlocked))?;
            OwnedFd::from_raw_fd(super::check(libc::ioctl(fd, libc::TIOCGPTPEER, flags))?)
        };
        mark_utf8(&slave);
        resize(&master, rows, columns)?;
        Ok((master, slave))
    }
}

/// Sets a terminal's size; the programs on it get SIGWINCH.
pub(crate) fn resize(master: &OwnedFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a winsize.
    super::check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

/// Makes `slave` the terminal that controls the caller's session.
pub(crate) fn control_session(slave: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    super::check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Lets the line editor erase whole characters. Without it only the erasing of non-ASCII input looks odd.
fn mark_utf8(slave: &OwnedFd) {
    // SAFETY: a termios is filled by tcgetattr(3) before it is used.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(slave.as_raw_fd(), &raw mut settings) == 0 {
            settings.c_iflag |= libc::IUTF8;
            libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &raw const settings);
        }
    }
}
