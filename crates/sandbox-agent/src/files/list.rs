//! Listing a directory and those below it, in batches.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use sandbox_agent::protocol::files::{Entry, FileReply};
use sandbox_agent::protocol::{Blob, MAX_CHUNK, Wire};

use super::connection::{Connection, Gone, Outcome};
use super::error::{Explain, FileError, Result, errno};
use super::meta;
use super::tree::{PATH_LIMIT, Tree};
use super::walk::{Step, Walk};
use crate::account::Names;
use crate::sys::file;

/// Room in a packet for what wraps the entries.
const FRAME: usize = 64;

/// A listing in progress.
pub(super) struct Listing<'a> {
    pub(super) tree: &'a Tree,
    pub(super) names: &'a Names,
    pub(super) connection: &'a Connection,
    /// The listed directory, as asked for.
    pub(super) path: &'a [u8],
    /// Entries found so far that wait to be sent, and their encoded length.
    pub(super) batch: (Vec<Entry>, usize),
}

impl Listing<'_> {
    /// Sends the entries of the directory and of those below it, down to `depth`, at most `limit`.
    pub(super) fn run(&mut self, depth: u32, limit: u64) -> Outcome<()> {
        if depth == 0 {
            Err(FileError::new(
                libc::EINVAL,
                "the depth of a listing is at least 1",
            ))?;
        }
        let root = self.tree.directory(self.path)?;
        let walked = self.walk(root, depth as usize, limit);
        // What was found comes before the reason why there is no more of it.
        self.flush()?;
        walked
    }

    fn walk(&mut self, root: OwnedFd, depth: usize, limit: u64) -> Outcome<()> {
        let mut walk = Walk::new(root, false).explain("list", self.path)?;
        // Path of the current directory below the listed one, with a slash at its end.
        let mut above = Vec::new();
        let mut left = limit;
        loop {
            self.connection.still_wanted()?;
            match walk.step().explain("list", self.path)? {
                Step::End => return Ok(()),
                Step::Left(name) => {
                    above.truncate(above.len().saturating_sub(name.count_bytes() + 1))
                }
                Step::Entry(name) => {
                    let Some(directory) = self.entry(&walk, &above, &name, &mut left)? else {
                        continue;
                    };
                    if directory && walk.depth() + 1 < depth && self.enter(&mut walk, &name)? {
                        above.extend_from_slice(name.as_bytes());
                        above.push(b'/');
                    }
                }
            }
        }
    }

    /// Adds one entry and says whether it is a directory. `None`: it is not there any more.
    fn entry(
        &mut self,
        walk: &Walk,
        above: &[u8],
        name: &CString,
        left: &mut u64,
    ) -> Outcome<Option<bool>> {
        let path = [above, name.as_bytes()].concat();
        let found = walk.directory().and_then(|directory| {
            let status = file::status_of(directory, name)?;
            Ok((
                status.st_mode,
                meta::describe(self.names, &status, directory, name)?,
            ))
        });
        let (mode, stat) = match found {
            Ok(found) => found,
            // Removed or replaced meanwhile; or the directory shows names but lets nobody at them, which only
            // spoils the listing if it is the one that was asked for.
            Err(error) if matches!(errno(&error), libc::ENOENT | libc::EINVAL) => return Ok(None),
            Err(error) if errno(&error) == libc::EACCES && walk.depth() > 0 => return Ok(None),
            Err(error) => return Err(FileError::of(&error, "stat", &path).into()),
        };
        let Some(rest) = left.checked_sub(1) else {
            let message = "has more entries than the limit of this listing";
            return Err(FileError::about(libc::EOVERFLOW, self.path, message).into());
        };
        *left = rest;
        if path.len() > PATH_LIMIT {
            return Err(FileError::about(
                libc::ENAMETOOLONG,
                &path,
                "is deeper than any path can name",
            )
            .into());
        }
        self.add(Entry {
            path: Blob(path),
            stat,
        })?;
        Ok(Some(mode & libc::S_IFMT == libc::S_IFDIR))
    }

    /// Goes into a directory, if that is allowed and it is still one.
    fn enter(&self, walk: &mut Walk, name: &CString) -> Result<bool> {
        match walk.enter(name.clone()) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    errno(&error),
                    libc::EACCES | libc::ENOENT | libc::ENOTDIR | libc::ELOOP
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(FileError::of(&error, "list", self.path)),
        }
        let allowed = walk.directory().explain("list", self.path)?;
        if self.tree.refuse_own(allowed, self.path).is_err() {
            walk.leave().explain("list", self.path)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn add(&mut self, entry: Entry) -> std::result::Result<(), Gone> {
        let bytes = entry.encode().len();
        if self.batch.1 + bytes > MAX_CHUNK - FRAME {
            self.flush()?;
        }
        self.batch.0.push(entry);
        self.batch.1 += bytes;
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), Gone> {
        let (entries, _) = std::mem::take(&mut self.batch);
        if entries.is_empty() {
            Ok(())
        } else {
            self.connection.send(&FileReply::Entries { entries }, None)
        }
    }
}
