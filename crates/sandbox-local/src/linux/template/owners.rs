//! To whom stored files are given, by what this program's user may do.
//!
//! Root gives them to the storage range as it writes them. An ordinary user cannot: with subordinate ids it writes them as
//! its own, and a process that may gives them away when all are there; without them they all stay its own.

use crate::linux::{ranges::STORAGE_BASE, socket, subordinate, zygote::Zygote};
use sandbox_agent::protocol::{
    Blob, Wire,
    zygote::{Owned, OwnedFile, Owners as Table, Request},
};
use std::{
    collections::HashMap,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

/// Permissions that are as they should be already.
const UNCHANGED: u32 = u32::MAX;

/// Whose the files of a tree are that is being written.
#[derive(Debug)]
pub(crate) enum Owners {
    /// They are given to ids from this one on at once.
    Range(u32),
    /// They all are this program's user's, who inside is the only one there is.
    One,
    /// They are given away at the end; those that are not root's are kept by their inodes.
    Later(HashMap<u64, OwnedFile>),
}

impl Owners {
    /// As this program can have them.
    pub(crate) fn new() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Range(STORAGE_BASE)
        } else if subordinate::used().is_some() {
            Self::Later(HashMap::new())
        } else {
            Self::One
        }
    }

    /// The id on disk of one inside, if it can be given to a file.
    pub(crate) fn stored(&self, id: u32) -> Option<u32> {
        match self {
            Self::Range(base) => base.checked_add(id),
            Self::One | Self::Later(_) => None,
        }
    }

    /// Remembers whose a new file is; and, of a directory that was made with others, its permissions.
    pub(crate) fn note(&mut self, inode: u64, [uid, gid]: [u32; 2], mode: Option<u32>) {
        let Self::Later(files) = self else {
            return;
        };
        let mode = mode.unwrap_or(UNCHANGED);
        if (uid, gid, mode) == (0, 0, UNCHANGED) {
            // It may have the number of one that is gone.
            files.remove(&inode);
            return;
        }
        let file = OwnedFile {
            inode,
            uid,
            gid,
            mode,
        };
        files.insert(inode, file);
    }

    /// Gives the tree away, if that was put off.
    pub(crate) fn give(self, tree: &Path) -> io::Result<()> {
        let Self::Later(files) = self else {
            return Ok(());
        };
        let files = files.into_values().collect();
        let table = socket::sealed(&Table { files }.encode())?;
        let request = Request::Give {
            path: Blob(tree.as_os_str().as_bytes().to_vec()),
            others: Vec::new(),
        };
        helper()?.tend_with(&request, &[table.as_fd()]).map(drop)
    }
}

/// Gives a tree to root of the sandboxes, but for `others`, where an ordinary user has subordinate ids.
pub(crate) fn give(tree: &Path, others: Vec<Owned>) -> io::Result<()> {
    if rustix::process::geteuid().is_root() || subordinate::used().is_none() {
        return Ok(());
    }
    let path = Blob(tree.as_os_str().as_bytes().to_vec());
    helper()?.tend(&Request::Give { path, others }).map(drop)
}

fn helper() -> io::Result<std::sync::Arc<Zygote>> {
    Zygote::helper().ok_or_else(|| io::Error::other("no provider is open"))
}

/// The id inside of one on disk. What no sandbox has given to somebody is root's.
pub(super) fn inside(id: u32, first: u32) -> u32 {
    let inside = id.checked_sub(first);
    inside.filter(|id| *id < subordinate::COUNT).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_roots_is_kept_and_an_inode_may_be_used_again() {
        let mut owners = Owners::Later(HashMap::new());
        owners.note(1, [0, 0], None);
        owners.note(2, [5, 0], None);
        owners.note(3, [0, 0], Some(0o500));
        let kept = |owners: &Owners| match owners {
            Owners::Later(files) => files.len(),
            _ => 0,
        };
        assert_eq!(kept(&owners), 2);
        owners.note(2, [0, 0], None);
        assert_eq!(kept(&owners), 1);
        assert_eq!(owners.stored(7), None);
        assert_eq!(Owners::Range(100).stored(7), Some(107));
        assert_eq!(Owners::Range(u32::MAX).stored(7), None);
    }

    #[test]
    fn an_id_outside_of_the_range_is_roots() {
        let found = [99, 100, 1100, 100 + subordinate::COUNT].map(|id| inside(id, 100));
        assert_eq!(found, [0, 0, 1000, 0]);
    }
}
