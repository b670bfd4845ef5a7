//! Waiting: for a few descriptors, for signals that are to be passed on, for one process.

#![expect(unsafe_code, reason = "signalfd(2), poll(2) and waitpid(2)")]

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::check;

/// What somebody at a terminal, or another program, sends to a program to have it end or do something.
const FORWARDED: [i32; 6] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Signals that no longer do anything to this process but can be read.
#[derive(Debug)]
pub(crate) struct Signals(File);

/// Takes the signals that are to be passed on.
pub(crate) fn take_signals() -> io::Result<Signals> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initializes the set before anything else sees it; the returned descriptor is new.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in FORWARDED {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            set.as_ptr(),
            std::ptr::null_mut(),
        ))?;
        let fd = check(libc::signalfd(
            -1,
            set.as_ptr(),
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(Signals(File::from(OwnedFd::from_raw_fd(fd))))
    }
}

impl Signals {
    /// The next signal that has come, if any.
    pub(crate) fn next(&self) -> Option<i32> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        (&self.0).read_exact(&mut info).ok()?;
        // The number is the first field.
        let number = info.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
        i32::try_from(number).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens a child as something that becomes readable when it ends.
pub(crate) fn open_child(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only; the returned descriptor is new.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        let fd = libc::c_int::try_from(fd).map_err(|_| io::ErrorKind::Other)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Takes the end of the child `pid`, which it waits for, and gives its wait status.
pub(crate) fn exit_status(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a place for the result.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|_| status),
        }
    }
}

/// Waits until one of the descriptors can be read or its other end is closed, and says which. `None` in their place
/// are never ready. Without `timeout` it waits for good.
pub(crate) fn poll<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut polled = fds.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up, so that the wait is not over before its time.
        let left = left.map_or(-1, |left| {
            libc::c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
        });
        let count = libc::nfds_t::try_from(N).unwrap_or(0);
        // SAFETY: `polled` has `count` elements.
        match check(unsafe { libc::poll(polled.as_mut_ptr(), count, left) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(polled.map(|polled| polled.revents != 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn poll_says_which() {
        let (reader, mut writer) = io::pipe().unwrap();
        let (other, closed) = io::pipe().unwrap();
        let wait =
            |timeout| poll([Some(reader.as_fd()), None, Some(other.as_fd())], timeout).unwrap();
        assert_eq!(wait(Some(Duration::ZERO)), [false, false, false]);
        assert_eq!(wait(Some(Duration::from_millis(1))), [false, false, false]);
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(None), [true, false, false]);
        drop(closed);
        assert_eq!(wait(None), [true, false, true]);
    }
}
