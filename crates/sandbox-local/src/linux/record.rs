//! The record of a sandbox on disk: what exists because of it, and a lock that tells whether it lives.
//!
//! `<state>/sandboxes/<id>/` holds `record.json`, `lock`, `sock` and the sandbox's changed files in `store`. The lock is
//! held by the sandbox's PID 1, by the program that makes it, and by an owner as long as it lives; whoever can take it
//! has found something that is over, and may remove what is left.

use super::cgroup::Groups;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use sandbox_core::{Error, ErrorKind, Limits, Ownership, Result, SandboxId};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const RECORD: &str = "record.json";
/// Name of the socket in a record's directory.
pub(crate) const SOCKET: &str = "sock";
/// Name of the directory of changed files in a record's directory.
pub(crate) const STORE: &str = "store";

/// What is known of a sandbox without asking it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: SandboxId,
    pub(crate) name: Option<String>,
    pub(crate) template: String,
    /// The template's shell, for `Command::shell`.
    pub(crate) shell: String,
    pub(crate) ownership: Ownership,
    pub(crate) limits: Limits,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Number of its range of uids.
    pub(crate) range: u32,
    pub(crate) groups: Groups,
}

impl Record {
    pub(crate) fn created_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.created_ms)
    }
}

/// All records of a state directory.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    directory: PathBuf,
}

/// A record whose lock this process holds (or shares with the sandbox's PID 1).
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) path: PathBuf,
    pub(crate) directory: File,
    pub(crate) lock: File,
}

impl Records {
    /// The records below `state`, which is made if it is missing.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("sandboxes");
        make_private(&directory)?;
        spread(&directory);
        Ok(Self { directory })
    }

    /// Makes the directory of a new record and takes its lock.
    pub(crate) fn add(&self) -> io::Result<(SandboxId, Locked)> {
        loop {
            let id = new_id()?;
            let path = self.path(&id);
            fs::DirBuilder::new().mode(0o700).create(&path)?;
            // A cleaner may have seen the directory before the lock was taken, and then it is his.
            if let Some(locked) = lock(path)? {
                return Ok((id, locked));
            }
        }
    }

    /// Directory of the record of `id`, which need not exist.
    pub(crate) fn path(&self, id: &SandboxId) -> PathBuf {
        self.directory.join(id.as_str())
    }

    /// Ids of all records, in no order.
    pub(crate) fn ids(&self) -> io::Result<Vec<SandboxId>> {
        let entries = fs::read_dir(&self.directory)?;
        entries
            .map(|entry| Ok(SandboxId::new(entry?.file_name().to_string_lossy())))
            .collect()
    }

    /// Reads a record; `None` if there is none (yet).
    pub(crate) fn read(&self, id: &SandboxId) -> Option<Record> {
        if !is_id(id) {
            return None;
        }
        read(&self.path(id))
    }

    /// Takes the record's lock; `None` if the sandbox lives, is being made, or is gone.
    pub(crate) fn try_lock(&self, id: &SandboxId) -> io::Result<Option<Locked>> {
        if is_id(id) {
            lock(self.path(id))
        } else {
            Ok(None)
        }
    }

    /// Whether the sandbox lives or is being made.
    pub(crate) fn is_alive(&self, id: &SandboxId) -> bool {
        let Ok(lock) = File::open(self.path(id).join("lock")) else {
            return false;
        };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Writes a new record, refusing a name that a living sandbox has.
    pub(crate) fn write(&self, locked: &Locked, record: &Record) -> Result<()> {
        let failed = |error| storage_error(error, "the sandbox's record could not be written");
        let Some(name) = &record.name else {
            return write(&locked.path, record).map_err(failed);
        };
        let names = File::create(self.directory.join("../names.lock")).map_err(failed)?;
        names.lock().map_err(failed)?;
        let mut others = self
            .ids()
            .map_err(failed)?
            .into_iter()
            .filter(|id| *id != record.id);
        if others.any(|id| {
            self.is_alive(&id)
                && self
                    .read(&id)
                    .is_some_and(|other| other.name.as_ref() == Some(name))
        }) {
            let message = "a sandbox of this name exists, kill it or choose another name";
            return Err(Error::new(ErrorKind::AlreadyExists, message).with_context("name", name));
        }
        write(&locked.path, record).map_err(failed)
    }
}

impl Locked {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Reads the record, if it was written.
    pub(crate) fn read(&self) -> Option<Record> {
        read(&self.path)
    }
}

fn lock(path: PathBuf) -> io::Result<Option<Locked>> {
    let gone = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(None)
        } else {
            Err(error)
        }
    };
    let lock = match OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))
    {
        Ok(lock) => lock,
        Err(error) => return gone(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Between opening and locking somebody else may have removed it all.
    if lock.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    match File::open(&path) {
        Ok(directory) => Ok(Some(Locked {
            path,
            directory,
            lock,
        })),
        Err(error) => gone(error),
    }
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path.join(RECORD)).ok()?).ok()
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let new = path.join("record.new");
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::rename(new, path.join(RECORD))
}

/// Makes a directory that only its owner may enter.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Tells ext4 that what is below `directory` has nothing in common, so that each record gets a block group of its own.
///
/// Without a journal ext4 takes no inode that was in use some minutes ago, and looks at all of these in the group for each
/// new file: where sandboxes come and go in one group, making one took five times as long. Other file systems know no such
/// flag, and need none.
fn spread(directory: &Path) {
    let mark = || {
        let directory = File::open(directory)?;
        let flags = ioctl_getflags(&directory)?;
        if flags.contains(IFlags::TOPDIR) {
            return Ok(());
        }
        ioctl_setflags(&directory, flags | IFlags::TOPDIR).map_err(io::Error::from)
    };
    if let Err(error) = mark() {
        tracing::debug!(%error, "the file system takes no advice on where sandboxes belong");
    }
}

/// Whether `id` can be one of ours; others never become part of a path.
pub(crate) fn is_id(id: &SandboxId) -> bool {
    let text = id.as_str();
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// `s` and 15 lower-case letters or digits: 77 bits, and a valid host name.
fn new_id() -> io::Result<SandboxId> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0; 15];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let tail = random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(SandboxId::new(
        std::iter::once('s').chain(tail).collect::<String>(),
    ))
}

/// An I/O failure of ours: a full disk is said so.
pub(crate) fn storage_error(error: io::Error, message: &'static str) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Internal,
    };
    let cause = error.to_string();
    Error::new(kind, message)
        .with_source(error)
        .with_context("cause", cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_record_is_alive_and_nobody_elses() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        let (id, locked) = records.add().unwrap();
        assert!(records.is_alive(&id));
        assert!(records.try_lock(&id).unwrap().is_none());
        drop(locked);
        assert!(!records.is_alive(&id));
        assert!(records.try_lock(&id).unwrap().is_some());
    }

    #[test]
    fn hostile_ids_are_no_paths() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        for id in ["", "..", "../x", "a/b", "A", "a\0", &"a".repeat(33)] {
            let id = SandboxId::new(id);
            assert!(!is_id(&id), "{id}");
            assert!(records.read(&id).is_none());
            assert!(records.try_lock(&id).unwrap().is_none());
        }
        assert!(is_id(&new_id().unwrap()));
    }
}
