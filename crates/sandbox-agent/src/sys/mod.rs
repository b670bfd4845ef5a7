//! System calls, each behind a small safe function. No policy here: callers decide what a result means.
//!
//! These files are the only ones of the binary that hold `unsafe` code; each opens with
//! `#![expect(unsafe_code, reason = "...")]` and gives a `// SAFETY:` reason for every block.

pub(crate) mod affinity;
pub(crate) mod attributes;
pub(crate) mod cgroup;
pub(crate) mod clone;
pub(crate) mod credential;
pub(crate) mod epoll;
pub(crate) mod file;
pub(crate) mod flag;
pub(crate) mod inet;
pub(crate) mod inherit;
pub(crate) mod inotify;
pub(crate) mod local;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod netlink;
pub(crate) mod pipe;
pub(crate) mod program;
pub(crate) mod pty;
pub(crate) mod signal;
pub(crate) mod socket;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod timer;
pub(crate) mod wait;

use std::io;

/// Turns a system call's result into one of Rust: a negative one is the error in `errno`.
pub(crate) fn check<T: Copy + Default + PartialOrd>(result: T) -> io::Result<T> {
    if result < T::default() {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
