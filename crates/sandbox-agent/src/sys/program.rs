//! The last steps of a process before it becomes somebody else's program.
//!
//! Each is one small call; their order, on which much depends, is in `pid1::child`.

#![expect(
    unsafe_code,
    reason = "setresuid(2), seccomp(2), execve(2) and what goes with them"
)]

use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use super::credential;

/// How likely the process is to be ended when memory is used up.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// A compiled seccomp filter.
#[derive(Debug)]
pub(crate) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Takes over `struct sock_filter[]` as raw bytes. `None`: they are none, or more than the kernel takes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        const MOST: usize = 4096;
        let (instructions, rest) = bytes.as_chunks::<8>();
        if instructions.is_empty() || instructions.len() > MOST || !rest.is_empty() {
            return None;
        }
        let parse = |raw: &[u8; 8]| libc::sock_filter {
            code: u16::from_ne_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        };
        Some(Self(instructions.iter().map(parse).collect()))
    }

    /// Puts this process, and all that come of it, under the filter.
    pub(crate) fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).unwrap_or(0),
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: `program` describes the instructions in `self`, which the kernel copies and checks.
        super::check(unsafe {
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program)
        })
        .map(drop)
    }
}

/// Makes `number` a copy of `fd` that stays open in the program.
pub(crate) fn place(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: what `number` was before is one of the descriptors that `close_from` would have closed.
    super::check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Nothing that this process executes can gain rights by it.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: a plain call.
    super::check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// Gives the owner of this process access to what `/proc` has about it, or takes it away.
pub(crate) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: a plain call.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_DUMPABLE,
            libc::c_ulong::from(dumpable),
            0,
            0,
            0,
        )
    };
    super::check(result).map(drop)
}

/// Whether this process is less likely than others to be ended when memory is used up.
pub(crate) fn is_spared() -> bool {
    std::fs::read(OOM_SCORE).is_ok_and(|score| score.starts_with(b"-"))
}

/// Makes this process as likely as any other to be ended when memory is used up.
///
/// For that its files of `/proc` must be its own for a moment, in which others of its user and capabilities can open
/// them too.
pub(crate) fn set_normal_oom_score() -> io::Result<()> {
    set_dumpable(true)?;
    let flags = libc::O_NOFOLLOW;
    let written = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(OOM_SCORE)
        .and_then(|mut score| score.write_all(b"0"));
    set_dumpable(false).and(written)
}

/// Becomes a user for good; without capabilities unless that is root.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    credential::set_groups(groups)?;
    // SAFETY: plain calls. The process has one thread, so the system calls may go without the C library's care for
    // others.
    unsafe {
        super::check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        super::check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    if uid == 0 {
        Ok(())
    } else {
        credential::drop_capabilities()
    }
}

/// Hands the terminal `fd` to `uid`, so that programs can open it again by its name.
pub(crate) fn give_terminal(fd: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(fd, Some(uid), None)
}

/// How many descriptors this process, and those that come of it, may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DescriptorLimit(libc::rlimit);

impl DescriptorLimit {
    /// Allows this process as many as it can get, and returns what was in force before.
    pub(crate) fn raise() -> io::Result<Self> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is a place for the result.
        super::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
        let before = Self(limit);
        Self(libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        })
        .apply()?;
        Ok(before)
    }

    /// Puts the limit in force.
    pub(crate) fn apply(self) -> io::Result<()> {
        // SAFETY: `self` lives until the call returns.
        super::check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.0) }).map(drop)
    }
}

/// Arguments or environment as execve(2) takes them.
#[derive(Debug)]
pub(crate) struct Strings {
    pointers: Vec<*const libc::c_char>,
    /// What the pointers point to.
    _owned: Vec<CString>,
}

impl Strings {
    /// Takes over strings in their order.
    pub(crate) fn new(owned: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = owned.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self {
            pointers,
            _owned: owned,
        }
    }
}

/// Becomes the program at `path`. Returns only if that fails.
pub(crate) fn execute(path: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: both lists end with a null pointer and point to C strings that live as long as they do.
    unsafe {
        libc::execve(
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    io::Error::last_os_error()
}

/// Ends this process, without any clean-up of what a parent owned before it was forked.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}
