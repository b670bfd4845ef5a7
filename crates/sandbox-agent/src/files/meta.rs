//! What is known about a file: describing it, and changing permissions and owner. Contents are not looked at.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::files::Stat;

use super::error::{Explain, FileError, Result};
use super::tree::{Tree, checked};
use crate::account::{Database, Names};
use crate::sys::file;

/// Where the account files are.
const ETC: &str = "/etc";

/// Describes `path`.
pub(super) fn stat(tree: &Tree, names: &mut Names, path: &[u8], follow: bool) -> Result<Stat> {
    let found = if follow {
        tree.find(path)?
    } else {
        tree.find_entry(path)?
    };
    names.refresh(Path::new(ETC));
    describe_open(names, found.as_fd()).explain("stat", path)
}

fn describe_open(names: &Names, found: BorrowedFd<'_>) -> io::Result<Stat> {
    let status = file::status(found)?;
    describe(names, &status, found, c"")
}

/// Describes the entry `name` of `dir`, whose status is known; an empty name means `dir` itself.
pub(super) fn describe(
    names: &Names,
    status: &libc::stat,
    dir: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<Stat> {
    let link = status.st_mode & libc::S_IFMT == libc::S_IFLNK;
    Ok(Stat {
        mode: status.st_mode,
        size: u64::try_from(status.st_size).unwrap_or(0),
        uid: status.st_uid,
        gid: status.st_gid,
        modified_ms: status
            .st_mtime
            .saturating_mul(1000)
            .saturating_add(status.st_mtime_nsec / 1_000_000),
        user: names.user(status.st_uid),
        group: names.group(status.st_gid),
        target: if link {
            Some(Blob(file::read_link(dir, name)?))
        } else {
            None
        },
    })
}

/// Looks at the account files again, if they changed.
pub(super) fn refresh(names: &mut Names) {
    names.refresh(Path::new(ETC));
}

/// Changes owner and permissions of what `path` leads to.
pub(super) fn set_permissions(
    tree: &Tree,
    path: &[u8],
    mode: Option<u32>,
    owner: Option<&str>,
) -> Result<()> {
    let target = tree.find(path)?;
    if let Some(owner) = owner {
        let (uid, gid) = Database::read(Path::new(ETC)).owner(owner)?;
        file::set_owner(target.as_fd(), uid, gid).explain("change the owner of", path)?;
    }
    // Second, because a change of owner takes the set-id bits away.
    match mode {
        Some(mode) => tree
            .set_mode(target.as_fd(), mode)
            .explain("set the permissions of", path),
        None => Ok(()),
    }
}

/// Makes the directory `path`.
pub(super) fn mkdir(tree: &Tree, path: &[u8], mode: Option<u32>, parents: bool) -> Result<()> {
    checked(path)?;
    if parents && let Some(existing) = existing(tree, path)? {
        return existing;
    }
    let place = match tree.place(path, parents) {
        // `/`, `.` and `..` exist wherever their parents do.
        Err(error) if matches!(error.errno, libc::EBUSY | libc::EINVAL) => {
            return Err(FileError::about(libc::EEXIST, path, "exists already"));
        }
        other => other?,
    };
    let made = file::make_dir(
        place.parent.as_fd(),
        &place.name,
        mode.unwrap_or(0o755) & 0o1777,
    );
    match (made, mode) {
        (Err(error), _) if error.raw_os_error() == Some(libc::EEXIST) && parents => {
            // Somebody else was faster, or it is a link to nowhere.
            existing(tree, path)?
                .unwrap_or_else(|| Err(FileError::of(&error, "make the directory", path)))
        }
        (Err(error), _) => Err(FileError::of(&error, "make the directory", path)),
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(mode)) => {
            // mkdir(2) takes only some of the bits, and a default ACL of the parent takes others away.
            let made = file::open(
                place.parent.as_fd(),
                &place.name,
                libc::O_PATH | libc::O_NOFOLLOW,
                0,
                0,
            );
            made.and_then(|made| tree.set_mode(made.as_fd(), mode))
                .explain("set the permissions of", path)
        }
    }
}

/// Whether `path` is there already: a directory is fine, anything else is not.
fn existing(tree: &Tree, path: &[u8]) -> Result<Option<Result<()>>> {
    let found = match tree.find(path) {
        Ok(found) => found,
        Err(error) if error.errno == libc::ENOENT => return Ok(None),
        Err(error) => return Err(error),
    };
    let status = file::status(found.as_fd()).explain("stat", path)?;
    Ok(Some(if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
        Ok(())
    } else {
        Err(FileError::about(
            libc::EEXIST,
            path,
            "exists and is not a directory",
        ))
    }))
}

/// Makes the symbolic link `path`.
pub(super) fn symlink(tree: &Tree, path: &[u8], target: &[u8]) -> Result<()> {
    if target.is_empty() {
        return Err(FileError::about(
            libc::EINVAL,
            path,
            "would be a link to an empty path",
        ));
    }
    let target = file::c_string(target).explain("make a link to", target)?;
    let place = tree.place(path, false)?;
    file::make_link(&target, place.parent.as_fd(), &place.name).explain("make the link", path)
}
