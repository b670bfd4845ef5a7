//! New processes by clone3(2), started where they belong.

#![expect(unsafe_code, reason = "clone3(2), and ending what it has made")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

/// `libc` has this flag as a `c_int`, which is too small for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// On which side of a [`fork`] the caller finds itself.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the child's PID.
    Parent(u32),
}

/// Copies the calling process. The copy starts in the cgroup2 directory `cgroup`, if there is one.
///
/// # Errors
/// `EAGAIN` if a limit on processes is reached, `ENOMEM` if memory is used up, and what else clone3(2) says.
pub(crate) fn fork(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let pid = clone3(empty_args(), cgroup)?;
    Ok(if pid > 0 {
        Forked::Parent(pid)
    } else {
        Forked::Child
    })
}

/// On which side of a [`fork_into`] the caller finds itself.
#[derive(Debug)]
pub(crate) enum NewNamespaces {
    /// The new process.
    Child,
    /// The old process, with what it knows of the new one.
    Parent(Child),
}

/// A process of ours. Dropping it ends the process and waits until it is gone, unless it was released.
#[derive(Debug)]
pub(crate) struct Child {
    pid: u32,
    pidfd: OwnedFd,
    released: bool,
}

/// Copies the calling process as [`fork`] does, into new namespaces of `flags` (`CLONE_NEW*`).
///
/// # Errors
/// As [`fork`]; `ENOSPC` or `EUSERS` if a limit on namespaces is reached, `EPERM` if the caller may not make them.
pub(crate) fn fork_into(
    flags: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<NewNamespaces> {
    let mut pidfd: RawFd = -1;
    let mut args = empty_args();
    args.flags = u64::from((flags | libc::CLONE_PIDFD).cast_unsigned());
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    let pid = clone3(args, cgroup)?;
    if pid == 0 {
        return Ok(NewNamespaces::Child);
    }
    Ok(NewNamespaces::Parent(Child {
        pid,
        // SAFETY: CLONE_PIDFD has stored a new descriptor there.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        released: false,
    }))
}

fn empty_args() -> libc::clone_args {
    // SAFETY: `clone_args` is a C struct for which all zeros is the empty value.
    unsafe { std::mem::zeroed() }
}

/// Calls clone3(2). `args` may name namespaces, and a place for a pidfd that lives until the call returns.
fn clone3(mut args: libc::clone_args, cgroup: Option<BorrowedFd<'_>>) -> io::Result<u32> {
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM the child gets a copy of everything, as with fork(2); this process has a single
    // thread, so no lock of the C library is held by somebody who does not exist in the child.
    let pid = super::check(unsafe {
        let size = size_of::<libc::clone_args>();
        libc::syscall(libc::SYS_clone3, &raw const args, size)
    })?;
    u32::try_from(pid).map_err(io::Error::other)
}

impl Child {
    /// Process id, as this process sees it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails with `ESRCH` if the process has ended, so that its id may be that of another one.
    pub(crate) fn check_running(&self) -> io::Result<()> {
        check_running(self.pidfd.as_fd())
    }

    /// Lets the process live on.
    pub(crate) fn release(mut self) {
        self.released = true;
    }
}

/// Fails with `ESRCH` if the process has ended, so that its id may be that of another one.
pub(crate) fn check_running(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let (pidfd, no_info) = (pidfd.as_raw_fd(), ptr::null::<libc::siginfo_t>());
    // SAFETY: signal 0 is only a question, and no signal information is given.
    super::check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, 0, no_info, 0) })
        .map(drop)
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        let pidfd = self.pidfd.as_raw_fd();
        // The process id may belong to another process by now, the descriptor cannot. Where SIGCHLD is ignored the
        // wait ends with ECHILD as soon as the process is gone, which is all that is wanted.
        // SAFETY: no signal information is given, and `info` has room for what the wait returns.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd,
                libc::SIGKILL,
                ptr::null::<libc::siginfo_t>(),
                0,
            );
            while libc::waitid(
                libc::P_PIDFD,
                pidfd.unsigned_abs(),
                info.as_mut_ptr(),
                libc::WEXITED,
            ) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

/// Waits for nothing but to be ended, at the latest with the process `parent` that has forked this one.
pub(crate) fn wait_for_the_end(parent: u32) -> ! {
    // SAFETY: calls with integers; `_exit` runs no code of the copied process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        while libc::getppid().unsigned_abs() == parent {
            libc::pause();
        }
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_runs_and_ends() {
        match fork(None).unwrap() {
            // SAFETY: ends the child without running anything of the parent's.
            Forked::Child => unsafe { libc::_exit(7) },
            Forked::Parent(pid) => {
                let mut status = 0;
                let pid = libc::pid_t::try_from(pid).unwrap();
                // SAFETY: `status` is a place for the result.
                assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
                assert!(libc::WIFEXITED(status));
                assert_eq!(libc::WEXITSTATUS(status), 7);
            }
        }
    }
}
