//! System calls that only tests need: making the places that the code under test is put into.

#![expect(
    unsafe_code,
    reason = "unshare(2), mount(2), fcntl(2) and socketpair(2)"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

/// Not in libc; the same on every architecture.
const F_SETSIG: libc::c_int = 10;

/// A pair of connected `SOCK_SEQPACKET` sockets that wait.
pub(crate) fn socket_pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two new descriptors, which nobody else owns.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr())).unwrap();
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// Makes this thread, not the whole process, act as another user for good.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: takes numbers only; the raw call affects only this thread.
    check(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) }).map(drop)
}

/// Gives this thread a root directory, a umask and mounts of its own, which end with it.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: takes a number; affects only this thread.
    check(unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) })?;
    mount(
        c"none",
        Path::new("/"),
        c"none",
        libc::MS_REC | libc::MS_PRIVATE,
        "",
    )
}

/// Gives this thread a network of its own, which ends with it.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: takes a number; affects only this thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Mounts a tmpfs on `target`.
pub(crate) fn mount_tmpfs(target: &Path, options: &str) -> io::Result<()> {
    mount(c"none", target, c"tmpfs", 0, options)
}

/// Mounts an overlay on `target`.
pub(crate) fn mount_overlay(
    target: &Path,
    lower: &Path,
    upper: &Path,
    work: &Path,
) -> io::Result<()> {
    let (lower, upper, work) = (lower.display(), upper.display(), work.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off");
    mount(c"none", target, c"overlay", 0, &options)
}

fn mount(
    source: &CStr,
    target: &Path,
    kind: &CStr,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    let (source, kind) = (source.as_ptr(), kind.as_ptr());
    // SAFETY: all strings end with NUL; no file system used here reads anything else from the options.
    check(unsafe {
        libc::mount(
            source,
            target.as_ptr(),
            kind,
            flags,
            options.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// Holds a write lease on `file`, so that nobody else can open it. Breaking it sends a signal that nobody minds.
pub(crate) fn lease(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes numbers only.
    unsafe {
        check(libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGWINCH))?;
        check(libc::fcntl(
            file.as_raw_fd(),
            libc::F_SETLEASE,
            libc::F_WRLCK,
        ))
        .map(drop)
    }
}

/// How a descriptor was opened (`O_...`).
pub(crate) fn open_flags(file: BorrowedFd<'_>) -> i32 {
    // SAFETY: takes numbers only.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }).unwrap()
}
