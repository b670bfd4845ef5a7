//! Copies what a sandbox has written: the upper directory of an overlay, with all by which the kernel tells what is changed
//! and what is removed.
//!
//! Kept are owners, permissions, times, all extended attributes (those of overlays among them), whiteouts, links between the
//! files of one layer, and holes. Contents are shared where the file system can do that. However deep and wide the tree is,
//! the walk takes two descriptors, no recursion and some bytes a level, follows no link and leaves neither tree.

use crate::linux::remove::BELOW;
use rustix::{
    buffer::spare_capacity,
    fs::{
        AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, RawDir, SeekFrom, Stat, Timespec,
        Timestamps, Uid, XattrFlags, chmodat, chownat, copy_file_range, fchmod, fchown, fgetxattr,
        flistxattr, fsetxattr, fstat, ftruncate, futimens, ioctl_ficlone, lgetxattr, linkat,
        llistxattr, lsetxattr, mkdirat, mknodat, openat, openat2, readlinkat, seek, statat,
        symlinkat, utimensat,
    },
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Bytes of names that are read at a time: few, for they are read again after each directory that was entered.
const BUFFER: usize = 4096;

/// Bytes of a block as `stat(2)` counts them.
const BLOCK: u64 = 512;

/// Longest value of an extended attribute, and longest list of their names, by the kernel.
const MAX_XATTR: usize = 64 * 1024;

/// Says that a directory hides what lower layers have at its place.
const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// What may still be copied, and what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Bytes that may still be written; those that are shared with the source do not count.
    pub(super) bytes: u64,
    /// Entries that may still be made.
    pub(super) files: u64,
}

impl Budget {
    fn take_file(&mut self) -> io::Result<()> {
        self.files = self.files.checked_sub(1).ok_or_else(too_much)?;
        Ok(())
    }

    fn take_bytes(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(too_much)?;
        Ok(())
    }
}

/// There is more to copy than may be.
fn too_much() -> io::Error {
    io::ErrorKind::FileTooLarge.into()
}

/// Copies the directory `from` to `to`. If that exists already, what is in it hides what it would hide as an upper layer, so
/// that layers are merged by copying one after the other, the top one first.
///
/// `links` is an empty directory on the same file system, in which names of files with several of them are left.
///
/// # Errors
/// `FileTooLarge` once the budget is spent.
pub(super) fn copy_tree(
    from: &Path,
    to: &Path,
    links: &Path,
    budget: &mut Budget,
) -> io::Result<()> {
    let place = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |path: &Path| openat(CWD, path, place, Mode::empty());
    let from = open(from)?;
    let made = match mkdirat(CWD, to, Mode::RWXU) {
        Err(Errno::EXIST) => false,
        made => made.map(|()| true)?,
    };
    let to = open(to)?;
    let mut copier = Copier {
        links: open(links)?,
        budget,
        shares: true,
    };
    let status = fstat(&from)?;
    if made {
        finish_directory(from.as_fd(), to.as_fd(), &status)?;
    }
    copier.walk(from, to, made.then(|| times(&status)))
}

/// A directory that the walk is in, or was in on its way down.
struct Level {
    id: (u64, u64),
    /// Before the first entry that was not looked at.
    position: u64,
    /// Its times, which it gets at last. `None` if it was there already.
    times: Option<Timestamps>,
}

/// What is done next in a directory.
enum Step {
    /// To go down to the directory of this name, and go on after this position; its status if it is new.
    Down(CString, u64, Option<Stat>),
    Up,
}

struct Copier<'a> {
    links: OwnedFd,
    budget: &'a mut Budget,
    /// Whether contents may be shared, as far as is known.
    shares: bool,
}

impl Copier<'_> {
    fn walk(
        &mut self,
        mut from: OwnedFd,
        mut to: OwnedFd,
        times_of_top: Option<Timestamps>,
    ) -> io::Result<()> {
        let level = |from: &OwnedFd, times| -> io::Result<Level> {
            Ok(Level {
                id: identity(from.as_fd())?,
                position: 0,
                times,
            })
        };
        let mut levels = vec![level(&from, times_of_top)?];
        while let Some(current) = levels.last_mut() {
            match self.copy_entries(from.as_fd(), to.as_fd(), current.position)? {
                Step::Down(name, after, status) => {
                    current.position = after;
                    let below = match open_below(from.as_fd(), &name) {
                        Ok(below) => below,
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                        Err(errno) => return Err(errno.into()),
                    };
                    to = open_below(to.as_fd(), &name)?;
                    if status.is_some() {
                        let status = fstat(&below)?;
                        finish_directory(below.as_fd(), to.as_fd(), &status)?;
                    }
                    from = below;
                    levels.push(level(&from, status.as_ref().map(times))?);
                }
                Step::Up => {
                    if let Some(times) = &current.times {
                        futimens(&to, times)?;
                    }
                    levels.pop();
                    let Some(parent) = levels.last() else {
                        break;
                    };
                    from = open_below(from.as_fd(), c"..")?;
                    to = open_below(to.as_fd(), c"..")?;
                    if identity(from.as_fd())? != parent.id {
                        // It was moved elsewhere meanwhile.
                        return Err(Errno::STALE.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies the entries from `position` on up to the first directory.
    fn copy_entries(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        position: u64,
    ) -> io::Result<Step> {
        seek(from, SeekFrom::Start(position))?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(from, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let status = match statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                status => status?,
            };
            let is_directory = kind(&status) == FileType::Directory;
            match statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    self.budget.take_file()?;
                    if is_directory {
                        mkdirat(to, name, Mode::RWXU)?;
                        let after = entry.next_entry_cookie();
                        return Ok(Step::Down(name.to_owned(), after, Some(status)));
                    }
                    self.copy_entry(from, to, name, &status)?;
                }
                Ok(above) => {
                    let is_seen = kind(&above) == FileType::Directory && !is_opaque(to, name)?;
                    if is_directory && is_seen {
                        if is_opaque(from, name)? {
                            lsetxattr(at(to, name), OPAQUE, b"y", XattrFlags::empty())?;
                        }
                        let after = entry.next_entry_cookie();
                        return Ok(Step::Down(name.to_owned(), after, None));
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Step::Up)
    }

    /// Copies an entry that is no directory.
    fn copy_entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        status: &Stat,
    ) -> io::Result<()> {
        // The kernel makes whiteouts names of one, which nobody notices.
        let has_links = status.st_nlink > 1 && kind(status) != FileType::CharacterDevice;
        let link = CString::new(status.st_ino.to_string())?;
        if has_links {
            match linkat(&self.links, &*link, to, name, AtFlags::empty()) {
                Err(Errno::NOENT) => {}
                linked => return Ok(linked?),
            }
        }
        match kind(status) {
            FileType::RegularFile => match self.copy_file(from, to, name)? {
                true => {}
                false => return Ok(()),
            },
            FileType::Symlink => {
                let target = match readlinkat(from, name, Vec::new()) {
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                    target => target?,
                };
                symlinkat(&*target, to, name)?;
                finish_entry(from, to, name, status)?;
            }
            other => {
                let device: Dev = status.st_rdev;
                if other == FileType::BlockDevice
                    || other == FileType::CharacterDevice && device != 0
                {
                    // No sandbox can make one.
                    return Err(io::Error::other("a device is among the changed files"));
                }
                mknodat(to, name, other, Mode::RUSR, device)?;
                finish_entry(from, to, name, status)?;
            }
        }
        if has_links {
            linkat(to, name, &self.links, &*link, AtFlags::empty())?;
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
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = match openat2(from, name, flags, Mode::empty(), BELOW) {
            Ok(source) => source,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        let status = fstat(&source)?;
        if kind(&status) != FileType::RegularFile {
            return Ok(false);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.copy_contents(&source, &target, &status)?;
        // In this order: a new owner takes away setuid bits and capabilities.
        let (user, group) = owner(&status);
        fchown(&target, Some(user), Some(group))?;
        fchmod(&target, permissions(&status))?;
        copy_attributes(Holder::Open(source.as_fd()), Holder::Open(target.as_fd()))?;
        futimens(&target, &times(&status))?;
        Ok(true)
    }

    fn copy_contents(&mut self, from: &OwnedFd, to: &OwnedFd, status: &Stat) -> io::Result<()> {
        if status.st_size == 0 {
            return Ok(());
        }
        if self.shares {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
                    self.shares = false;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        self.budget
            .take_bytes(u64::try_from(status.st_blocks).unwrap_or(0) * BLOCK)?;
        let mut position = 0;
        loop {
            let start = match seek(from, SeekFrom::Data(position)) {
                // The rest is a hole.
                Err(Errno::NXIO) => break,
                start => start?,
            };
            let end = seek(from, SeekFrom::Hole(start))?;
            copy_range(from, to, start, end)?;
            position = end;
        }
        Ok(ftruncate(to, status.st_size.cast_unsigned())?)
    }
}

/// Gives a directory all but its contents and times.
fn finish_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, status: &Stat) -> io::Result<()> {
    let (user, group) = owner(status);
    fchown(to, Some(user), Some(group))?;
    fchmod(to, permissions(status))?;
    copy_attributes(Holder::Open(from), Holder::Open(to))
}

/// Gives an entry that cannot be opened all but its kind.
fn finish_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    status: &Stat,
) -> io::Result<()> {
    let (user, group) = owner(status);
    let itself = AtFlags::SYMLINK_NOFOLLOW;
    chownat(to, name, Some(user), Some(group), itself)?;
    if kind(status) != FileType::Symlink {
        chmodat(to, name, permissions(status), AtFlags::empty())?;
    }
    let (source, target) = (at(from, name), at(to, name));
    copy_attributes(Holder::Named(&source), Holder::Named(&target))?;
    Ok(utimensat(to, name, &times(status), itself)?)
}

/// Copies the bytes of `start..end`, in the kernel where it can.
fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let count = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), count) {
            // It has become shorter meanwhile.
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1024 * 1024];
    let mut position = start;
    while position < end {
        let most = usize::try_from(end - position).unwrap_or(usize::MAX);
        let len = buffer.len().min(most);
        let count = rustix::io::pread(from, &mut buffer[..len], position)?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = rustix::io::pwrite(to, rest, position)?;
            rest = &rest[written..];
            position += written as u64;
        }
    }
    Ok(())
}

/// What has extended attributes.
#[derive(Clone, Copy)]
enum Holder<'a> {
    Open(BorrowedFd<'a>),
    /// A path, and of a link the link itself.
    Named(&'a CStr),
}

impl Holder<'_> {
    fn list(self, names: &mut Vec<u8>) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => flistxattr(fd, spare_capacity(names)),
            Self::Named(path) => llistxattr(path, spare_capacity(names)),
        }
    }

    fn get(self, name: &CStr, value: &mut Vec<u8>) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => fgetxattr(fd, name, spare_capacity(value)),
            Self::Named(path) => lgetxattr(path, name, spare_capacity(value)),
        }
    }

    fn set(self, name: &CStr, value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(path) => lsetxattr(path, name, value, XattrFlags::empty()),
        }
    }
}

fn copy_attributes(from: Holder<'_>, to: Holder<'_>) -> io::Result<()> {
    let mut names = Vec::with_capacity(1024);
    match from.list(&mut names) {
        Err(Errno::RANGE) => {
            names = Vec::with_capacity(MAX_XATTR);
            from.list(&mut names)?;
        }
        Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(()),
        listed => drop(listed?),
    }
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut value = Vec::with_capacity(MAX_XATTR);
        match from.get(name, &mut value) {
            Err(Errno::NODATA | Errno::NOENT) => continue,
            got => drop(got?),
        }
        to.set(name, &value)?;
    }
    Ok(())
}

fn is_opaque(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let mut value = [0; 8];
    match lgetxattr(at(directory, name), OPAQUE, &mut value[..]) {
        Ok(len) => Ok(&value[..len] == b"y"),
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The path of an entry of an open directory, for calls that take no descriptor.
fn at(directory: BorrowedFd<'_>, name: &CStr) -> CString {
    let directory = format!("/proc/self/fd/{}/", directory.as_raw_fd());
    CString::new([directory.as_bytes(), name.to_bytes()].concat()).unwrap_or_default()
}

fn open_below(directory: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let place = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(directory, name, place, Mode::empty(), BELOW)
}

fn identity(directory: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let status = fstat(directory)?;
    Ok((status.st_dev, status.st_ino))
}

fn kind(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

fn permissions(status: &Stat) -> Mode {
    Mode::from_raw_mode(status.st_mode & 0o7777)
}

fn owner(status: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid))
}

fn times(status: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec as _),
        last_modification: time(status.st_mtime, status.st_mtime_nsec as _),
    }
}

#[cfg(test)]
mod tests;
