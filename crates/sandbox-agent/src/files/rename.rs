//! Renaming, also where the kernel cannot: between mounts, and directories of a read-only layer.
//!
//! There a copy is made beside the new name, put in its place at once, and then the old tree is removed. A copy that
//! fails leaves nothing behind.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::{Abort, Connection, Outcome};
use super::copy::Copier;
use super::error::{Explain, FileError, Result, errno};
use super::remove::remove_tree;
use super::tree::{Place, Tree, is_directory};
use crate::sys::file;

/// Renames `from` to `to` for the user `uid`.
pub(super) fn rename(
    tree: &Tree,
    connection: &Connection,
    from: &[u8],
    to: &[u8],
    uid: u32,
) -> Outcome<()> {
    let old = tree.place(from, false)?;
    let new = tree.place(to, false)?;
    match file::rename(old.parent.as_fd(), &old.name, new.parent.as_fd(), &new.name) {
        Err(error) if errno(&error) == libc::EXDEV => {
            let status = check(&old, &new, from, to, uid)?;
            move_by_copy(
                &Copier {
                    tree,
                    connection,
                    path: from,
                },
                &old,
                &new,
                &status,
                to,
            )
        }
        // Two numbers for the same thing; it depends on the file system which one comes.
        Err(error) if errno(&error) == libc::EEXIST => {
            Err(FileError::about(libc::ENOTEMPTY, to, "is a directory that is not empty").into())
        }
        other => Ok(other.explain("rename", from)?),
    }
}

/// Finds out before any copy what rename(2) would refuse.
fn check(old: &Place, new: &Place, from: &[u8], to: &[u8], uid: u32) -> Result<libc::stat> {
    let parent = old.parent.as_fd();
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let source = match file::open(parent, &old.name, flags, 0, libc::RESOLVE_NO_XDEV) {
        Err(error) if errno(&error) == libc::EXDEV => {
            return Err(FileError::about(libc::EBUSY, from, "is a mount point"));
        }
        other => other.explain("rename", from)?,
    };
    let status = file::status(source.as_fd()).explain("rename", from)?;
    file::may_access(parent, libc::W_OK | libc::X_OK).explain("remove", from)?;
    let directory = file::status(parent).explain("rename", from)?;
    let sticky = directory.st_mode & libc::S_ISVTX != 0;
    if sticky && uid != 0 && uid != directory.st_uid && uid != status.st_uid {
        return Err(FileError::about(
            libc::EPERM,
            from,
            "belongs to another user, in a directory with the sticky bit",
        ));
    }
    match file::status_of(new.parent.as_fd(), &new.name) {
        Err(error) if errno(&error) == libc::ENOENT => {}
        Err(error) => return Err(FileError::of(&error, "rename to", to)),
        Ok(existing) => check_kinds(is_directory(&status), is_directory(&existing), new, to)?,
    }
    Ok(status)
}

/// What may take the place of what.
fn check_kinds(source: bool, existing: bool, new: &Place, to: &[u8]) -> Result<()> {
    match (source, existing) {
        (false, false) => Ok(()),
        (false, true) => Err(FileError::about(libc::EISDIR, to, "is a directory")),
        (true, false) => Err(FileError::about(libc::ENOTDIR, to, "is not a directory")),
        (true, true) => {
            let opened = file::open(
                new.parent.as_fd(),
                &new.name,
                super::walk::OPEN,
                0,
                libc::RESOLVE_NO_SYMLINKS,
            );
            let mut filled = false;
            // One that may not be read is left to the rename at the end.
            if let Ok(opened) = opened {
                let mut buffer = vec![0; 4096];
                let any = |opened: &_, buffer: &mut _, filled: &mut _| {
                    file::next_names(AsFd::as_fd(opened), buffer, |_| *filled = true)
                };
                while !filled && any(&opened, &mut buffer, &mut filled).explain("list", to)? {}
            }
            if filled {
                Err(FileError::about(
                    libc::ENOTEMPTY,
                    to,
                    "is a directory that is not empty",
                ))
            } else {
                Ok(())
            }
        }
    }
}

fn move_by_copy(
    copier: &Copier<'_>,
    old: &Place,
    new: &Place,
    status: &libc::stat,
    to: &[u8],
) -> Outcome<()> {
    let target = new.parent.as_fd();
    let parent = target.try_clone_to_owned().explain("copy to", to)?;
    let copy = Place {
        parent,
        name: temporary_name(),
    };
    let from = copier.path;
    let copied = copier.copy(old, &copy, status).and_then(|()| {
        let published = file::rename(target, &copy.name, target, &new.name);
        Ok(published.explain("rename to", to)?)
    });
    if let Err(abort) = copied {
        // The first reason is the one to tell.
        let _ = discard(&copy, from);
        return Err(abort);
    }
    discard(old, from).map_err(|abort| match abort {
        Abort::Failed(error) => FileError::new(
            error.errno,
            format!("copied to the new name, but: {}", error.message),
        )
        .into(),
        Abort::Gone => Abort::Gone,
    })
}

/// Removes a file or tree, to the end even if nobody waits any more: half of it would be of no use.
fn discard(place: &Place, path: &[u8]) -> Outcome<()> {
    match file::unlink(place.parent.as_fd(), &place.name, false) {
        Err(error) if errno(&error) == libc::EISDIR => remove_tree(None, place, path),
        Err(error) if errno(&error) == libc::ENOENT => Ok(()),
        other => Ok(other.explain("remove", path)?),
    }
}

/// A name that nothing else has: a copy is made only where nothing is yet, so a clash is an error and no harm.
fn temporary_name() -> CString {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    CString::new(format!(
        ".sandbox-move-{}-{}",
        std::process::id(),
        now.as_nanos()
    ))
    .unwrap_or_default()
}
