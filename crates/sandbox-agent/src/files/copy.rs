//! Copying a file or tree: contents with their holes, permissions, times, links, and owners where that is allowed.
//!
//! Hard links become separate files, and extended attributes are not copied. Both trees may change meanwhile; what is
//! copied is then some mix of before and after, but never something outside of them.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::connection::{Connection, Outcome};
use super::error::{Explain, FileError, Result, errno};
use super::tree::{Place, Tree, is_directory, unusual};
use super::walk::{self, Ladder, Step, Walk};
use crate::sys::file;

/// Bytes copied between two looks at whether anybody still waits.
const PIECE: usize = 4 * 1024 * 1024;

const ENTRY: i32 = libc::O_PATH | libc::O_NOFOLLOW;

/// Copies on behalf of one request.
pub(super) struct Copier<'a> {
    pub(super) tree: &'a Tree,
    pub(super) connection: &'a Connection,
    /// What is copied, for messages.
    pub(super) path: &'a [u8],
}

impl Copier<'_> {
    /// Copies what is at `from` to the new name `to`.
    pub(super) fn copy(&self, from: &Place, to: &Place, status: &libc::stat) -> Outcome<()> {
        let (source, target) = (from.parent.as_fd(), to.parent.as_fd());
        if !is_directory(status) {
            return self.copy_entry(source, &from.name, target, &to.name, status);
        }
        self.copy_directory(from, to)?;
        Ok(self.finish(target, &to.name, status)?)
    }

    /// Copies all that is in the directory `from` into a new directory `to`.
    fn copy_directory(&self, from: &Place, to: &Place) -> Outcome<()> {
        let no_links = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
        let root = file::open(from.parent.as_fd(), &from.name, walk::OPEN, 0, no_links);
        let mut walk = self.explain(root.and_then(|root| Walk::new(root, true)))?;
        let root = self.new_directory(to.parent.as_fd(), &to.name)?;
        let mut target = self.explain(Ladder::new(root))?;
        // What the directories that the walk is in are like; the outermost one is the caller's.
        let mut open: Vec<libc::stat> = Vec::new();
        loop {
            self.connection.still_wanted()?;
            match self.explain(walk.step())? {
                Step::End => return Ok(()),
                Step::Left(name) => {
                    self.explain(target.pop())?;
                    if let Some(status) = open.pop() {
                        self.finish(self.explain(target.top())?, &name, &status)?;
                    }
                }
                Step::Entry(name) => {
                    let (source, into) =
                        (self.explain(walk.directory())?, self.explain(target.top())?);
                    let status = self.explain(file::status_of(source, &name))?;
                    if is_directory(&status) {
                        drop(self.new_directory(into, &name)?);
                        self.explain(target.push(&name, true))?;
                        self.explain(walk.enter(name))?;
                        open.push(status);
                    } else {
                        self.copy_entry(source, &name, into, &name, &status)?;
                    }
                }
            }
        }
    }

    /// Makes a directory that only its owner can use until it is finished.
    fn new_directory(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
        let made = file::make_dir(parent, name, 0o700);
        self.explain(
            made.and_then(|()| file::open(parent, name, walk::OPEN, 0, libc::RESOLVE_NO_SYMLINKS)),
        )
    }

    /// Copies anything but a directory.
    fn copy_entry(
        &self,
        source: BorrowedFd<'_>,
        name: &CStr,
        target: BorrowedFd<'_>,
        new: &CStr,
        status: &libc::stat,
    ) -> Outcome<()> {
        match status.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.copy_file(source, name, target, new)?,
            libc::S_IFLNK => {
                let link = file::read_link(source, name).and_then(|link| file::c_string(&link));
                self.explain(link.and_then(|link| file::make_link(&link, target, new)))?;
            }
            kind => self.explain(file::make_node(target, new, kind | 0o600, status.st_rdev))?,
        }
        Ok(self.finish(target, new, status)?)
    }

    fn copy_file(
        &self,
        source: BorrowedFd<'_>,
        name: &CStr,
        target: BorrowedFd<'_>,
        new: &CStr,
    ) -> Outcome<()> {
        let found = self.explain(file::open(source, name, ENTRY, 0, 0))?;
        let status = self.explain(file::status(found.as_fd()))?;
        if let Some(kind) = unusual(status.st_mode) {
            let message = format!("holds a file that became {kind} while it was copied");
            return Err(FileError::about(libc::EBUSY, self.path, &message).into());
        }
        let from = self.explain(self.tree.reopen(found.as_fd(), libc::O_RDONLY))?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let to = self.explain(file::open(target, new, flags, 0o600, 0))?;
        self.copy_contents(
            &File::from(from),
            &File::from(to),
            status.st_size.cast_unsigned(),
        )
    }

    /// Copies the first `size` bytes, leaving holes out.
    fn copy_contents(&self, from: &File, to: &File, size: u64) -> Outcome<()> {
        self.explain(to.set_len(size))?;
        let mut at = 0;
        while at < size {
            let data = match file::seek(from.as_fd(), at, libc::SEEK_DATA) {
                Err(error) if errno(&error) == libc::ENXIO => break,
                // A file system that does not know about holes.
                Err(error) if errno(&error) == libc::EINVAL => at,
                other => self.explain(other)?,
            };
            let hole = file::seek(from.as_fd(), data, libc::SEEK_HOLE)
                .unwrap_or(size)
                .min(size);
            self.explain(file::seek(from.as_fd(), data, libc::SEEK_SET))?;
            self.explain(file::seek(to.as_fd(), data, libc::SEEK_SET))?;
            let mut left = hole.saturating_sub(data);
            while left > 0 {
                self.connection.still_wanted()?;
                let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                match self.explain(copy_piece(from, to, piece))? {
                    0 => return Ok(()),
                    copied => left = left.saturating_sub(copied as u64),
                }
            }
            at = hole.max(at + 1);
        }
        Ok(())
    }

    /// Gives a copy the owner, permissions and time of its original.
    fn finish(&self, parent: BorrowedFd<'_>, name: &CStr, status: &libc::stat) -> Result<()> {
        let copy = self.explain(file::open(parent, name, ENTRY, 0, 0))?;
        let owned = file::set_owner(copy.as_fd(), Some(status.st_uid), Some(status.st_gid)).is_ok();
        if !owned {
            // Only root may give files away; a group of one's own works for everybody.
            let _ = file::set_owner(copy.as_fd(), None, Some(status.st_gid));
        }
        if status.st_mode & libc::S_IFMT != libc::S_IFLNK {
            // A set-id bit must not lend the rights of an owner that it was not set for.
            let bits = if owned { 0o7777 } else { 0o1777 };
            self.explain(self.tree.set_mode(copy.as_fd(), status.st_mode & bits))?;
        }
        self.explain(file::set_modified(
            parent,
            name,
            status.st_mtime,
            status.st_mtime_nsec,
        ))
    }

    fn explain<T>(&self, result: io::Result<T>) -> Result<T> {
        match result {
            Err(error) if errno(&error) == libc::EXDEV => Err(FileError::about(
                libc::EBUSY,
                self.path,
                "holds a mount point",
            )),
            Err(error) if errno(&error) == libc::ESTALE => Err(FileError::about(
                libc::EBUSY,
                self.path,
                "was moved while it was copied",
            )),
            other => other.explain("copy", self.path),
        }
    }
}

/// Copies up to `len` bytes between the positions of two files. 0 is the end.
fn copy_piece(from: &File, to: &File, len: usize) -> io::Result<usize> {
    match file::copy_range(from.as_fd(), to.as_fd(), len) {
        // Not between these two file systems.
        Err(error)
            if matches!(
                errno(&error),
                libc::EXDEV | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS
            ) =>
        {
            let mut buffer = vec![0; len.min(256 * 1024)];
            let read = (&mut &*from).read(&mut buffer)?;
            (&mut &*to).write_all(buffer.get(..read).unwrap_or_default())?;
            Ok(read)
        }
        other => other,
    }
}
