//! The first look at a tree, before anything of it is written: how much it is, and whether it is one.

use super::entry::{Entry, Kind, Name, Sink, hostile};
use crate::linux::template::USER;
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    io::Read,
};

/// Most bytes of the names that one layer takes away, which are remembered.
const MOST_REMOVED: usize = 16 * 1024 * 1024;

/// How much may be imported.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Bounds {
    /// Longest archive that can hold no more than this, without compression.
    pub(crate) fn archive(self) -> u64 {
        // A header, what fills the last block, and long names.
        self.bytes
            .saturating_add(self.entries.saturating_mul(8 * 1024))
            .saturating_add(1024 * 1024)
    }
}

/// What all layers of a tree have in common.
#[derive(Debug)]
pub(crate) struct Totals {
    bounds: Bounds,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Devices, pipes and sockets.
    pub(crate) specials: u64,
    /// What belongs to others than `user`.
    pub(crate) of_others: u64,
}

impl Totals {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            bytes: 0,
            entries: 0,
            specials: 0,
            of_others: 0,
        }
    }

    /// Counts an entry of the tree, or of the archive that describes others.
    pub(crate) fn count(&mut self, bytes: u64) -> Result<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let Bounds { bytes, entries } = self.bounds;
        if self.entries > entries {
            return Err(too_large(format!(
                "it has more than {entries} entries, the most that may be imported"
            )));
        }
        if self.bytes > bytes {
            return Err(too_large(format!(
                "its files have more than {bytes} bytes, the most that may be imported"
            )));
        }
        Ok(())
    }
}

pub(crate) fn too_large(message: String) -> Error {
    Error::new(ErrorKind::QuotaExceeded, message)
}

/// What a layer takes away from those below it, before it adds its own.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Entries, and whether only what is in them goes.
    pub(crate) names: Vec<(Name, bool)>,
    bytes: usize,
}

/// Looks at the entries of one layer.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    totals: &'a mut Totals,
    removed: Removed,
    /// Names that came, by a hash that nobody can foresee, and whether they are directories.
    seen: HashMap<u128, bool>,
    keys: [RandomState; 2],
}

impl<'a> Scan<'a> {
    pub(crate) fn new(totals: &'a mut Totals) -> Self {
        Self {
            totals,
            removed: Removed::default(),
            seen: HashMap::new(),
            keys: [RandomState::new(), RandomState::new()],
        }
    }

    /// What the layer takes away.
    pub(crate) fn finish(self) -> Removed {
        self.removed
    }

    fn see(&mut self, name: &Name, is_directory: bool) -> Result<()> {
        let [high, low] = self.keys.each_ref().map(|key| key.hash_one(name));
        let key = (u128::from(high) << 64) | u128::from(low);
        match self.seen.insert(key, is_directory) {
            Some(was_directory) if !(was_directory && is_directory) => {
                Err(hostile("an entry comes twice").with_context("entry", name))
            }
            _ => Ok(()),
        }
    }

    fn remove(&mut self, name: &Name, only_contents: bool) -> Result<()> {
        self.removed.bytes += name.as_bytes().len();
        if self.removed.bytes > MOST_REMOVED {
            return Err(too_large(
                "a layer takes more away than may be imported".to_owned(),
            ));
        }
        self.removed.names.push((name.clone(), only_contents));
        Ok(())
    }
}

impl Sink for Scan<'_> {
    fn entry(&mut self, entry: &Entry, _: &mut dyn Read) -> Result<()> {
        let size = match entry.kind {
            Kind::File { size } => size,
            _ => 0,
        };
        self.totals.count(size)?;
        self.totals.of_others += u64::from([entry.uid, entry.gid] != [USER; 2]);
        let root_is = |what: &str| hostile(format!("the root of the tree is {what}"));
        match &entry.kind {
            Kind::Directory => self.see(&entry.name, true),
            Kind::Whiteout => self.remove(&entry.name, false),
            Kind::Opaque => self.remove(&entry.name, true),
            _ if entry.name.is_root() => Err(root_is("no directory")),
            Kind::Special => {
                self.totals.specials += 1;
                Ok(())
            }
            _ => self.see(&entry.name, false),
        }
    }

    fn header(&mut self) -> Result<()> {
        self.totals.count(0)
    }
}
