//! Turning paths into open descriptors, with the rights of whoever this thread acts for.
//!
//! Nothing here reads or writes contents. A path is resolved by the kernel inside the sandbox's own root, so a link
//! leads only to what its programs reach as well. Two things differ from their view, because they would mean the
//! worker instead of them: links of `/proc` such as `/proc/self/fd/0` are not followed, and the worker's own
//! directory in `/proc` is out of bounds.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::error::{Explain, FileError, Result, errno};
use crate::sys::{file, namespace};

/// Longest path that the kernel takes, without its NUL.
pub(super) const PATH_LIMIT: usize = libc::PATH_MAX.cast_unsigned() as usize - 1;

/// Longest name of an entry.
const NAME_LIMIT: usize = 255;

const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// Resolves paths of the sandbox.
#[derive(Debug)]
pub(super) struct Tree {
    /// `/proc/self/fd`: opens again what an `O_PATH` descriptor stands for, and nothing else.
    descriptors: OwnedFd,
    /// The worker's own directory in `/proc`.
    own: Vec<u8>,
    /// Device of `/proc`.
    proc: u64,
}

/// Where an entry is, or is to be made.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory, `O_PATH`.
    pub(super) parent: OwnedFd,
    /// The entry's name in it.
    pub(super) name: CString,
}

impl Tree {
    /// Prepares to resolve paths.
    ///
    /// # Errors
    /// Those of the system if `/proc` is not there.
    pub(super) fn new() -> std::io::Result<Self> {
        let descriptors = file::open(file::CWD, c"/proc/self/fd", DIRECTORY, 0, 0)?;
        let mut own = b"/proc/".to_vec();
        own.extend(file::read_link(file::CWD, c"/proc/self")?);
        let proc = file::status(descriptors.as_fd())?.st_dev;
        Ok(Self {
            descriptors,
            own,
            proc,
        })
    }

    /// Makes the descriptors the working directory, for calls that take only a path. All other paths are absolute.
    pub(super) fn work_in_descriptors(&self) -> std::io::Result<()> {
        namespace::change_directory(self.descriptors.as_fd())
    }

    /// Opens what `path` leads to, as `O_PATH`: this has no effect on it, whatever it is.
    pub(super) fn find(&self, path: &[u8]) -> Result<OwnedFd> {
        self.resolve(path, libc::O_PATH)
    }

    /// Opens the entry `path` itself, as `O_PATH`: a link at its end is not followed.
    pub(super) fn find_entry(&self, path: &[u8]) -> Result<OwnedFd> {
        self.resolve(path, libc::O_PATH | libc::O_NOFOLLOW)
    }

    /// Opens the directory `path` for reading its entries.
    pub(super) fn directory(&self, path: &[u8]) -> Result<OwnedFd> {
        self.resolve(path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK)
    }

    fn resolve(&self, path: &[u8], flags: i32) -> Result<OwnedFd> {
        let name = checked(path)?;
        let fd = file::open(file::CWD, &name, flags, 0, libc::RESOLVE_NO_MAGICLINKS)
            .explain("open", path)?;
        self.refuse_own(fd.as_fd(), path)?;
        Ok(fd)
    }

    /// Refuses the worker's own files in `/proc`: its memory, descriptors and environment are not the sandbox's.
    pub(super) fn refuse_own(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        if file::status(fd).explain("stat", path)?.st_dev != self.proc {
            return Ok(());
        }
        let real = file::read_link(self.descriptors.as_fd(), &number(fd)).explain("read", path)?;
        let below = real.strip_prefix(self.own.as_slice());
        if below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
            let message =
                "leads to the file worker's own process, name another process by its number";
            return Err(FileError::about(libc::EACCES, path, message));
        }
        Ok(())
    }

    /// Opens for reading or writing what an `O_PATH` descriptor of a regular file stands for.
    pub(super) fn reopen(&self, target: BorrowedFd<'_>, access: i32) -> std::io::Result<OwnedFd> {
        // O_NONBLOCK: a lease that a process of the sandbox holds is an error then, not a wait.
        file::open(
            self.descriptors.as_fd(),
            &number(target),
            access | libc::O_NONBLOCK,
            0,
            0,
        )
    }

    /// Sets the permissions of what a descriptor stands for; it may be an `O_PATH` one, but not of a link.
    pub(super) fn set_mode(&self, target: BorrowedFd<'_>, mode: u32) -> std::io::Result<()> {
        file::set_mode(self.descriptors.as_fd(), &number(target), mode & 0o7777)
    }

    /// Finds the directory and name of an entry that may not exist. `parents` makes missing directories above it.
    pub(super) fn place(&self, path: &[u8], parents: bool) -> Result<Place> {
        checked(path)?;
        let trimmed = trim_slashes(path);
        let cut = trimmed.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (above, name) = trimmed.split_at_checked(cut + 1).unwrap_or_default();
        match name {
            b"" => {
                return Err(FileError::new(
                    libc::EBUSY,
                    "the root directory cannot be made, renamed or removed",
                ));
            }
            b"." | b".." => {
                return Err(FileError::about(
                    libc::EINVAL,
                    path,
                    "ends in `.` or `..` instead of a name",
                ));
            }
            _ if name.len() > NAME_LIMIT => {
                return Err(FileError::about(
                    libc::ENAMETOOLONG,
                    path,
                    "has a name of more than 255 bytes",
                ));
            }
            _ => {}
        }
        let parent = match self.resolve(above, DIRECTORY) {
            Err(error) if error.errno == libc::ENOENT && parents => self.make_directories(above)?,
            other => other?,
        };
        let name = file::c_string(name).explain("open", path)?;
        Ok(Place { parent, name })
    }

    /// Opens the directory `path`, making it and those above with 0755 where they are missing.
    pub(super) fn make_directories(&self, path: &[u8]) -> Result<OwnedFd> {
        checked(path)?;
        let open = |dir: BorrowedFd<'_>, name: &CStr| {
            file::open(dir, name, DIRECTORY, 0, libc::RESOLVE_NO_MAGICLINKS)
        };
        let mut dir = open(file::CWD, c"/").explain("open", b"/")?;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let name = file::c_string(name).explain("open", path)?;
            dir = match open(dir.as_fd(), &name) {
                Err(error) if errno(&error) == libc::ENOENT => {
                    let made = file::make_dir(dir.as_fd(), &name, 0o755);
                    // Somebody else may have been faster. If it was not made and still cannot be opened, it is a
                    // link to nowhere.
                    made.or_else(|error| {
                        if errno(&error) == libc::EEXIST {
                            Ok(())
                        } else {
                            Err(error)
                        }
                    })
                    .explain("make the parent directories of", path)?;
                    open(dir.as_fd(), &name)
                }
                other => other,
            }
            .explain("open the parent directories of", path)?;
        }
        self.refuse_own(dir.as_fd(), path)?;
        Ok(dir)
    }
}

/// The name of a descriptor in `/proc/self/fd`.
pub(super) fn number(fd: BorrowedFd<'_>) -> CString {
    CString::new(fd.as_raw_fd().to_string()).unwrap_or_default()
}

/// Accepts what the kernel could take as an absolute path, which all are once they start at a home.
pub(super) fn checked(path: &[u8]) -> Result<CString> {
    if !path.starts_with(b"/") {
        return Err(FileError::about(libc::EINVAL, path, "is an empty path"));
    }
    if path.len() > PATH_LIMIT {
        return Err(FileError::about(
            libc::ENAMETOOLONG,
            path,
            "is longer than 4095 bytes",
        ));
    }
    CString::new(path).map_err(|_| FileError::about(libc::EINVAL, path, "holds a NUL byte"))
}

/// `path` without the slashes at its end.
fn trim_slashes(path: &[u8]) -> &[u8] {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    path.get(..end).unwrap_or_default()
}

/// Whether it is a directory, and no link to one.
pub(super) fn is_directory(status: &libc::stat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// What a file is, in words; `None` is a regular file.
pub(super) fn unusual(mode: u32) -> Option<&'static str> {
    match mode & libc::S_IFMT {
        libc::S_IFREG => None,
        libc::S_IFDIR => Some("a directory"),
        libc::S_IFLNK => Some("a symbolic link"),
        libc::S_IFIFO => Some("a fifo"),
        libc::S_IFSOCK => Some("a socket"),
        libc::S_IFCHR => Some("a character device"),
        libc::S_IFBLK => Some("a block device"),
        _ => Some("of an unknown kind"),
    }
}
