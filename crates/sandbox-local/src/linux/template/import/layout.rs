//! Where the parts of an image are: in a directory, or in an archive of one, as `docker save` writes it.
//!
//! Nothing is unpacked. An archive is looked through for the place of each part, and a part is read from there.

use super::{
    archive::damaged,
    entry::{Name, hostile},
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
};
use tar::{Archive, EntryType};

/// Most entries of an archive that may be one of an image.
const MOST_ENTRIES: usize = 8192;

/// Most links that lead to a part.
const MOST_LINKS: usize = 8;

/// The parts of images, by their paths.
#[derive(Debug)]
pub(crate) enum Layout {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        places: HashMap<Name, Place>,
    },
}

/// Where a part is in an archive.
#[derive(Debug)]
pub(crate) enum Place {
    Contents { start: u64, length: u64 },
    Link(Name),
}

impl Layout {
    pub(crate) fn of_directory(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map(Self::Directory)
            .map_err(|errno| missing(errno, "the layout"))
    }

    /// The parts in an archive without compression; `None` if it is no archive, or too large to be one of an image.
    pub(crate) fn of_archive(file: &Arc<File>) -> Option<Self> {
        (&**file).rewind().ok()?;
        let mut archive = Archive::new(&**file);
        let mut places = HashMap::new();
        let entries = archive.entries_with_seek().ok()?.raw(true);
        for (number, entry) in entries.enumerate() {
            let entry = entry.ok().filter(|_| number < MOST_ENTRIES)?;
            let header = entry.header();
            let Ok(name) = Name::parse(&entry.path_bytes()) else {
                continue;
            };
            let target = entry.link_name_bytes();
            let place = match header.entry_type() {
                EntryType::Regular | EntryType::Continuous => Some(Place::Contents {
                    start: entry.raw_file_position(),
                    length: header.entry_size().ok()?,
                }),
                EntryType::Symlink => target
                    .and_then(|target| resolve(&name, &target))
                    .map(Place::Link),
                EntryType::Link => target
                    .and_then(|target| Name::parse(&target).ok())
                    .map(Place::Link),
                _ => None,
            };
            places.extend(place.map(|place| (name, place)));
        }
        let file = Arc::clone(file);
        Some(Self::Archive { file, places })
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.open(path).is_ok()
    }

    /// Opens a part, which no link leads out of.
    pub(crate) fn open(&self, path: &str) -> Result<Part> {
        match self {
            Self::Directory(directory) => open_file(directory, path),
            Self::Archive { file, places } => {
                let mut name = Name::parse(path.as_bytes())?;
                for _ in 0..MOST_LINKS {
                    match places.get(&name) {
                        Some(Place::Link(to)) => name = to.clone(),
                        Some(Place::Contents { start, length }) => {
                            return Ok(Part {
                                file: Arc::clone(file),
                                position: *start,
                                left: *length,
                            });
                        }
                        None => break,
                    }
                }
                Err(missing(Errno::NOENT, path))
            }
        }
    }
}

/// Where a symbolic link leads; `None` out of the archive.
fn resolve(link: &Name, target: &[u8]) -> Option<Name> {
    let (parent, _) = link
        .split()
        .filter(|_| !matches!(target, [] | [b'/', ..]))?;
    let mut parts: Vec<&[u8]> = parent.parts().collect();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Name::parse(&parts.join(&b'/')).ok()
}

fn open_file(directory: &OwnedFd, path: &str) -> Result<Part> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(directory, path, flags, Mode::empty(), resolve)
        .map_err(|errno| missing(errno, path))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(damaged)?;
    if !metadata.is_file() {
        return Err(hostile("something in the layout is no file").with_context("path", path));
    }
    Ok(Part {
        file: Arc::new(file),
        position: 0,
        left: metadata.len(),
    })
}

fn missing(errno: Errno, what: &str) -> Error {
    let kind = match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::ACCESS => ErrorKind::PermissionDenied,
        _ => ErrorKind::InvalidArgument,
    };
    let error = Error::new(kind, "a part of the layout could not be opened");
    error
        .with_context("path", what.escape_debug())
        .with_source(io::Error::from(errno))
}

/// The contents of one part.
#[derive(Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    position: u64,
    left: u64,
}

impl Part {
    /// Bytes that are left of it.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.position)?;
        self.position = self.position.saturating_add(count as u64);
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_archive() {
        let resolve = |link: &str, target: &str| {
            let found = resolve(&Name::parse(link.as_bytes()).unwrap(), target.as_bytes());
            found.map(|name| String::from_utf8(name.as_bytes().to_vec()).unwrap())
        };
        let to = Some("b/layer.tar".to_owned());
        assert_eq!(resolve("a/layer.tar", "../b/layer.tar"), to);
        assert_eq!(resolve("a/./x", ".././b/layer.tar"), to);
        for target in ["../../b", "/etc/passwd", ""] {
            assert_eq!(resolve("a/layer.tar", target), None, "{target}");
        }
    }
}
