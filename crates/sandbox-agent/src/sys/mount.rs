//! Mounts by descriptor: detached copies and new file systems, their attributes, and where they are attached.

#![expect(unsafe_code, reason = "mount system calls")]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

/// Attributes of one mount, `MOUNT_ATTR_*` of `linux/mount.h`.
pub(crate) mod attribute {
    pub(crate) const READ_ONLY: u64 = 0x1;
    pub(crate) const NO_SUID: u64 = 0x2;
    pub(crate) const NO_DEV: u64 = 0x4;
    pub(crate) const NO_EXEC: u64 = 0x8;
    pub(super) const ID_MAP: u64 = 0x0010_0000;
}

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Makes a detached copy of the mount at `path`, without what is mounted below it.
pub(crate) fn clone_tree(path: &CStr) -> io::Result<OwnedFd> {
    open_tree(path, 0)
}

/// As [`clone_tree`], with all that is mounted below it.
pub(crate) fn clone_trees(path: &CStr) -> io::Result<OwnedFd> {
    open_tree(path, AT_RECURSIVE)
}

/// As [`clone_tree`], of a directory that is open.
pub(crate) fn clone_open(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: the descriptor is open, and the empty path is a C string.
    unsafe {
        descriptor(libc::syscall(
            libc::SYS_open_tree,
            directory.as_raw_fd(),
            c"".as_ptr(),
            flags,
        ))
    }
}

fn open_tree(path: &CStr, more: u32) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | more;
    // SAFETY: `path` is a C string.
    unsafe {
        descriptor(libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
        ))
    }
}

/// Adds attributes to a mount and makes it private; with `owners`, maps the owners of its files by that
/// user namespace, which only a mount that was never attached allows.
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    owners: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = MountAttr {
        set: attributes | owners.map_or(0, |_| attribute::ID_MAP),
        clear: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: owners.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    mount_setattr(mount.as_raw_fd(), c"", libc::AT_EMPTY_PATH, &attr)
}

/// Adds attributes to the mount that is attached at `path`.
pub(crate) fn set_attributes_at(path: &CStr, attributes: u64) -> io::Result<()> {
    let attr = MountAttr {
        set: attributes,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    mount_setattr(libc::AT_FDCWD, path, 0, &attr)
}

fn mount_setattr(
    directory: RawFd,
    path: &CStr,
    flags: libc::c_int,
    attr: &MountAttr,
) -> io::Result<()> {
    let attr = ptr::from_ref(attr);
    // SAFETY: `path` is a C string, and `attr` points to a structure of the given size.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags,
            attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Attaches a detached mount, or moves an attached one, onto the directory or file `target`.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_raw_fd(), c"", target.as_raw_fd(), c"", flags)
}

/// Attaches a detached mount onto the directory or file at `path`.
pub(crate) fn attach_at(mount: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    move_mount(
        mount.as_raw_fd(),
        c"",
        libc::AT_FDCWD,
        path,
        MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Moves the mount at `from`, with all below it, onto `target`.
pub(crate) fn relocate(from: &CStr, target: BorrowedFd<'_>) -> io::Result<()> {
    move_mount(
        libc::AT_FDCWD,
        from,
        target.as_raw_fd(),
        c"",
        MOVE_MOUNT_T_EMPTY_PATH,
    )
}

fn move_mount(
    from: RawFd,
    from_path: &CStr,
    to: RawFd,
    to_path: &CStr,
    flags: u32,
) -> io::Result<()> {
    // SAFETY: both paths are C strings.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from,
            from_path.as_ptr(),
            to,
            to_path.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Shows `from` at `to` as well, with the attributes of the mount it lies on.
pub(crate) fn bind(from: &CStr, to: &CStr) -> io::Result<()> {
    // SAFETY: both paths are C strings; a bind mount reads neither type nor data.
    super::check(unsafe {
        libc::mount(
            from.as_ptr(),
            to.as_ptr(),
            ptr::null(),
            libc::MS_BIND,
            ptr::null(),
        )
    })
    .map(drop)
}

/// Cuts every mount of this namespace off from changes elsewhere, and the other way round.
pub(crate) fn make_all_private() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the target is a C string; a change of propagation reads neither source, type nor data.
    super::check(unsafe {
        libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), flags, ptr::null())
    })
    .map(drop)
}

/// Makes the working directory, a mount's root, the root of this mount namespace, and lets go of the old one.
pub(crate) fn enter_root() -> io::Result<()> {
    let here = c".".as_ptr();
    // SAFETY: both paths are C strings. The old root ends up below the new one, where it is detached.
    unsafe {
        super::check(libc::syscall(libc::SYS_pivot_root, here, here))?;
        super::check(libc::umount2(here, libc::MNT_DETACH))?;
        super::check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// Takes away the mount at `path`, with all below it.
pub(crate) fn detach(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is a C string.
    super::check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Makes a character device that everybody may use.
pub(crate) fn make_device(name: &CStr, major: u32, minor: u32) -> io::Result<()> {
    let device = libc::makedev(major, minor);
    // SAFETY: `name` is a C string.
    super::check(unsafe {
        libc::mknodat(libc::AT_FDCWD, name.as_ptr(), libc::S_IFCHR | 0o666, device)
    })
    .map(drop)
}

/// Whether nothing can be written to this mount.
pub(crate) fn is_read_only(mount: BorrowedFd<'_>) -> io::Result<bool> {
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `stat` has room for the result, which is read only if the call has written it.
    let flags = unsafe {
        super::check(libc::fstatvfs(mount.as_raw_fd(), stat.as_mut_ptr()))?;
        stat.assume_init().f_flag
    };
    Ok(flags & libc::ST_RDONLY != 0)
}

/// Lets nothing be written to the file system whose root is open here, by whatever mount of it, or lets it again.
///
/// # Errors
/// `EBUSY` if a file of it is open for writing, or removed and still open.
pub(crate) fn set_read_only(root: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the empty path is a C string.
    let picked = unsafe {
        descriptor(libc::syscall(
            libc::SYS_fspick,
            root.as_raw_fd(),
            c"".as_ptr(),
            flags,
        ))?
    };
    let fs = NewFilesystem(picked);
    fs.enable(if read_only { c"ro" } else { c"rw" })?;
    fs.configure(FSCONFIG_CMD_RECONFIGURE, None, None)
}

/// A file system that is being configured.
#[derive(Debug)]
pub(crate) struct NewFilesystem(OwnedFd);

impl NewFilesystem {
    /// Starts with a file system of type `kind`.
    pub(crate) fn open(kind: &CStr) -> io::Result<Self> {
        // SAFETY: `kind` is a C string.
        unsafe {
            descriptor(libc::syscall(
                libc::SYS_fsopen,
                kind.as_ptr(),
                FSOPEN_CLOEXEC,
            ))
            .map(Self)
        }
    }

    /// Sets an option; the kernel takes at most 255 bytes.
    pub(crate) fn set(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// Switches an option on that has no value.
    pub(crate) fn enable(&self, key: &CStr) -> io::Result<()> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Makes the file system and a detached mount of it with these attributes.
    pub(crate) fn mount(self, attributes: u64) -> io::Result<OwnedFd> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: a call with integers.
        unsafe {
            descriptor(libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes,
            ))
        }
    }

    fn configure(&self, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        // SAFETY: key and value are C strings or null, as each of the commands wants them.
        super::check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key.map_or(ptr::null(), CStr::as_ptr),
                value.map_or(ptr::null(), CStr::as_ptr),
                0,
            )
        })
        .map(drop)
    }
}

/// Owns the descriptor that a system call has returned.
///
/// # Safety
/// `result` is that of a call that returns a new descriptor or -1.
unsafe fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(super::check(result)?).map_err(io::Error::other)?;
    // SAFETY: the caller says that it is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
