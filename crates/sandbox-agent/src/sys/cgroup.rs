//! Directories and files of a cgroup2 tree, below an open directory.

#![expect(unsafe_code, reason = "mkdirat(2), openat(2), unlinkat(2)")]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Makes the cgroup `name` below `parent` and opens it.
pub(crate) fn make(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    super::check(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o755) })?;
    open(parent, name, libc::O_DIRECTORY | libc::O_RDONLY)
}

/// Removes the cgroup `name` below `parent`.
///
/// # Errors
/// `ResourceBusy` while it has processes.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a C string.
    super::check(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })
        .map(drop)
}

/// Writes to the file `name` of a cgroup.
pub(crate) fn write(group: BorrowedFd<'_>, name: &CStr, text: &[u8]) -> io::Result<()> {
    File::from(open(group, name, libc::O_WRONLY)?).write_all(text)
}

/// Reads the file `name` of a cgroup, at most `limit` bytes of it.
pub(crate) fn read(group: BorrowedFd<'_>, name: &CStr, limit: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::from(open(group, name, libc::O_RDONLY)?)
        .take(limit)
        .read_to_end(&mut contents)?;
    Ok(contents)
}

/// Opens the file or cgroup `name` below `directory`.
pub(crate) fn open(
    directory: BorrowedFd<'_>,
    name: &CStr,
    flags: libc::c_int,
) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the name is a C string, and the returned descriptor is new.
    unsafe {
        let fd = libc::openat(directory.as_raw_fd(), name.as_ptr(), flags);
        Ok(OwnedFd::from_raw_fd(super::check(fd)?))
    }
}
