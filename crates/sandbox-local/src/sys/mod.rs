//! The calls whose safety the compiler cannot check.
#![expect(unsafe_code, reason = "this is the module for it")]

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor with the runtime's event loop.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor as long as it exists, and the `AsyncFd` owns it from here on.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Lets a program that is started find `fd` as its descriptor `number`.
pub(crate) fn pass(command: &mut Command, fd: OwnedFd, number: RawFd) {
    let place = move || {
        // SAFETY: plain system calls on descriptors of this process; between fork and exec nothing else is done.
        let placed = unsafe {
            match fd.as_raw_fd() {
                same if same == number => libc::fcntl(number, libc::F_SETFD, 0),
                other => libc::dup2(other, number),
            }
        };
        if placed < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // SAFETY: the closure makes only calls that are safe between fork and exec, and allocates nothing.
    unsafe { command.pre_exec(place) };
}
