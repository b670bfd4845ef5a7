//! Walking a tree of directories that its owner may change at any time, make endless, or fill with links.
//!
//! Every step is relative to an open directory and follows no link, so the walk cannot be led away. Only the
//! deepest [`OPEN_LEVELS`] directories are kept open; one further up is opened again through `..` and must then be
//! the same one. Names are kept up to a bound, and read again from the last one when there are more.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::file;

/// Directories kept open at a time.
const OPEN_LEVELS: usize = 64;

/// Deepest directory that is entered.
const MAX_DEPTH: usize = 65_536;

/// Names kept of one directory.
const NAMES_PER_LEVEL: usize = 50_000;

/// Names kept of all directories above the current one.
const NAMES_ABOVE: usize = 50_000;

/// Flags that open a directory for a walk.
pub(crate) const OPEN: i32 =
    libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;

const NO_LINKS: u64 = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// Open directories, each inside the one before, of which only the last few are really held open.
#[derive(Debug)]
pub(crate) struct Ladder {
    rungs: Vec<Rung>,
    max_depth: usize,
}

#[derive(Debug)]
struct Rung {
    fd: Option<OwnedFd>,
    id: (u64, u64),
}

impl Rung {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let id = identity(fd.as_fd())?;
        Ok(Self { fd: Some(fd), id })
    }
}

fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    file::status(fd).map(|status| (status.st_dev, status.st_ino))
}

impl Ladder {
    pub(crate) fn new(root: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            rungs: vec![Rung::new(root)?],
            max_depth: MAX_DEPTH,
        })
    }

    /// Starts in a directory in which nobody may have made a tree too deep: one without a bound.
    pub(crate) fn of_any_depth(root: OwnedFd) -> io::Result<Self> {
        let mut ladder = Self::new(root)?;
        ladder.max_depth = usize::MAX;
        Ok(ladder)
    }

    /// How many directories are held open.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.rungs.iter().filter(|rung| rung.fd.is_some()).count()
    }

    /// How many directories deep the last one is; the first has depth 0.
    pub(crate) fn depth(&self) -> usize {
        self.rungs.len().saturating_sub(1)
    }

    /// The last directory.
    pub(crate) fn top(&self) -> io::Result<BorrowedFd<'_>> {
        let fd = self.rungs.last().and_then(|rung| rung.fd.as_ref());
        fd.map(AsFd::as_fd)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Goes down into `name`, which must be a directory of the last one.
    pub(crate) fn push(&mut self, name: &CStr, within_mount: bool) -> io::Result<()> {
        if self.rungs.len() >= self.max_depth {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        let resolve = NO_LINKS
            | if within_mount {
                libc::RESOLVE_NO_XDEV
            } else {
                0
            };
        let fd = file::open(self.top()?, name, OPEN, 0, resolve)?;
        self.rungs.push(Rung::new(fd)?);
        let closed = self
            .rungs
            .len()
            .checked_sub(OPEN_LEVELS + 1)
            .and_then(|index| self.rungs.get_mut(index));
        if let Some(rung) = closed {
            rung.fd = None;
        }
        Ok(())
    }

    /// Goes back up.
    ///
    /// # Errors
    /// `ESTALE` if the directory was moved elsewhere meanwhile.
    pub(crate) fn pop(&mut self) -> io::Result<()> {
        let child = self.rungs.pop().and_then(|rung| rung.fd);
        let (Some(child), Some(rung)) = (child, self.rungs.last_mut()) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        if rung.fd.is_none() {
            let fd = file::open(child.as_fd(), c"..", OPEN, 0, NO_LINKS)?;
            if identity(fd.as_fd())? != rung.id {
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
            rung.fd = Some(fd);
        }
        Ok(())
    }
}

/// One step of a [`Walk`].
#[derive(Debug)]
pub(crate) enum Step {
    /// An entry of the current directory. If it is a directory, [`Walk::enter`] goes into it.
    Entry(CString),
    /// The current directory had no more; its parent, where it has this name, is the current one again.
    Left(CString),
    /// The walk is back in its first directory and that has no more.
    End,
}

/// A walk that gives each directory's entries sorted by name, and those below an entry right after it.
#[derive(Debug)]
pub(crate) struct Walk {
    ladder: Ladder,
    levels: Vec<Level>,
    within_mount: bool,
    buffer: Vec<u8>,
    /// Names kept in all levels.
    kept: usize,
}

#[derive(Debug)]
struct Level {
    /// Its name in its parent.
    name: CString,
    /// Read and not yet given, the first one last.
    names: Vec<CString>,
    /// The last one given.
    last: Option<CString>,
    /// Whether there may be names after those read.
    more: bool,
}

impl Level {
    fn new(name: CString) -> Self {
        Self {
            name,
            names: Vec::new(),
            last: None,
            more: true,
        }
    }
}

impl Walk {
    /// Starts in `root`, opened with [`OPEN`]. `within_mount`: directories of other mounts are not entered (`EXDEV`).
    pub(crate) fn new(root: OwnedFd, within_mount: bool) -> io::Result<Self> {
        let levels = vec![Level::new(CString::default())];
        Ok(Self {
            ladder: Ladder::new(root)?,
            levels,
            within_mount,
            buffer: vec![0; 32 * 1024],
            kept: 0,
        })
    }

    /// Starts in `root`, in which nobody may have made a tree too deep to be walked: one without such a bound, within its
    /// mount. It takes some bytes for each level.
    pub(crate) fn of_any_depth(root: OwnedFd) -> io::Result<Self> {
        let mut walk = Self::new(root, true)?;
        walk.ladder.max_depth = usize::MAX;
        Ok(walk)
    }

    /// The directory that the walk is in.
    pub(crate) fn directory(&self) -> io::Result<BorrowedFd<'_>> {
        self.ladder.top()
    }

    /// How deep the current directory is; the first has depth 0.
    pub(crate) fn depth(&self) -> usize {
        self.ladder.depth()
    }

    /// Goes on.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        loop {
            let directory = self.ladder.top()?;
            let Some(level) = self.levels.last_mut() else {
                return Ok(Step::End);
            };
            if let Some(name) = level.names.pop() {
                self.kept -= 1;
                level.last = Some(name.clone());
                return Ok(Step::Entry(name));
            }
            if level.more {
                fill(level, directory, &mut self.buffer)?;
                self.kept += level.names.len();
            } else if self.levels.len() == 1 {
                return Ok(Step::End);
            } else {
                self.ladder.pop()?;
                return Ok(self
                    .levels
                    .pop()
                    .map_or(Step::End, |level| Step::Left(level.name)));
            }
        }
    }

    /// Goes into the directory `name` of the current one.
    pub(crate) fn enter(&mut self, name: CString) -> io::Result<()> {
        self.ladder.push(&name, self.within_mount)?;
        if self.kept > NAMES_ABOVE {
            self.forget_names();
        }
        self.levels.push(Level::new(name));
        Ok(())
    }

    /// Goes back up without looking at the rest of the current directory.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.kept -= self.levels.pop().map_or(0, |level| level.names.len());
        self.ladder.pop()
    }

    /// Drops what was read of all directories, to be read again when the walk is back in them.
    fn forget_names(&mut self) {
        for level in self
            .levels
            .iter_mut()
            .filter(|level| !level.names.is_empty())
        {
            level.names = Vec::new();
            level.more = true;
        }
        self.kept = 0;
    }
}

/// Reads the names that follow the last one given, as many as may be kept.
fn fill(level: &mut Level, directory: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<()> {
    let mut names = BTreeSet::new();
    let mut more = false;
    let mut keep = |name: &CStr| {
        if level.last.as_deref().is_none_or(|last| name > last) {
            names.insert(name.to_owned());
            if names.len() > NAMES_PER_LEVEL {
                names.pop_last();
                more = true;
            }
        }
    };
    file::seek(directory, 0, libc::SEEK_SET)?;
    loop {
        match file::next_names(directory, buffer, &mut keep) {
            Ok(true) => {}
            Ok(false) => break,
            // The directory itself was removed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
    }
    level.names = names.into_iter().rev().collect();
    level.more = more;
    Ok(())
}
