//! The entries of a directory of this machine, in the order of their names.
//!
//! Somebody may change it meanwhile, so every step is relative to an open directory and follows no link. What is mounted
//! below is left out.

use super::{
    archive::Found,
    entry::{Entry, Kind, Name, Sink, check_target, hostile, id, nobody},
    source::Digest,
};
use crate::linux::template::{USER, owners::Owners};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat,
        statat,
    },
    io::Errno,
};
use sandbox_core::{Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

/// Neither links nor mounts are followed.
const HERE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Reads one directory.
pub(crate) struct Walk<'a> {
    sink: &'a mut dyn Sink,
    /// Told of the bytes that were read; false ends the walk.
    report: &'a dyn Fn(u64) -> bool,
    hash: Sha256,
    found: Found,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Name>,
    /// Uid and gid of this program.
    own: [u32; 2],
    /// What these become.
    becomes: u32,
}

/// Gives all that is in the directory `root` to `sink`. Returns a digest of it, which two equal trees share.
pub(crate) fn read(
    root: &Path,
    sink: &mut dyn Sink,
    report: &dyn Fn(u64) -> bool,
) -> Result<(Digest, Found)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(unreadable)?;
    let mut walk = Walk {
        sink,
        report,
        hash: Sha256::new(),
        found: Found::default(),
        links: HashMap::new(),
        own: [
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ],
        becomes: match Owners::new() {
            Owners::One => USER,
            Owners::Range(_) | Owners::Later(_) => 0,
        },
    };
    walk.hash.update(b"sandbox directory 1\0");
    let status = fstat(&root).map_err(unreadable)?;
    let entry = walk.describe(Name::default(), Kind::Directory, &status);
    walk.give(&entry, &mut io::empty())?;
    walk.directory(&Name::default(), &root)?;
    Ok((Digest::of(walk.hash), walk.found))
}

impl Walk<'_> {
    fn directory(&mut self, name: &Name, directory: &OwnedFd) -> Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
            if names.len() % 1024 == 0 && !(self.report)(0) {
                return Err(cancelled());
            }
        }
        names.sort_unstable();
        names
            .into_iter()
            .try_for_each(|last| self.entry(&name.join(last.to_bytes())?, directory, &last))
    }

    fn entry(&mut self, name: &Name, parent: &OwnedFd, last: &CString) -> Result<()> {
        let wrong = |errno: Errno| unreadable(errno).with_context("entry", name);
        let status = statat(parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        let file = (status.st_dev, status.st_ino);
        if !kind.is_dir() && status.st_nlink > 1 {
            if let Some(to) = self.links.get(&file) {
                let kind = Kind::Link { to: to.clone() };
                let entry = self.describe(name.clone(), kind, &status);
                return self.give(&entry, &mut io::empty());
            }
            self.links.insert(file, name.clone());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = match openat2(parent, last, flags, Mode::empty(), HERE) {
                    Err(Errno::XDEV) => None,
                    opened => Some(opened.map_err(wrong)?),
                };
                let entry = self.describe(name.clone(), Kind::Directory, &status);
                self.give(&entry, &mut io::empty())?;
                match opened {
                    Some(directory) => self.directory(name, &directory),
                    None => {
                        self.found.mounts += 1;
                        Ok(())
                    }
                }
            }
            FileType::RegularFile => {
                // Should it have become a pipe, nobody waits for it.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat2(parent, last, flags, Mode::empty(), HERE).map_err(wrong)?;
                let status = fstat(&file).map_err(wrong)?;
                if !FileType::from_raw_mode(status.st_mode).is_file() {
                    return Err(changed().with_context("entry", name));
                }
                let size = u64::try_from(status.st_size).unwrap_or_default();
                let entry = self.describe(name.clone(), Kind::File { size }, &status);
                self.give(&entry, &mut File::from(file).take(size))
            }
            FileType::Symlink => {
                let target = readlinkat(parent, last, Vec::new()).map_err(wrong)?;
                check_target(name, target.to_bytes())?;
                let target = target.into_bytes();
                let entry = self.describe(name.clone(), Kind::Symlink { target }, &status);
                self.give(&entry, &mut io::empty())
            }
            _ => {
                let entry = self.describe(name.clone(), Kind::Special, &status);
                self.give(&entry, &mut io::empty())
            }
        }
    }

    /// An id as the tree has it: an ordinary user's own files become root's, as if that had made them, or where there is
    /// none `user`'s.
    fn seen(&self, id: u32, own: u32) -> u64 {
        u64::from(if id == own { self.becomes } else { id })
    }

    fn describe(&mut self, name: Name, kind: Kind, status: &Stat) -> Entry {
        let [own_uid, own_gid] = self.own;
        let (uid, gid) = (
            self.seen(status.st_uid, own_uid),
            self.seen(status.st_gid, own_gid),
        );
        self.found.strangers += u64::from(id(uid).is_none() || id(gid).is_none());
        Entry {
            name,
            kind,
            mode: status.st_mode & 0o7777,
            uid: id(uid).unwrap_or_else(nobody),
            gid: id(gid).unwrap_or_else(nobody),
            modified: u64::try_from(status.st_mtime).unwrap_or_default(),
        }
    }

    /// Digests an entry and its contents, and gives it away.
    fn give(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<()> {
        self.digest(entry);
        let mut contents = Watched {
            inner: contents,
            hash: &mut self.hash,
            report: self.report,
        };
        self.sink.entry(entry, &mut contents)?;
        // What the sink has not read belongs to the digest as well.
        io::copy(&mut contents, &mut io::sink())
            .map(drop)
            .map_err(|error| {
                let message = "the directory could not be read";
                Error::new(ErrorKind::InvalidArgument, message)
                    .with_source(error)
                    .with_context("entry", &entry.name)
            })
    }

    fn digest(&mut self, entry: &Entry) {
        let (kind, text, number): (u8, &[u8], u64) = match &entry.kind {
            Kind::Directory => (b'd', b"", 0),
            Kind::File { size } => (b'f', b"", *size),
            Kind::Symlink { target } => (b'l', target, 0),
            Kind::Link { to } => (b'h', to.as_bytes(), 0),
            Kind::Special | Kind::Whiteout | Kind::Opaque => (b's', b"", 0),
        };
        let modified = if kind == b'f' { entry.modified } else { 0 };
        for text in [entry.name.as_bytes(), text] {
            self.hash.update((text.len() as u64).to_le_bytes());
            self.hash.update(text);
        }
        self.hash.update([kind]);
        for id in [entry.mode, entry.uid, entry.gid] {
            self.hash.update(id.to_le_bytes());
        }
        for number in [number, modified] {
            self.hash.update(number.to_le_bytes());
        }
    }
}

/// Contents on their way to a sink.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    hash: &'a mut Sha256,
    report: &'a dyn Fn(u64) -> bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        if (self.report)(count as u64) {
            Ok(count)
        } else {
            Err(io::Error::other("it was cancelled"))
        }
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Internal, "the import was cancelled")
}

/// What was looked at twice and was not the same.
pub(crate) fn changed() -> Error {
    hostile("what was to be imported has changed meanwhile")
}

fn unreadable(errno: Errno) -> Error {
    let kind = match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM => ErrorKind::PermissionDenied,
        _ => ErrorKind::InvalidArgument,
    };
    Error::new(kind, "the directory could not be read").with_source(io::Error::from(errno))
}
