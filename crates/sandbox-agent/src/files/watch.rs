//! Watching a directory, and those below it, for changes.
//!
//! The kernel tells of each directory apart, so every one is watched, a new one before it is looked into: what is made in
//! it meanwhile is found by one of the two, or told twice. Nothing waits for the peer. What it does not take is kept up to
//! a bound, and where anything is lost, there or in the kernel, that is told in the place of what was lost.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sandbox_agent::protocol::files::{Change, FileReply};
use sandbox_agent::protocol::{Blob, MAX_CHUNK, Wire as _};

use super::connection::{Abort, Connection, Gone, Outcome};
use super::error::{Explain, FileError, Result, errno};
use super::tree::{self, PATH_LIMIT, Tree};
use super::walk::{Step, Walk};
use crate::sys::file;
use crate::sys::inotify::{self, BUFFER, Inotify};

/// Most directories that are watched, and most bytes of their paths.
const MAX_DIRECTORIES: usize = 65_536;
const MAX_PATHS: usize = 16 * 1024 * 1024;

/// Most bytes of changes that wait for the peer.
const MAX_WAITING: usize = 8 * 1024 * 1024;

/// Room in a packet for what wraps the changes.
const FRAME: usize = 64;

/// Directories that are watched, by the kernel's numbers, with their paths below the first one.
#[derive(Debug)]
struct Directories {
    inotify: Inotify,
    paths: BTreeMap<i32, Vec<u8>>,
    bytes: usize,
}

impl Directories {
    fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::new()?,
            paths: BTreeMap::new(),
            bytes: 0,
        })
    }

    /// Watches an open directory. Returns whether it was not watched under this path before.
    fn add(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
        // By its number among the descriptors, which are the working directory.
        let name = tree::number(directory);
        let too_many = || {
            let message = "there are more directories than can be watched";
            FileError::new(libc::EMFILE, message)
        };
        let watch = self
            .inotify
            .add(&name)
            .map_err(|error| match errno(&error) {
                libc::ENOSPC => too_many(),
                _ => FileError::of(&error, "watch", path),
            })?;
        let before = self.paths.insert(watch, path.to_vec());
        self.bytes += path.len();
        self.bytes -= before.as_ref().map_or(0, Vec::len);
        if self.paths.len() > MAX_DIRECTORIES || self.bytes > MAX_PATHS {
            return Err(too_many());
        }
        Ok(before.as_deref() != Some(path))
    }

    /// Forgets a directory that is gone.
    fn forget(&mut self, watch: i32) {
        let path = self.paths.remove(&watch);
        self.bytes -= path.map_or(0, |path| path.len());
    }

    /// Watches the directory `path` and those below it no longer.
    fn leave(&mut self, path: &[u8]) {
        let is_below = |other: &[u8]| {
            let rest = other.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let left: Vec<i32> = self
            .paths
            .iter()
            .filter_map(|(watch, other)| is_below(other).then_some(*watch))
            .collect();
        for watch in left {
            self.inotify.remove(watch);
            self.forget(watch);
        }
    }
}

/// Changes that wait for the peer.
#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Something was lost after the last of them, and it says so.
    lost: bool,
}

impl Queue {
    fn push(&mut self, change: Change) {
        if self.lost {
            return;
        }
        let bytes = change.encode().len();
        if self.bytes + bytes > MAX_WAITING {
            return self.lose();
        }
        self.bytes += bytes;
        self.changes.push_back(change);
    }

    /// Something is lost here. More may be, until the peer has taken all that waits: whoever is told looks again.
    fn lose(&mut self) {
        if !self.lost {
            self.lost = true;
            self.changes.push_back(Change::Lost {});
        }
    }

    /// As many changes as fit into a packet.
    fn take(&mut self) -> Vec<Change> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(change) = self.changes.front() {
            let len = change.encode().len();
            if !taken.is_empty() && bytes + len > MAX_CHUNK - FRAME {
                break;
            }
            bytes += len;
            self.bytes = self.bytes.saturating_sub(len);
            taken.extend(self.changes.pop_front());
        }
        self.lost &= !self.changes.is_empty();
        taken
    }
}

/// A watch in progress.
#[derive(Debug)]
pub(super) struct Watching<'a> {
    tree: &'a Tree,
    /// The first directory, as asked for, and which one that is.
    path: &'a [u8],
    identity: (u64, u64),
    recursive: bool,
    directories: Directories,
    queue: Queue,
    /// A packet that the peer had no room for.
    packet: Option<FileReply>,
}

impl<'a> Watching<'a> {
    /// Watches the directory `path`, from now on.
    pub(super) fn new(tree: &'a Tree, path: &'a [u8], recursive: bool) -> Result<Self> {
        tree.work_in_descriptors().explain("watch", path)?;
        let root = tree.directory(path)?;
        let status = file::status(root.as_fd()).explain("stat", path)?;
        let mut watching = Self {
            tree,
            path,
            identity: (status.st_dev, status.st_ino),
            recursive,
            directories: Directories::new().explain("watch", path)?,
            queue: Queue::default(),
            packet: None,
        };
        watching.directories.add(root.as_fd(), b"")?;
        if recursive {
            watching.look(root, b"", false)?;
        }
        Ok(watching)
    }

    /// Tells the peer of changes until it is gone or the directory is.
    pub(super) fn run(mut self, connection: &Connection) -> Outcome<()> {
        connection.send(&FileReply::Done {}, None)?;
        connection.set_waiting(false)?;
        let ended = self.pass_on(connection);
        connection.set_waiting(true)?;
        if !matches!(ended, Err(Abort::Gone)) {
            // What was found out comes before the reason why there is no more of it.
            while self.send(connection)? {}
        }
        ended
    }

    fn pass_on(&mut self, connection: &Connection) -> Outcome<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let more = self.packet.is_some() || !self.queue.changes.is_empty();
            let ready = inotify::wait(&self.directories.inotify, connection.as_fd(), more);
            let ready = ready.map_err(|_| Gone)?;
            if ready.peer {
                return Err(Abort::Gone);
            }
            if ready.changes && !self.take_changes(&mut buffer)? {
                return Ok(());
            }
            while self.send(connection)? {}
        }
    }

    /// Sends a packet. Returns whether there may be another one that the peer takes.
    fn send(&mut self, connection: &Connection) -> std::result::Result<bool, Gone> {
        let packet = self.packet.take().or_else(|| {
            let changes = self.queue.take();
            (!changes.is_empty()).then_some(FileReply::Changes { changes })
        });
        let Some(packet) = packet else {
            return Ok(false);
        };
        let sent = connection.try_send(&packet)?;
        if !sent {
            self.packet = Some(packet);
        }
        Ok(sent)
    }

    /// Takes what the kernel tells. Returns whether the first directory is still there.
    fn take_changes(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let read = self.directories.inotify.read(buffer);
        let len = read.explain("watch", self.path)?;
        for change in inotify::changes(&buffer[..len]) {
            if change.mask & libc::IN_Q_OVERFLOW != 0 {
                // New directories may be among what was lost, and where others are is not sure any more.
                return self.start_again();
            }
            let Some(above) = self.directories.paths.get(&change.watch) else {
                continue;
            };
            let path = join(above, change.name);
            if !self.take_change(change, path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_change(&mut self, change: inotify::Change<'_>, path: Vec<u8>) -> Result<bool> {
        let is = |mask: u32| change.mask & mask != 0;
        let is_directory = is(libc::IN_ISDIR) && self.recursive;
        if is(libc::IN_DELETE_SELF | libc::IN_MOVE_SELF | libc::IN_UNMOUNT | libc::IN_IGNORED) {
            if is(libc::IN_IGNORED) {
                self.directories.forget(change.watch);
            }
            // Of others the directory above tells.
            if path.is_empty() {
                self.queue.push(Change::Removed { path: Blob(path) });
                return Ok(false);
            }
        } else if is(libc::IN_CREATE | libc::IN_MOVED_TO) {
            self.queue.push(Change::Created {
                path: Blob(path.clone()),
            });
            if is_directory {
                return self.follow(&path);
            }
        } else if is(libc::IN_DELETE | libc::IN_MOVED_FROM) {
            if is_directory {
                self.directories.leave(&path);
            }
            self.queue.push(Change::Removed { path: Blob(path) });
        } else if is(libc::IN_MODIFY) {
            self.queue.push(Change::Written { path: Blob(path) });
        } else if is(libc::IN_ATTRIB) && !change.name.is_empty() {
            self.queue.push(Change::Attributes { path: Blob(path) });
        }
        Ok(true)
    }

    /// The first directory, if it is still where it was.
    fn root(&self) -> Result<Option<OwnedFd>> {
        let root = match self.tree.directory(self.path) {
            Err(error) if matches!(error.errno, libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
                return Ok(None);
            }
            root => root?,
        };
        let status = file::status(root.as_fd()).explain("stat", self.path)?;
        let is_same = (status.st_dev, status.st_ino) == self.identity;
        Ok(is_same.then_some(root))
    }

    /// Watches a new directory, and tells what is in it already. Returns whether the first directory is still there.
    fn follow(&mut self, path: &[u8]) -> Result<bool> {
        let Some(root) = self.root()? else {
            self.queue.push(Change::Removed {
                path: Blob(Vec::new()),
            });
            return Ok(false);
        };
        if path.len() > PATH_LIMIT {
            self.queue.lose();
            return Ok(true);
        }
        let name = file::c_string(path).explain("watch", path)?;
        let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
        match file::open(root.as_fd(), &name, super::walk::OPEN, 0, resolve) {
            Ok(directory) => {
                if self.directories.add(directory.as_fd(), path)? {
                    self.look(directory, path, true)?;
                }
            }
            // Gone again, or not for this user to look into.
            Err(error) if is_passed_over(&error) => {}
            Err(error) => return Err(FileError::of(&error, "watch", path)),
        }
        Ok(true)
    }

    /// Watches the directories below one that is watched, and tells what is there if it is to `tell`.
    fn look(&mut self, directory: OwnedFd, path: &[u8], tell: bool) -> Result<()> {
        let mut walk = Walk::new(directory, false).explain("watch", path)?;
        let mut above = path.to_vec();
        loop {
            match walk.step().explain("watch", path)? {
                Step::End => return Ok(()),
                Step::Left(name) => {
                    let len = above.len() - name.count_bytes();
                    above.truncate(len.saturating_sub(1));
                }
                Step::Entry(name) => self.entry(&mut walk, &mut above, name, tell)?,
            }
        }
    }

    fn entry(
        &mut self,
        walk: &mut Walk,
        above: &mut Vec<u8>,
        name: CString,
        tell: bool,
    ) -> Result<()> {
        let path = join(above, name.as_bytes());
        if path.len() > PATH_LIMIT {
            self.queue.lose();
            return Ok(());
        }
        if tell {
            self.queue.push(Change::Created {
                path: Blob(path.clone()),
            });
        }
        let entered = walk
            .directory()
            .and_then(|directory| file::status_of(directory, &name))
            .map(|status| status.st_mode & libc::S_IFMT == libc::S_IFDIR)
            .and_then(|is_directory| {
                if is_directory {
                    walk.enter(name)?;
                }
                Ok(is_directory)
            });
        match entered {
            Ok(false) => return Ok(()),
            Err(error) if is_passed_over(&error) => return Ok(()),
            entered => entered.explain("watch", &path)?,
        };
        let directory = walk.directory().explain("watch", &path)?;
        // The worker's own directory in `/proc` is nobody's business.
        let added = match self.tree.refuse_own(directory, &path) {
            Ok(()) => self.directories.add(directory, &path),
            Err(error) => Err(error),
        };
        match added {
            Ok(_) => *above = path,
            Err(error) if matches!(error.errno, libc::EACCES | libc::ENOENT) => {
                walk.leave().explain("watch", &path)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Something was lost in the kernel: watches all anew and says so then, so that whoever looks again misses nothing.
    fn start_again(&mut self) -> Result<bool> {
        let Some(root) = self.root()? else {
            self.queue.lose();
            return Ok(false);
        };
        self.directories = Directories::new().explain("watch", self.path)?;
        self.directories.add(root.as_fd(), b"")?;
        if self.recursive {
            self.look(root, b"", false)?;
        }
        self.queue.lose();
        Ok(true)
    }
}

/// Whether a directory that was there is passed over: gone, replaced, or not to be looked into by this user.
fn is_passed_over(error: &io::Error) -> bool {
    let passed = [
        libc::ENOENT,
        libc::ENOTDIR,
        libc::ELOOP,
        libc::EACCES,
        libc::EINVAL,
        libc::EXDEV,
        libc::ESTALE,
    ];
    passed.contains(&errno(error))
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() || name.is_empty() {
        [above, name].concat()
    } else {
        [above, b"/", name].concat()
    }
}
