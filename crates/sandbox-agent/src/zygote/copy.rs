//! Copies what a sandbox has written: the upper directory of an overlay, with all by which the kernel tells what is changed
//! and what is removed.
//!
//! Kept are owners, permissions, times, all extended attributes (those of overlays among them), whiteouts, links between the
//! files of one layer, and holes. Contents are shared where the file system can do that. However deep and wide the tree is,
//! the walk keeps a bounded number of descriptors and names, follows no link and leaves neither tree.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::zygote::Reply;

use super::trees::{is, open, place};
use crate::files::walk::{Ladder, Step, Walk};
use crate::sys::{attributes, file};

/// Bytes of a block as `stat(2)` counts them.
const BLOCK: u64 = 512;

/// Bytes that are copied at a time where the kernel cannot do it.
const PIECE: usize = 1024 * 1024;

/// What may still be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    /// Bytes that may still be written; those that are shared with the source do not count.
    bytes: u64,
    /// Entries that may still be made.
    files: u64,
}

/// There is more to copy than may be.
fn too_much() -> io::Error {
    io::Error::from_raw_os_error(libc::EFBIG)
}

/// Copies the directories `from`, the uppermost first, to `to`: together they hide what they would hide as layers.
///
/// `marks` begins the names of the attributes that overlays set here.
///
/// # Errors
/// `EFBIG` if there is more than `bytes` and `files`.
pub(crate) fn copy(
    from: &[Blob],
    to: &Blob,
    marks: &str,
    [bytes, files]: [u64; 2],
) -> io::Result<Reply> {
    let (parent, name) = place(to)?;
    let links = CString::new([name.to_bytes(), b".links"].concat())?;
    let mut budget = Budget { bytes, files };
    for layer in from {
        // Files of different layers have nothing in common.
        file::make_dir(parent.as_fd(), &links, 0o700)?;
        let (source, source_name) = place(layer)?;
        let from = open(source.as_fd(), &source_name)?;
        let opaque = CString::new(format!("{marks}.overlay.opaque"))?;
        let held = open(parent.as_fd(), &links)?;
        Copier {
            links: held,
            opaque,
            budget: &mut budget,
            shares: true,
        }
        .copy_tree(from, parent.as_fd(), &name)?;
        super::trees::remove_at(parent.as_fd(), &links)?;
    }
    Ok(Reply::Copied {
        bytes: bytes - budget.bytes,
        files: files - budget.files,
    })
}

struct Copier<'a> {
    /// A directory on the same file system, in which names of files with several of them are left.
    links: OwnedFd,
    /// The attribute of a directory that hides what lower layers have at its place.
    opaque: CString,
    budget: &'a mut Budget,
    /// Whether contents may be shared, as far as is known.
    shares: bool,
}

impl Copier<'_> {
    fn copy_tree(&mut self, from: OwnedFd, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let status = file::status(from.as_fd())?;
        let made = match file::make_dir(parent, name, 0o700) {
            Err(error) if is(&error, &[libc::EEXIST]) => false,
            made => made.map(|()| true)?,
        };
        let to = open(parent, name)?;
        if made {
            finish_directory(from.as_fd(), to.as_fd(), &status)?;
        }
        let mut walk = Walk::of_any_depth(from)?;
        let mut target = Ladder::of_any_depth(to)?;
        // What the directories that the walk is in are like, if they are new.
        let mut open = vec![made.then_some(status)];
        loop {
            match walk.step()? {
                Step::Entry(name) => self.entry(&mut walk, &mut target, name, &mut open)?,
                Step::Left(_) => {
                    leave(&target, &mut open)?;
                    target.pop()?;
                }
                Step::End => return leave(&target, &mut open),
            }
        }
    }

    /// Copies an entry, or goes down to it if it is a directory.
    fn entry(
        &mut self,
        walk: &mut Walk,
        target: &mut Ladder,
        name: CString,
        open: &mut Vec<Option<libc::stat>>,
    ) -> io::Result<()> {
        let (from, to) = (walk.directory()?, target.top()?);
        let status = match file::status_of(from, &name) {
            Err(error) if is(&error, &[libc::ENOENT]) => return Ok(()),
            status => status?,
        };
        let is_directory = kind(&status) == libc::S_IFDIR;
        let is_new = match file::status_of(to, &name) {
            Err(error) if is(&error, &[libc::ENOENT]) => {
                self.budget.files = self.budget.files.checked_sub(1).ok_or_else(too_much)?;
                if !is_directory {
                    return self.copy_entry(from, to, &name, &status);
                }
                file::make_dir(to, &name, 0o700)?;
                true
            }
            Err(error) => return Err(error),
            Ok(above) => {
                let is_seen = kind(&above) == libc::S_IFDIR && !self.is_opaque(to, &name)?;
                if !is_directory || !is_seen {
                    return Ok(());
                }
                if self.is_opaque(from, &name)? {
                    attributes::set_value(&at(to, &name)?, &self.opaque, b"y")?;
                }
                false
            }
        };
        match walk.enter(name.clone()) {
            // It has become something else meanwhile.
            Err(error) if is(&error, &[libc::ENOENT, libc::ENOTDIR, libc::ELOOP]) => return Ok(()),
            entered => entered?,
        }
        target.push(&name, true)?;
        let entered = file::status(walk.directory()?)?;
        if is_new {
            finish_directory(walk.directory()?, target.top()?, &entered)?;
        }
        open.push(is_new.then_some(entered));
        Ok(())
    }

    /// Copies an entry that is no directory.
    fn copy_entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        status: &libc::stat,
    ) -> io::Result<()> {
        // The kernel makes whiteouts names of one, which nobody notices.
        let has_links = status.st_nlink > 1 && kind(status) != libc::S_IFCHR;
        let link = CString::new(status.st_ino.to_string())?;
        if has_links {
            match attributes::link(self.links.as_fd(), &link, to, name) {
                Err(error) if is(&error, &[libc::ENOENT]) => {}
                linked => return linked,
            }
        }
        match kind(status) {
            libc::S_IFREG => {
                if !self.copy_file(from, to, name)? {
                    return Ok(());
                }
            }
            libc::S_IFLNK => {
                let target = match file::read_link(from, name) {
                    Err(error) if is(&error, &[libc::ENOENT, libc::EINVAL]) => return Ok(()),
                    target => target?,
                };
                file::make_link(&file::c_string(&target)?, to, name)?;
                finish_entry(from, to, name, status)?;
            }
            other => {
                let is_device = other == libc::S_IFBLK || other == libc::S_IFCHR;
                if is_device && (other == libc::S_IFBLK || status.st_rdev != 0) {
                    // No sandbox can make one.
                    return Err(io::Error::other("a device is among the changed files"));
                }
                file::make_node(to, name, other | 0o400, status.st_rdev)?;
                finish_entry(from, to, name, status)?;
            }
        }
        if has_links {
            attributes::link(to, name, self.links.as_fd(), &link)?;
        }
        Ok(())
    }

    /// Copies a regular file; false if it is none any more.
    fn copy_file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
    ) -> io::Result<bool> {
        // Whatever has come in its place meanwhile, opening it waits for nobody.
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let here = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
        let source = match file::open(from, name, flags, 0, here) {
            Err(error) if is(&error, &[libc::ENOENT, libc::ELOOP, libc::ENXIO]) => {
                return Ok(false);
            }
            source => source?,
        };
        let status = file::status(source.as_fd())?;
        if kind(&status) != libc::S_IFREG {
            return Ok(false);
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let target = file::open(to, name, flags, 0o600, 0)?;
        let (source, target) = (File::from(source), File::from(target));
        self.copy_contents(&source, &target, &status)?;
        // In this order: a new owner takes away setuid bits and capabilities.
        file::set_owner(target.as_fd(), Some(status.st_uid), Some(status.st_gid))?;
        file::set_mode(to, name, permissions(&status))?;
        copy_attributes(&at(from, name)?, &at(to, name)?)?;
        attributes::set_times_of(target.as_fd(), &status)?;
        Ok(true)
    }

    fn copy_contents(&mut self, from: &File, to: &File, status: &libc::stat) -> io::Result<()> {
        let size = status.st_size.cast_unsigned();
        if size == 0 {
            return Ok(());
        }
        if self.shares {
            self.shares = attributes::share_contents(from.as_fd(), to.as_fd())?;
            if self.shares {
                return Ok(());
            }
        }
        let bytes = status.st_blocks.cast_unsigned() * BLOCK;
        self.budget.bytes = self.budget.bytes.checked_sub(bytes).ok_or_else(too_much)?;
        let mut position = 0;
        loop {
            let start = match file::seek(from.as_fd(), position, libc::SEEK_DATA) {
                // The rest is a hole.
                Err(error) if is(&error, &[libc::ENXIO]) => break,
                start => start?,
            };
            let end = file::seek(from.as_fd(), start, libc::SEEK_HOLE)?;
            copy_range(from, to, start, end)?;
            position = end;
        }
        to.set_len(size)
    }

    fn is_opaque(&self, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        let value = attributes::value(&at(directory, name)?, &self.opaque)?;
        Ok(value.is_some_and(|value| value == b"y"))
    }
}

/// Gives the directory that the walk leaves its times, if it is new.
fn leave(target: &Ladder, open: &mut Vec<Option<libc::stat>>) -> io::Result<()> {
    match open.pop().flatten() {
        Some(status) => attributes::set_times_of(target.top()?, &status),
        None => Ok(()),
    }
}

/// Gives a directory all but its contents and times.
fn finish_directory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    status: &libc::stat,
) -> io::Result<()> {
    file::set_owner(to, Some(status.st_uid), Some(status.st_gid))?;
    file::set_mode(to, c".", permissions(status))?;
    copy_attributes(&at(from, c".")?, &at(to, c".")?)
}

/// Gives an entry that cannot be opened all but its kind.
fn finish_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    status: &libc::stat,
) -> io::Result<()> {
    file::set_owner_of(to, name, status.st_uid, status.st_gid)?;
    if kind(status) != libc::S_IFLNK {
        file::set_mode(to, name, permissions(status))?;
    }
    copy_attributes(&at(from, name)?, &at(to, name)?)?;
    attributes::set_times(to, name, status)
}

/// Copies the bytes of `start..end`, in the kernel where it can.
fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    while at < end {
        match attributes::copy_at(from.as_fd(), to.as_fd(), at, end - at) {
            // It has become shorter meanwhile.
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied,
            Err(error)
                if is(
                    &error,
                    &[libc::EXDEV, libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS],
                ) =>
            {
                return copy_by_hand(from, to, at, end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE);
        let count = from.read_at(&mut buffer[..most], at)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

fn copy_attributes(from: &CStr, to: &CStr) -> io::Result<()> {
    for name in attributes::names(from)?.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        if let Some(value) = attributes::value(from, name)? {
            attributes::set_value(to, name, &value)?;
        }
    }
    Ok(())
}

/// The path of an entry of an open directory, for calls that take no descriptor.
fn at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<CString> {
    let directory = format!("/proc/self/fd/{}/", directory.as_raw_fd());
    file::c_string(&[directory.as_bytes(), name.to_bytes()].concat())
}

fn kind(status: &libc::stat) -> u32 {
    status.st_mode & libc::S_IFMT
}

fn permissions(status: &libc::stat) -> u32 {
    status.st_mode & 0o7777
}

#[cfg(test)]
mod tests;
