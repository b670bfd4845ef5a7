//! Signals to others, and SIGCHLD as a descriptor.

#![expect(unsafe_code, reason = "signalfd(2), kill(2), waitpid(2)")]

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::inherit;

/// Highest signal number.
pub(crate) const LAST: i32 = 64;

/// A descriptor that becomes readable when a child ends.
#[derive(Debug)]
pub(crate) struct ChildEnds(File);

impl ChildEnds {
    /// Gives every signal its default action, ignores SIGPIPE, and takes SIGCHLD as a descriptor.
    pub(crate) fn take() -> io::Result<Self> {
        inherit::reset_signals()?;
        set_action(libc::SIGPIPE, libc::SIG_IGN);
        let mask = set_of(&[libc::SIGCHLD]);
        set_mask(&mask)?;
        // SAFETY: `mask` is initialized, and the returned descriptor is new.
        let fd = unsafe {
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            OwnedFd::from_raw_fd(super::check(libc::signalfd(-1, &raw const mask, flags))?)
        };
        Ok(Self(fd.into()))
    }

    /// Makes it unreadable again until the next child ends.
    pub(crate) fn clear(&self) {
        // One read is enough: a signal that is pending already is not queued twice.
        let _ = (&self.0).read(&mut [0; size_of::<libc::signalfd_siginfo>()]);
    }
}

impl AsFd for ChildEnds {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Undoes [`ChildEnds::take`] in a child: no signal is blocked or ignored.
pub(crate) fn reset() -> io::Result<()> {
    set_action(libc::SIGPIPE, libc::SIG_DFL);
    set_mask(&set_of(&[]))
}

/// Sends `signal` to the process `pid`, or to the process group `-pid`.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: a plain call.
    super::check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Takes one child that has ended, with its wait status. Does not wait.
pub(crate) fn reap() -> Option<(u32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a place for the result.
        match super::check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
            Ok(0) => return None,
            Ok(pid) => return Some((pid.cast_unsigned(), status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Takes one child that was stopped since the last time. Does not wait.
pub(crate) fn take_stopped() -> Option<u32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WSTOPPED | libc::WNOHANG;
    // SAFETY: `info` has room for what the wait returns, and all zeros, which is how it is left if there is no such
    // child, is a value of it.
    let pid = unsafe {
        super::check(libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags)).ok()?;
        info.assume_init().si_pid()
    };
    (pid > 0).then_some(pid.cast_unsigned())
}

/// Sets what a signal does to one of the two actions that are no functions.
///
/// By the system call: the C library refuses to touch two signals that it uses itself, but whatever started this
/// program may have ignored those as well.
fn set_action(signal: i32, action: libc::sighandler_t) {
    // The kernel's `struct sigaction`: handler, flags, restorer, and a mask of eight bytes.
    let action = [action as u64, 0, 0, 0];
    let old: *mut u64 = std::ptr::null_mut();
    // Fails for KILL and STOP, which cannot have another action.
    // SAFETY: `action` is as long as the kernel's structure, and the old one is not asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const action,
            old,
            8_usize,
        )
    };
}

fn set_mask(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `mask` is initialized, and the old mask is not asked for.
    super::check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) })
        .map(drop)
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initializes the set before anything else sees it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}
