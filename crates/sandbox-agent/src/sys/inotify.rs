//! What the kernel tells of changes in directories.

#![expect(unsafe_code, reason = "inotify(7) and poll(2)")]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;

/// What is told of a directory.
const MASK: u32 = libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MODIFY
    | libc::IN_ATTRIB
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF
    | libc::IN_ONLYDIR
    | libc::IN_EXCL_UNLINK;

/// Bytes of an event before its name: number, mask, cookie, and the length of the name.
const HEADER: usize = 16;

/// Room for many events, and for one with the longest name in any case.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Directories that are watched.
#[derive(Debug)]
pub(crate) struct Inotify(File);

/// A change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    /// Which directory: what [`Inotify::add`] gave.
    pub(crate) watch: i32,
    /// `IN_*`.
    pub(crate) mask: u32,
    /// The entry of the directory; empty if it is about the directory itself.
    pub(crate) name: &'a [u8],
}

impl Inotify {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// `EMFILE` if there are too many already.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a number; the returned descriptor is new.
        let fd = unsafe {
            let fd = check(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK))?;
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(fd.into()))
    }

    /// Watches the directory `path`. One that is watched already has the same number again.
    ///
    /// # Errors
    /// `ENOSPC` if too many are watched, `EACCES`, `ENOTDIR`, `ENOENT`.
    pub(crate) fn add(&self, path: &CStr) -> io::Result<i32> {
        // SAFETY: the path is a C string.
        check(unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), MASK) })
    }

    /// Watches a directory no longer.
    pub(crate) fn remove(&self, watch: i32) {
        // SAFETY: takes numbers only. It fails for a directory that is gone, which is not watched either.
        unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), watch) };
    }

    /// Reads changes, as many as are there and fit into `buffer`. Returns how many bytes of it they fill.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.0).read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The changes in what was read.
pub(crate) fn changes(mut bytes: &[u8]) -> impl Iterator<Item = Change<'_>> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let word = |at: usize| {
            let word = header.get(at..at + 4)?.first_chunk()?;
            Some(u32::from_ne_bytes(*word))
        };
        let len = usize::try_from(word(12)?).ok()?;
        let (name, rest) = rest.split_at_checked(len)?;
        bytes = rest;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(len);
        Some(Change {
            watch: word(0)?.cast_signed(),
            mask: word(4)?,
            name: &name[..end],
        })
    })
}

/// What there is to do for somebody who passes changes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// Changes can be read.
    pub(crate) changes: bool,
    /// The peer has sent something, or is gone.
    pub(crate) peer: bool,
}

/// Waits for changes or for the peer; also until it takes more, if there is `more`.
pub(crate) fn wait(inotify: &Inotify, peer: BorrowedFd<'_>, more: bool) -> io::Result<Ready> {
    let poll = |fd: BorrowedFd<'_>, events| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    let writable = if more { libc::POLLOUT } else { 0 };
    let mut polled = [
        poll(inotify.as_fd(), libc::POLLIN),
        poll(peer, libc::POLLIN | writable),
    ];
    // SAFETY: `polled` has two elements.
    match check(unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
        _ => {}
    }
    let [changes, peer] = polled.map(|polled| polled.revents);
    Ok(Ready {
        changes: changes != 0,
        peer: peer & !libc::POLLOUT != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let inotify = Inotify::new().unwrap();
        let path = super::super::file::c_string(dir.path().as_os_str().as_encoded_bytes()).unwrap();
        let watch = inotify.add(&path).unwrap();
        assert_eq!(inotify.add(&path).unwrap(), watch);
        let mut buffer = vec![0; BUFFER];
        assert_eq!(inotify.read(&mut buffer).unwrap(), 0);
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        let len = inotify.read(&mut buffer).unwrap();
        let seen: Vec<_> = changes(&buffer[..len])
            .map(|change| (change.watch, change.mask, change.name.to_vec()))
            .collect();
        let event = |mask: u32, name: &str| (watch, mask, name.as_bytes().to_vec());
        assert_eq!(
            seen,
            [
                event(libc::IN_CREATE, "file"),
                event(libc::IN_MODIFY, "file"),
                event(libc::IN_CREATE | libc::IN_ISDIR, "directory"),
            ]
        );
        inotify.remove(watch);
        assert!(changes(&[0; 15]).next().is_none());
        assert!(changes(&[0xff; 40]).next().is_none());
    }
}
