//! Removing files and trees.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use super::connection::{Connection, Outcome};
use super::error::{Explain, FileError, Result, errno};
use super::tree::{Place, Tree};
use super::walk::{self, Step, Walk};
use crate::sys::file;

/// How often directories may turn out to have been filled again before the removal gives up.
const REFILLS: u32 = 100;

/// Removes `path`: a file, link or empty directory, or with `recursive` a whole tree.
pub(super) fn remove(
    tree: &Tree,
    connection: &Connection,
    path: &[u8],
    recursive: bool,
) -> Outcome<()> {
    let place = tree.place(path, false)?;
    let parent = place.parent.as_fd();
    let removed = match file::unlink(parent, &place.name, false) {
        Err(error) if errno(&error) == libc::EISDIR => file::unlink(parent, &place.name, true),
        other => other,
    };
    match removed {
        Err(error) if recursive && is_filled(errno(&error)) => {
            remove_tree(Some(connection), &place, path)
        }
        Err(error) if is_filled(errno(&error)) => {
            Err(FileError::about(libc::ENOTEMPTY, path, "is a directory that is not empty").into())
        }
        other => Ok(other.explain("remove", path)?),
    }
}

/// Removes the directory at `place` with all that is in it; other mounts are left alone. Stops early if there is a
/// `connection` and its peer hangs up.
pub(super) fn remove_tree(
    connection: Option<&Connection>,
    place: &Place,
    path: &[u8],
) -> Outcome<()> {
    let no_links = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
    let root = file::open(place.parent.as_fd(), &place.name, walk::OPEN, 0, no_links);
    let root = root.map_err(|error| refused(&error, path))?;
    let mut walk = Walk::new(root, true).explain("remove", path)?;
    let mut refills = 0;
    loop {
        connection.map_or(Ok(()), Connection::still_wanted)?;
        let step = walk.step().map_err(|error| refused(&error, path))?;
        let (name, left) = match step {
            Step::End => break,
            Step::Entry(name) => (name, false),
            Step::Left(name) => (name, true),
        };
        let directory = walk.directory().explain("remove", path)?;
        match remove_entry(directory, &name, left, path)? {
            Removal::Done => {}
            Removal::Filled if refills == REFILLS => {
                return Err(FileError::about(
                    libc::ENOTEMPTY,
                    path,
                    "is being filled while it is removed",
                )
                .into());
            }
            Removal::Filled => {
                refills += u32::from(left);
                match walk.enter(name) {
                    Err(error) if errno(&error) != libc::ENOENT => {
                        return Err(refused(&error, path).into());
                    }
                    _ => {}
                }
            }
        }
    }
    match file::unlink(place.parent.as_fd(), &place.name, true) {
        Err(error) if errno(&error) == libc::ENOENT => Ok(()),
        other => Ok(other.map_err(|error| refused(&error, path))?),
    }
}

enum Removal {
    Done,
    /// It is a directory with entries.
    Filled,
}

/// Removes one entry, or finds that it has entries itself. `empty`: it is a directory that had none a moment ago.
fn remove_entry(
    directory: BorrowedFd<'_>,
    name: &CStr,
    empty: bool,
    path: &[u8],
) -> Result<Removal> {
    let removed = match file::unlink(directory, name, empty) {
        Err(error) if errno(&error) == libc::EISDIR => file::unlink(directory, name, true),
        Err(error) if errno(&error) == libc::ENOTDIR && empty => {
            file::unlink(directory, name, false)
        }
        other => other,
    };
    match removed {
        Ok(()) => Ok(Removal::Done),
        Err(error) if errno(&error) == libc::ENOENT => Ok(Removal::Done),
        Err(error) if is_filled(errno(&error)) => Ok(Removal::Filled),
        Err(error) => Err(refused(&error, path)),
    }
}

fn is_filled(errno: i32) -> bool {
    matches!(errno, libc::ENOTEMPTY | libc::EEXIST)
}

fn refused(error: &std::io::Error, path: &[u8]) -> FileError {
    match errno(error) {
        libc::EXDEV | libc::EBUSY => {
            FileError::about(libc::EBUSY, path, "is a mount point or holds one")
        }
        libc::ESTALE => FileError::about(libc::EBUSY, path, "was moved while it was removed"),
        _ => FileError::of(error, "remove", path),
    }
}
