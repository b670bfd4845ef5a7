//! System calls on files: opening without surprises, names relative to a directory, and whose rights are used.

#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// Stands for the working directory where a directory is asked for; absolute paths ignore it.
pub(crate) const CWD: BorrowedFd<'static> = {
    // SAFETY: AT_FDCWD is no descriptor that could be closed, and it is not the reserved -1.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
};

/// Takes the rights of a user for everything that this thread does to files.
///
/// The raw calls are used on purpose: libc's `setgroups` changes every thread of a process. Leaving uid 0 drops the
/// file capabilities from the effective set, coming back restores them.
///
/// # Errors
/// `EPERM` if any of the three was not taken; the thread then has the rights of neither user and must not go on.
pub(crate) fn set_identity(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    super::credential::set_groups(groups)?;
    let set = |call, id: u32| {
        // SAFETY: both calls take an id and no pointer. The second call, with an invalid id, only asks.
        unsafe {
            libc::syscall(call, id);
            libc::syscall(call, u32::MAX) == libc::c_long::from(id)
        }
    };
    let taken = set(libc::SYS_setfsgid, gid) && set(libc::SYS_setfsuid, uid);
    // Some values of `fs.suid_dumpable` make a process readable for others when its ids change.
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    if taken {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// The user who started this process.
pub(crate) fn real_uid() -> u32 {
    // SAFETY: a plain call that cannot fail.
    unsafe { libc::getuid() }
}

/// Makes modes of new files be what is asked for.
pub(crate) fn clear_umask() {
    // SAFETY: takes a number and cannot fail.
    unsafe { libc::umask(0) };
}

/// Opens `path` below `dir`; `resolve` are `RESOLVE_` flags. Always close-on-exec, never a controlling terminal.
pub(crate) fn open(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    // SAFETY: `open_how` is plain data, all zero is a valid value of it.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // O_NOCTTY is not allowed together with O_PATH.
    let tty = if flags & libc::O_PATH == 0 {
        libc::O_NOCTTY
    } else {
        0
    };
    how.flags = u64::from((flags | tty | libc::O_CLOEXEC).cast_unsigned());
    how.mode = u64::from(mode);
    how.resolve = resolve;
    // SAFETY: `path` ends with NUL, and the kernel reads as many bytes of `how` as it is told.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of_val(&how),
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Describes an open file; works on `O_PATH` descriptors.
pub(crate) fn status(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    status_at(fd, c"", libc::AT_EMPTY_PATH)
}

/// Describes the entry `name` of `dir` itself: a link is not followed.
pub(crate) fn status_of(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<libc::stat> {
    status_at(dir, name, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
}

fn status_at(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<libc::stat> {
    let mut status = MaybeUninit::uninit();
    // SAFETY: `name` ends with NUL and `status` has room for one result.
    check(unsafe { libc::fstatat(dir.as_raw_fd(), name.as_ptr(), status.as_mut_ptr(), flags) })?;
    // SAFETY: the call succeeded, so the kernel filled it.
    Ok(unsafe { status.assume_init() })
}

/// Type of the file system that an open file is on (`..._MAGIC`).
pub(crate) fn file_system(fd: BorrowedFd<'_>) -> io::Result<i64> {
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `status` has room for one result.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), status.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel filled it.
    Ok(unsafe { status.assume_init() }.f_type)
}

/// Reads where the link `name` in `dir` points; an empty name means `dir` itself, opened as a link.
pub(crate) fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut target = vec![0_u8; libc::PATH_MAX.cast_unsigned() as usize];
    // SAFETY: `name` ends with NUL, and the kernel writes at most as many bytes as `target` has.
    let len = unsafe {
        libc::readlinkat(
            dir.as_raw_fd(),
            name.as_ptr(),
            target.as_mut_ptr().cast(),
            target.len(),
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    target.truncate(len);
    Ok(target)
}

/// Makes the directory `name` in `dir`.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// Makes the symbolic link `name` in `dir`.
pub(crate) fn make_link(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: both strings end with NUL.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// Makes the fifo, socket or device `name` in `dir`.
pub(crate) fn make_node(
    dir: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    device: u64,
) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }).map(drop)
}

/// Removes the entry `name` of `dir`; `directory` says which kind it must be.
pub(crate) fn unlink(dir: BorrowedFd<'_>, name: &CStr, directory: bool) -> io::Result<()> {
    let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// Renames as rename(2) does.
pub(crate) fn rename(
    from: BorrowedFd<'_>,
    old: &CStr,
    to: BorrowedFd<'_>,
    new: &CStr,
) -> io::Result<()> {
    // SAFETY: both names end with NUL.
    check(unsafe { libc::renameat(from.as_raw_fd(), old.as_ptr(), to.as_raw_fd(), new.as_ptr()) })
        .map(drop)
}

/// Sets the permissions of what `name` in `dir` is or links to.
pub(crate) fn set_mode(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, 0) }).map(drop)
}

/// Sets the owner of an open file, link or `O_PATH` descriptor; `None` stays.
pub(crate) fn set_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
    // SAFETY: the name is empty and ends with NUL.
    check(unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) })
        .map(drop)
}

/// Sets the owner of the entry `name` of `dir` itself: a link is not followed.
pub(crate) fn set_owner_of(dir: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> io::Result<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::fchownat(dir.as_raw_fd(), name.as_ptr(), uid, gid, flags) }).map(drop)
}

/// Sets the modification time of the entry `name` of `dir` itself: a link is not followed.
pub(crate) fn set_modified(
    dir: BorrowedFd<'_>,
    name: &CStr,
    seconds: i64,
    nanos: i64,
) -> io::Result<()> {
    let accessed = libc::timespec {
        tv_sec: 0,
        tv_nsec: libc::UTIME_OMIT,
    };
    let modified = libc::timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = [accessed, modified];
    // SAFETY: `name` ends with NUL and `times` holds the two values that the kernel reads.
    check(unsafe {
        libc::utimensat(
            dir.as_raw_fd(),
            name.as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
    .map(drop)
}

/// Whether this thread's file rights allow `mode` (`R_OK`, `W_OK`, `X_OK`) on an open file.
pub(crate) fn may_access(fd: BorrowedFd<'_>, mode: i32) -> io::Result<()> {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    // SAFETY: the name is empty and ends with NUL. The raw call is used because libc's emulates the flags.
    check(unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            fd.as_raw_fd(),
            c"".as_ptr(),
            mode,
            flags,
        )
    })
    .map(drop)
}

/// Calls `each` with the names of a directory's next entries, without `.` and `..`, in the kernel's order.
/// `false`: there were none left. `buffer` holds one batch; 32 KiB is a good size.
pub(crate) fn next_names(
    dir: BorrowedFd<'_>,
    buffer: &mut [u8],
    mut each: impl FnMut(&CStr),
) -> io::Result<bool> {
    // SAFETY: the kernel writes at most as many bytes as `buffer` has.
    let len = check(unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            dir.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    })?;
    let mut rest = buffer
        .get(..usize::try_from(len).unwrap_or(0))
        .unwrap_or_default();
    let any = !rest.is_empty();
    // struct linux_dirent64: inode 8 bytes, offset 8, record length 2, type 1, then the name and padding.
    while let Some(length) = rest
        .get(16..18)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes)
    {
        let Some((record, after)) = rest.split_at_checked(usize::from(length).max(1)) else {
            break;
        };
        if let Some(Ok(name)) = record.get(19..).map(CStr::from_bytes_until_nul)
            && name != c"."
            && name != c".."
        {
            each(name);
        }
        rest = after;
    }
    Ok(any)
}

/// Moves the position of an open file or directory (`SEEK_SET`, `SEEK_DATA`, `SEEK_HOLE`).
pub(crate) fn seek(fd: BorrowedFd<'_>, offset: u64, whence: i32) -> io::Result<u64> {
    let offset =
        i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: takes numbers only.
    let position = unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) };
    u64::try_from(position).map_err(|_| io::Error::last_os_error())
}

/// Copies up to `len` bytes between the positions of two files inside the kernel. 0 is the end of `from`.
pub(crate) fn copy_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    len: usize,
) -> io::Result<usize> {
    let (at_own_position, no_flags) = (std::ptr::null_mut(), 0);
    // SAFETY: null offsets mean the files' own positions; nothing else is a pointer.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            at_own_position,
            to.as_raw_fd(),
            at_own_position,
            len,
            no_flags,
        )
    };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

/// Makes a nameless file in memory that can be sealed.
pub(crate) fn memory_file(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `name` ends with NUL.
    let fd = check(unsafe {
        libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    })?;
    // SAFETY: the kernel just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a file of [`memory_file`] unchangeable.
pub(crate) fn seal(fd: BorrowedFd<'_>) -> io::Result<()> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: takes numbers only.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// Whether the peer of a socket has closed it.
pub(crate) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one `pollfd` is passed, and the call does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// A name or path for the kernel.
///
/// # Errors
/// `EINVAL` if it holds a NUL.
pub(crate) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}
