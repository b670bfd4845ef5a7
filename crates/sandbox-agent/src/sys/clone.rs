//! New processes by clone3(2), started where they belong.

#![expect(unsafe_code, reason = "clone3(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
    // SAFETY: `clone_args` is a C struct for which all zeros is the empty value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM the child gets a copy of everything, as with fork(2); this process has a single
    // thread, so no lock of the C library is held by somebody who does not exist in the child.
    let pid = super::check(unsafe {
        let size = size_of::<libc::clone_args>();
        libc::syscall(libc::SYS_clone3, &raw const args, size)
    })?;
    Ok(match u32::try_from(pid) {
        Ok(pid) if pid > 0 => Forked::Parent(pid),
        _ => Forked::Child,
    })
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
