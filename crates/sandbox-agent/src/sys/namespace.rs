//! Moving between namespaces, and what a new namespace is furnished with.

#![expect(unsafe_code, reason = "setns(2), unshare(2) and their kin")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `linux/nsfs.h`.
const NS_GET_PARENT: libc::Ioctl = 0xb702;

/// Moves this process into new namespaces of `flags` (`CLONE_NEW*`).
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: a call with an integer; the process is single-threaded.
    super::check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Moves this process into the mount namespace `namespace`; root and working directory become its root.
pub(crate) fn enter_mount_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a call with a descriptor and an integer.
    super::check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) }).map(drop)
}

/// Moves this process into a user namespace, of which it becomes root.
pub(crate) fn enter_user_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a call with a descriptor and an integer; the process is single-threaded.
    super::check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUSER) }).map(drop)
}

/// The user namespace that this one was made in.
///
/// # Errors
/// `EPERM` if that is not below the one that this process is in, nor this one itself.
pub(crate) fn parent_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes a descriptor and no argument, and returns a new descriptor.
    unsafe {
        let parent = super::check(libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT))?;
        Ok(OwnedFd::from_raw_fd(parent))
    }
}

/// Makes the directory `root` the root and working directory of this process.
pub(crate) fn change_root(root: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the path is a C string.
    unsafe {
        super::check(libc::fchdir(root.as_raw_fd()))?;
        super::check(libc::chroot(c".".as_ptr())).map(drop)
    }
}

/// Makes the directory `directory` the working directory of this process.
pub(crate) fn change_directory(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a call with a descriptor.
    super::check(unsafe { libc::fchdir(directory.as_raw_fd()) }).map(drop)
}

/// Names this UTS namespace, and forgets the host's NIS domain.
pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    let domain = "(none)";
    // SAFETY: both names are given with their lengths.
    unsafe {
        super::check(libc::sethostname(name.as_ptr().cast(), name.len()))?;
        super::check(libc::setdomainname(domain.as_ptr().cast(), domain.len())).map(drop)
    }
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn bring_loopback_up() -> io::Result<()> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: the socket is new; `request` is a whole `ifreq` with a terminated name and lives until the call returns.
    unsafe {
        let socket = OwnedFd::from_raw_fd(super::check(libc::socket(libc::AF_INET, kind, 0))?);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        super::check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw const request,
        ))
        .map(drop)
    }
}
