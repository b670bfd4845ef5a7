//! Extended attributes, times, links and shared contents of files: what a faithful copy needs besides their bytes.

#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use super::check;

/// Longest value of an extended attribute, and longest list of their names, by the kernel.
const LONGEST: usize = 64 * 1024;

/// `linux/fs.h`.
const FICLONE: libc::Ioctl = 0x4004_9409;

/// Names of the extended attributes of what is at `path`, itself if it is a link; none where the file system has none.
pub(crate) fn names(path: &CStr) -> io::Result<Vec<u8>> {
    let mut names = vec![0_u8; LONGEST];
    // SAFETY: `path` ends with NUL, and the kernel writes at most as many bytes as there is room for.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), LONGEST) };
    match usize::try_from(length) {
        Ok(length) => {
            names.truncate(length);
            Ok(names)
        }
        Err(_) => match io::Error::last_os_error() {
            error if is(&error, &[libc::EOPNOTSUPP, libc::ENOENT]) => Ok(Vec::new()),
            error => Err(error),
        },
    }
}

/// The value of an extended attribute; `None` if there is none.
pub(crate) fn value(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; LONGEST];
    let room = value.as_mut_ptr().cast();
    // SAFETY: both strings end with NUL, and the kernel writes at most as many bytes as there is room for.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), room, LONGEST) };
    match usize::try_from(length) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(_) => match io::Error::last_os_error() {
            error if is(&error, &[libc::ENODATA, libc::EOPNOTSUPP, libc::ENOENT]) => Ok(None),
            error => Err(error),
        },
    }
}

/// Sets an extended attribute.
pub(crate) fn set_value(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (bytes, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: both strings end with NUL, and the kernel reads as many bytes as `value` has.
    check(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), bytes, length, 0) }).map(drop)
}

/// Gives the entry `name` of `dir` the times of access and change of another one. A link is not followed.
pub(crate) fn set_times(dir: BorrowedFd<'_>, name: &CStr, like: &libc::stat) -> io::Result<()> {
    let times = times(like);
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `name` ends with NUL and `times` holds the two values that the kernel reads.
    check(unsafe { libc::utimensat(dir.as_raw_fd(), name.as_ptr(), times.as_ptr(), flags) })
        .map(drop)
}

/// As [`set_times`], of an open file.
pub(crate) fn set_times_of(file: BorrowedFd<'_>, like: &libc::stat) -> io::Result<()> {
    let times = times(like);
    // SAFETY: `times` holds the two values that the kernel reads.
    check(unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) }).map(drop)
}

fn times(like: &libc::stat) -> [libc::timespec; 2] {
    let time = |tv_sec, tv_nsec| libc::timespec { tv_sec, tv_nsec };
    [
        time(like.st_atime, like.st_atime_nsec),
        time(like.st_mtime, like.st_mtime_nsec),
    ]
}

/// Gives the file `old` of `from` another name. A link is not followed.
pub(crate) fn link(
    from: BorrowedFd<'_>,
    old: &CStr,
    to: BorrowedFd<'_>,
    new: &CStr,
) -> io::Result<()> {
    // SAFETY: both names end with NUL.
    check(unsafe {
        libc::linkat(
            from.as_raw_fd(),
            old.as_ptr(),
            to.as_raw_fd(),
            new.as_ptr(),
            0,
        )
    })
    .map(drop)
}

/// Gives a file the contents of another one without copying them. False if the file system cannot do that.
pub(crate) fn share_contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: a call with two descriptors.
    match check(unsafe { libc::ioctl(to.as_raw_fd(), FICLONE, from.as_raw_fd()) }) {
        Ok(_) => Ok(true),
        Err(error)
            if is(
                &error,
                &[libc::EOPNOTSUPP, libc::EXDEV, libc::EINVAL, libc::ENOTTY],
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Copies up to `len` bytes from and to position `at` inside the kernel. 0 is the end of `from`.
pub(crate) fn copy_at(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    at: u64,
    len: u64,
) -> io::Result<u64> {
    let at = i64::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    let (mut read, mut written) = (at, at);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    // SAFETY: both offsets live until the call returns; nothing else is a pointer.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            ptr::from_mut(&mut read),
            to.as_raw_fd(),
            ptr::from_mut(&mut written),
            len,
            0,
        )
    };
    u64::try_from(copied).map_err(|_| io::Error::last_os_error())
}

fn is(error: &io::Error, errnos: &[i32]) -> bool {
    error
        .raw_os_error()
        .is_some_and(|errno| errnos.contains(&errno))
}
