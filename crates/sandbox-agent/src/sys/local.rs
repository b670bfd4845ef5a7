//! `SOCK_SEQPACKET` sockets with a name in the file tree, and who is at their other end.

#![expect(
    unsafe_code,
    reason = "bind(2), connect(2) and getsockopt(2) with socket addresses"
)]

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use super::check;

/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 64;

/// A process at the other end of a socket, as it was when it connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// Its PID here; it may have ended.
    pub(crate) pid: u32,
    /// Its user.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
}

/// Makes a socket at `path` that connections come from and that does not wait. The directory is made with 0755.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    let socket = new(libc::SOCK_NONBLOCK)?;
    let (address, len) = address(path)?;
    // SAFETY: `address` is initialized for `len` bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    // SAFETY: a plain call.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// Connects to the socket at `path`. Waits while too many others do.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = new(0)?;
    let (address, len) = address(path)?;
    // SAFETY: `address` is initialized for `len` bytes.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

/// Who has connected.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut peer = MaybeUninit::<libc::ucred>::uninit();
    let mut len = length(size_of::<libc::ucred>())?;
    // SAFETY: `peer` has room for as many bytes as `len` says, and is read after the kernel has filled it.
    let peer = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        check(libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            peer.as_mut_ptr().cast(),
            &raw mut len,
        ))?;
        peer.assume_init()
    };
    Ok(Peer {
        pid: peer.pid.cast_unsigned(),
        uid: peer.uid,
        gid: peer.gid,
    })
}

fn new(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the returned descriptor is new.
    unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | flags;
        Ok(OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_UNIX,
            kind,
            0,
        ))?))
    }
}

fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: `sockaddr_un` is a C struct for which all zeros is a valid value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let bytes = path.as_os_str().as_bytes();
    // One byte is left for the NUL at the end.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = (*from).cast_signed();
    }
    Ok((address, length(size_of::<libc::sockaddr_un>())?))
}

fn length(bytes: usize) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use std::os::fd::AsFd;

    #[test]
    fn a_peer_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/socket");
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = listen(&path, 0o666).unwrap();
        assert_eq!(
            socket::accept(listener.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let client = connect(&path).unwrap();
        let server = socket::accept(listener.as_fd()).unwrap();
        let peer = peer(server.as_fd()).unwrap();
        assert_eq!((peer.pid, peer.uid, peer.gid), (std::process::id(), 0, 0));
        socket::send(client.as_fd(), b"hello", &[]).unwrap();
        assert_eq!(
            socket::receive(server.as_fd()).unwrap().unwrap().bytes,
            b"hello"
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o666
        );
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = connect(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let long = directory.path().join("x".repeat(108));
        assert_eq!(
            connect(&long).unwrap_err().kind(),
            io::ErrorKind::InvalidFilename
        );
    }
}
