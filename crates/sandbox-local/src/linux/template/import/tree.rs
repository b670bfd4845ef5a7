//! Writes entries below a directory, and nowhere else.
//!
//! Every path is resolved by the kernel from the directory's descriptor, which refuses links that lead out (absolute ones,
//! too many `..`) and other mounts. The last part of a path is never followed. Owners are moved into the storage range or to
//! subordinate ids, so that no file on disk belongs to another user of this machine.

use super::{
    archive::damaged,
    entry::{Entry, Kind, Name, Sink, hostile},
    scan::Removed,
};
use crate::linux::{record::storage_error, remove::remove_tree, template::owners::Owners};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
        chownat, fchmod, fstat, linkat, mkdirat, openat, openat2, statat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

/// Links may be followed as long as they stay in the tree.
const BELOW: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// How much of a file is copied at a time.
const BUFFER: usize = 128 * 1024;

/// A tree that is being written.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    owners: Owners,
    /// The directory of the last entry.
    parent: Option<(Name, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Tree {
    /// Writes into `root`, an empty directory, for `owners`.
    pub(crate) fn new(root: &Path, owners: Owners) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).map_err(failed)?;
        Ok(Self {
            root,
            owners,
            parent: None,
            buffer: vec![0; BUFFER],
        })
    }

    /// Takes away what a layer takes away from those below it.
    pub(crate) fn remove(&mut self, removed: &Removed) -> Result<()> {
        for (name, only_contents) in &removed.names {
            self.parent = None;
            let place = if *only_contents {
                self.directory(name)
            } else {
                match name.split() {
                    Some((parent, _)) => self.directory(&parent),
                    None => return Err(hostile("a layer takes the root away")),
                }
            };
            let place = match place {
                // There is nothing to take away.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                place => place.map_err(|errno| refused(errno, name))?,
            };
            let names = if *only_contents {
                names_in(&place).map_err(failed)?
            } else {
                let last = name.split().map(|(_, last)| last.to_vec());
                last.and_then(|last| CString::new(last).ok())
                    .into_iter()
                    .collect()
            };
            for name in names {
                remove_in(&place, &name)?;
            }
        }
        Ok(())
    }

    /// Opens a directory of the tree.
    fn directory(&self, name: &Name) -> rustix::io::Result<OwnedFd> {
        let path: &[u8] = if name.is_root() {
            b"."
        } else {
            name.as_bytes()
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), BELOW)
    }

    /// Opens the directory that an entry goes to, and makes it if the tree does not have it.
    fn make_parent(&mut self, name: &Name) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(last, _)| last == name) {
            return Ok(());
        }
        let opened = match self.directory(name) {
            Err(Errno::NOENT) => self.make_missing(name),
            opened => opened.map_err(|errno| refused(errno, name)),
        };
        self.parent = Some((name.clone(), opened?));
        Ok(())
    }

    /// Makes a directory and those above that no entry has described.
    fn make_missing(&mut self, name: &Name) -> Result<OwnedFd> {
        let mut place = Name::default();
        let mut directory = self.directory(&place).map_err(failed)?;
        for part in name.parts() {
            place = place.join(part)?;
            directory = match self.directory(&place) {
                Err(Errno::NOENT) => {
                    mkdirat(&directory, part, Mode::RWXU)
                        .map_err(|errno| refused(errno, &place))?;
                    let made = self.directory(&place).map_err(failed)?;
                    self.own(&made, [0, 0], None)?;
                    fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed)?;
                    made
                }
                opened => opened.map_err(|errno| refused(errno, &place))?,
            };
        }
        Ok(directory)
    }

    /// Ids inside as they are on disk; `None` changes nothing.
    fn ids(&self, [uid, gid]: [u32; 2]) -> (Option<Uid>, Option<Gid>) {
        let stored = |id| self.owners.stored(id);
        (
            stored(uid).map(Uid::from_raw),
            stored(gid).map(Gid::from_raw),
        )
    }

    /// Sees to it that a new file is whose it is to be; `mode` are permissions that it cannot have yet.
    fn own(&mut self, file: impl AsFd, ids: [u32; 2], mode: Option<u32>) -> Result<()> {
        if let Owners::Later(_) = self.owners {
            let inode = fstat(&file).map_err(failed)?.st_ino;
            self.owners.note(inode, ids, mode);
            return Ok(());
        }
        let (uid, gid) = self.ids(ids);
        rustix::fs::fchown(file, uid, gid).map_err(failed)
    }

    /// Gives away what was written, if that was put off; the tree is at `root`.
    pub(crate) fn finish(self, root: &Path) -> Result<()> {
        let given = self.owners.give(root);
        given.map_err(|error| storage_error(error, WRITING))
    }

    /// Takes away what is in the place of an entry that is no directory.
    fn make_room(&mut self, last: &[u8]) -> Result<()> {
        let Some((_, parent)) = &self.parent else {
            return Ok(());
        };
        let last = CString::new(last).map_err(|_| hostile("a zero byte is in a name"))?;
        remove_in(parent, &last)
    }

    fn put_directory(&mut self, entry: &Entry) -> Result<()> {
        let wrong = |errno| refused(errno, &entry.name);
        let directory = match entry.name.split() {
            None => self.directory(&entry.name).map_err(failed)?,
            Some((parent, last)) => {
                self.make_parent(&parent)?;
                let parent = self.parent()?;
                match mkdirat(parent, last, Mode::RWXU) {
                    Err(Errno::EXIST) => {}
                    made => made.map_err(wrong)?,
                }
                let is_link = statat(parent, last, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|status| FileType::from_raw_mode(status.st_mode).is_symlink());
                if is_link && self.directory(&entry.name).is_ok() {
                    // Layers name a directory where one below has a link to it; what is in it goes there.
                    return Ok(());
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(parent, last, flags, Mode::empty()) {
                    Err(Errno::NOTDIR | Errno::LOOP) => {
                        self.make_room(last)?;
                        let parent = self.parent()?;
                        mkdirat(parent, last, Mode::RWXU).map_err(wrong)?;
                        openat(parent, last, flags, Mode::empty()).map_err(wrong)?
                    }
                    opened => opened.map_err(wrong)?,
                }
            }
        };
        // Without root's rights, more comes into it only if its owner may write.
        let least = match self.owners {
            Owners::Range(_) => 0,
            Owners::One | Owners::Later(_) => 0o700,
        };
        let (mode, now) = (entry.permissions(), entry.permissions() | least);
        let later = (mode != now).then_some(mode);
        self.own(&directory, [entry.uid, entry.gid], later)?;
        fchmod(&directory, Mode::from_raw_mode(now)).map_err(failed)
    }

    fn parent(&self) -> Result<&OwnedFd> {
        let parent = self.parent.as_ref().map(|(_, parent)| parent);
        parent.ok_or_else(|| hostile("the root of the tree is no directory"))
    }

    fn put_file(&mut self, entry: &Entry, size: u64, contents: &mut dyn Read) -> Result<()> {
        let last = self.clear_place(&entry.name)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.parent()?, &last, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| refused(errno, &entry.name))?;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let most = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = contents.read(&mut self.buffer[..most]).map_err(damaged)?;
            if count == 0 {
                return Err(hostile("a file ends early").with_context("entry", &entry.name));
            }
            write_sparsely(&mut file, &self.buffer[..count])
                .map_err(|error| storage_error(error, WRITING))?;
            left -= count as u64;
        }
        // It may end with a hole.
        file.set_len(size)
            .map_err(|error| storage_error(error, WRITING))?;
        self.own(&file, [entry.uid, entry.gid], None)?;
        fchmod(&file, Mode::from_raw_mode(entry.permissions())).map_err(failed)?;
        rustix::fs::futimens(&file, &times(entry.modified)).map_err(failed)
    }

    fn put_symlink(&mut self, entry: &Entry, target: &[u8]) -> Result<()> {
        let last = self.clear_place(&entry.name)?;
        let parent = self.parent()?;
        symlinkat(target, parent, &last).map_err(|errno| refused(errno, &entry.name))?;
        let (ids, flags) = ([entry.uid, entry.gid], AtFlags::SYMLINK_NOFOLLOW);
        let (uid, gid) = self.ids(ids);
        chownat(parent, &last, uid, gid, flags).map_err(failed)?;
        utimensat(parent, &last, &times(entry.modified), flags).map_err(failed)?;
        let inode = statat(parent, &last, flags).map_err(failed)?.st_ino;
        self.owners.note(inode, ids, None);
        Ok(())
    }

    fn put_link(&mut self, entry: &Entry, to: &Name) -> Result<()> {
        let missing = || {
            let error = hostile("a hard link leads to no file of the tree");
            error
                .with_context("entry", &entry.name)
                .with_context("to", to)
        };
        let (from_parent, from) = to.split().ok_or_else(missing)?;
        let from_parent = self.directory(&from_parent).map_err(|_| missing())?;
        let status =
            statat(&from_parent, from, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if FileType::from_raw_mode(status.st_mode).is_dir() || entry.name == *to {
            return Err(missing());
        }
        let last = self.clear_place(&entry.name)?;
        linkat(&from_parent, from, self.parent()?, &last, AtFlags::empty()).map_err(|errno| {
            match errno {
                // Its other name was what had to make room.
                Errno::NOENT => missing(),
                errno => refused(errno, &entry.name),
            }
        })
    }

    /// Opens the directory of an entry that is none, and makes room there. Returns its name in it.
    fn clear_place(&mut self, name: &Name) -> Result<Vec<u8>> {
        let (parent, last) = name
            .split()
            .ok_or_else(|| hostile("the root of the tree is no directory"))?;
        self.make_parent(&parent)?;
        self.make_room(last)?;
        Ok(last.to_vec())
    }
}

impl Sink for Tree {
    fn entry(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<()> {
        match &entry.kind {
            Kind::Directory => self.put_directory(entry),
            Kind::File { size } => self.put_file(entry, *size, contents),
            Kind::Symlink { target } => self.put_symlink(entry, target),
            Kind::Link { to } => self.put_link(entry, to),
            // Taken away before the layer's own entries came.
            Kind::Special | Kind::Whiteout | Kind::Opaque => Ok(()),
        }
    }

    fn header(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Writes `bytes`, or leaves a hole for them, which takes no room.
fn write_sparsely(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    if bytes.iter().all(|byte| *byte == 0) {
        return file.seek_relative(bytes.len() as i64);
    }
    file.write_all(bytes)
}

const WRITING: &str = "the template could not be written";

fn failed(errno: Errno) -> Error {
    storage_error(errno.into(), WRITING)
}

/// An entry that the kernel does not let be made there: for want of space, or because its path leads elsewhere.
fn refused(errno: Errno, name: &Name) -> Error {
    let message = match errno {
        Errno::XDEV | Errno::LOOP => "an entry lies behind a link that leads out of the tree",
        Errno::NOTDIR | Errno::EXIST => "an entry lies below one that is no directory",
        Errno::NAMETOOLONG | Errno::INVAL => "an entry has a name that this file system has not",
        Errno::MLINK => "a file has more names than this file system can have",
        errno => return failed(errno).with_context("entry", name),
    };
    Error::new(ErrorKind::InvalidArgument, message).with_context("entry", name)
}

fn times(seconds: u64) -> Timestamps {
    let modified = Timespec {
        // What no file system can hold is cut to the year 2446.
        tv_sec: seconds.min(15_032_385_535) as i64,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

fn names_in(directory: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes what is at `name`, if anything is.
fn remove_in(directory: &OwnedFd, name: &CString) -> Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            use std::os::unix::ffi::OsStrExt;
            let directory = format!("/proc/self/fd/{}", directory.as_raw_fd());
            let path = Path::new(&directory).join(std::ffi::OsStr::from_bytes(name.as_bytes()));
            remove_tree(&path).map_err(|error| storage_error(error, WRITING))
        }
        Err(errno) => Err(failed(errno)),
    }
}
