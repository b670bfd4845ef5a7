//! The record of a sandbox on disk: what exists because of it, and a lock that tells whether it lives.
//!
//! `<state>/sandboxes/<id>/` holds `record.json`, `lock`, `sock` and the sandbox's changed files in `store`. The lock is
//! held by the sandbox's PID 1, by the program that makes it, and by an owner as long as it lives; whoever can take it
//! has found something that is over, and may remove what is left.

use super::{
    cgroup::Groups,
    ranges, snapshot,
    store::Store,
    template::{InUse, Tree},
    zygote::Zygote,
};
use rustix::{
    fs::{FlockOperation, IFlags, flock, ioctl_getflags, ioctl_setflags},
    io::Errno,
};
use sandbox_core::{Error, ErrorKind, Limits, Ownership, Result, SandboxId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    io,
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// How often it is looked whether somebody still keeps the state of a sandbox.
const KEEP_INTERVAL: Duration = Duration::from_millis(2);

const RECORD: &str = "record.json";
/// Name of the socket in a record's directory.
pub(crate) const SOCKET: &str = "sock";
/// Name of the directory of changed files in a record's directory.
pub(crate) const STORE: &str = "store";

/// How often others may be found looking at a lock that is to be taken.
const LOOKERS: u32 = 1000;

/// What is known of a sandbox without asking it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: SandboxId,
    pub(crate) name: Option<String>,
    pub(crate) template: String,
    /// Name of the template's directory, which stays as long as a record names it. Records of old have none.
    pub(crate) template_directory: Option<String>,
    /// Variables of every command that the template sets.
    #[serde(default)]
    pub(crate) template_env: BTreeMap<String, String>,
    /// The file trees that it sees below its own changes; paths are relative to the state directory, or absolute.
    #[serde(default)]
    pub(crate) trees: Vec<Tree>,
    /// The template's shell, for `Command::shell`.
    pub(crate) shell: String,
    pub(crate) ownership: Ownership,
    pub(crate) limits: Limits,
    /// What its changed files are kept in.
    #[serde(default)]
    pub(crate) store: Store,
    /// How often its changed files have become a layer of its own, which is part of the names of their directories.
    #[serde(default)]
    pub(crate) generation: u32,
    /// The snapshot that they are about to become a layer of, which the next generation stands on.
    #[serde(default)]
    pub(crate) next: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Names of the volumes that it shares.
    #[serde(default)]
    pub(crate) volumes: Vec<String>,
    /// Milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Number of its range of uids; none if it runs as the user who has made it.
    pub(crate) range: Option<u32>,
    /// The first of the subordinate uids that it has instead.
    #[serde(default)]
    pub(crate) subordinate: Option<u32>,
    pub(crate) groups: Groups,
    /// Whether it is nobody's yet, and not to be shown.
    #[serde(default)]
    pub(crate) pooled: bool,
}

impl Record {
    pub(crate) fn created_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.created_ms)
    }

    /// The directories of templates and snapshots that its files are in, below its own changes.
    pub(crate) fn snapshots(&self) -> BTreeSet<String> {
        let mut names = snapshot::directories(&self.trees);
        names.extend(self.next.clone());
        names
    }

    /// Whether there are others in it than `user`.
    pub(crate) fn has_users(&self) -> bool {
        self.range.or(self.subordinate).is_some()
    }

    /// The uids that its processes have on the host.
    pub(crate) fn uids(&self) -> Range<u32> {
        ranges::uids(self.range, self.subordinate)
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
    /// Whoever has locked it may come to remove it, also when the provider is gone.
    _helper: Option<Arc<Zygote>>,
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

    /// Those among which this one is.
    pub(crate) fn around(locked: &Locked) -> Self {
        let directory = locked.path.parent().unwrap_or(&locked.path);
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        let state = self.directory.parent();
        state.unwrap_or(&self.directory).to_owned()
    }

    /// Directory of the record of `id`, which need not exist.
    pub(crate) fn path(&self, id: &SandboxId) -> PathBuf {
        self.directory.join(id.as_str())
    }

    /// Ids of all records, in no order. What else is in the directory is not ours.
    pub(crate) fn ids(&self) -> io::Result<Vec<SandboxId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let id = SandboxId::new(entry.file_name().to_string_lossy());
            if is_id(&id) && entry.file_type()?.is_dir() {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Opens the directory of a record, for later use by its path; `None` if there is none.
    pub(crate) fn open_directory(&self, id: &SandboxId) -> io::Result<Option<File>> {
        if !is_id(id) {
            return Ok(None);
        }
        unless_gone(File::open(self.path(id)))
    }

    /// Reads a record; `None` if there is none (yet).
    ///
    /// # Errors
    /// `InvalidData` if it is not one that this version can read.
    pub(crate) fn read(&self, id: &SandboxId) -> io::Result<Option<Record>> {
        if !is_id(id) {
            return Ok(None);
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
    pub(crate) fn is_alive(&self, id: &SandboxId) -> io::Result<bool> {
        if !is_id(id) {
            return Ok(false);
        }
        let Some(lock) = unless_gone(File::open(self.path(id).join("lock")))? else {
            return Ok(false);
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The templates that living sandboxes stand on; `None` if one of these does not say.
    pub(crate) fn templates_in_use(&self) -> InUse {
        let mut names = snapshot::needed(&self.state())?;
        for id in self.ids().ok()? {
            if self.is_alive(&id).ok()? {
                let record = self.read(&id).ok()??;
                names.extend(record.snapshots());
                names.insert(record.template_directory?);
            }
        }
        Some(names)
    }

    /// Writes a new record, refusing a name that a living sandbox has.
    pub(crate) fn write(&self, locked: &Locked, record: &Record) -> Result<()> {
        let failed = |error| storage_error(error, "the sandbox's record could not be written");
        let Some(name) = &record.name else {
            return self.rewrite(locked, record);
        };
        let names = File::create(self.directory.join("../names.lock")).map_err(failed)?;
        names.lock().map_err(failed)?;
        for id in self.ids().map_err(failed)? {
            if id != record.id && self.has_name(&id, name).map_err(failed)? {
                let message = "a sandbox of this name exists, kill it or choose another name";
                return Err(
                    Error::new(ErrorKind::AlreadyExists, message).with_context("name", name)
                );
            }
        }
        self.rewrite(locked, record)
    }

    /// Writes a record whose name, if it has one, is its own already.
    pub(crate) fn rewrite(&self, locked: &Locked, record: &Record) -> Result<()> {
        write(&locked.path, record)
            .map_err(|error| storage_error(error, "the sandbox's record could not be written"))
    }

    /// Waits until nobody else keeps the state of this sandbox, nor will as long as what is returned is there.
    ///
    /// # Errors
    /// `NotFound` if the sandbox has no record any more, `TimedOut` if others take longer than `within`.
    pub(crate) fn keep_alone(&self, id: &SandboxId, within: Duration) -> io::Result<File> {
        let alone = File::create(self.path(id).join("keep.lock"))?;
        let deadline = Instant::now() + within;
        loop {
            match alone.try_lock() {
                Ok(()) => return Ok(alone),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(TryLockError::WouldBlock) => thread::sleep(KEEP_INTERVAL),
            }
        }
    }

    /// Writes the record of a sandbox that lives, whose name is its own already.
    pub(crate) fn update(&self, record: &Record) -> io::Result<()> {
        write(&self.path(&record.id), record)
    }

    /// Whether this sandbox lives and has this name. One whose record cannot be understood has none.
    fn has_name(&self, id: &SandboxId, name: &str) -> io::Result<bool> {
        if !self.is_alive(id)? {
            return Ok(false);
        }
        match self.read(id) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            other => Ok(other?.is_some_and(|other| other.name.as_deref() == Some(name))),
        }
    }
}

impl Locked {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        Records::around(self).state()
    }

    /// Name of the record's directory, which is the sandbox's id.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Reads the record, if it was written.
    ///
    /// # Errors
    /// As [`Records::read`].
    pub(crate) fn read(&self) -> io::Result<Option<Record>> {
        read(&self.path)
    }
}

/// `None` where something is not there: only that is a sandbox that is gone, and every other failure is one.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        result => result.map(Some),
    }
}

fn lock(path: PathBuf) -> io::Result<Option<Locked>> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"));
    let Some(lock) = unless_gone(opened)? else {
        return Ok(None);
    };
    // Between opening and locking somebody else may have removed it all.
    if !take(&lock)? || lock.metadata()?.nlink() == 0 {
        return Ok(None);
    }
    let directory = unless_gone(File::open(&path))?;
    Ok(directory.map(|directory| Locked {
        path,
        directory,
        lock,
        _helper: Zygote::helper(),
    }))
}

/// Takes a lock, unless somebody holds it. Those who only look whether it is held share it for a moment, and are waited for.
fn take(lock: &File) -> io::Result<bool> {
    for _ in 0..LOOKERS {
        match flock(lock, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => return Ok(false),
            shared => shared?,
        }
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            // Now it is not even shared.
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
            exclusive => return exclusive.map(|()| true).map_err(Into::into),
        }
    }
    Ok(false)
}

fn read(path: &Path) -> io::Result<Option<Record>> {
    let text = unless_gone(fs::read(path.join(RECORD)))?;
    text.map(|text| {
        serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    })
    .transpose()
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let new = path.join("record.new");
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::rename(new, path.join(RECORD))
}

/// How long other programs may hold a lock that they need for a moment.
const LOCKED_WITHIN: Duration = Duration::from_secs(30);

/// Takes a lock that others hold for a moment only. One that was stopped while it held it is not waited for longer.
///
/// # Errors
/// `TimedOut` for that.
pub(crate) fn lock_soon(file: File) -> io::Result<File> {
    let deadline = Instant::now() + LOCKED_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => {
                let message = "another program holds its lock and does not let go";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Makes a directory that only its owner may enter.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Refuses a directory in which somebody else could leave records for us, which say what to end and to remove.
pub(crate) fn require_own(directory: &Path) -> io::Result<()> {
    let metadata = fs::metadata(directory)?;
    let refuse = |message: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refuse(format!("it belongs to the user {}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse("others may write to it: chmod go-w".to_owned());
    }
    Ok(())
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

/// What random ids are made of.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const RANDOM: usize = 15;

/// Whether a text could be the id of another sandbox or of a snapshot, now or later.
pub(crate) fn looks_like_id(text: &str) -> bool {
    let random = text.strip_prefix('s').unwrap_or_default();
    let is_one = random.len() == RANDOM && random.bytes().all(|byte| ALPHABET.contains(&byte));
    is_one || snapshot::looks_like_id(text)
}

/// `s` and 15 lower-case letters or digits: 77 bits, and a valid host name.
fn new_id() -> io::Result<SandboxId> {
    Ok(SandboxId::new(format!("s{}", random::<RANDOM>()?)))
}

/// So many lower-case letters or digits that nobody can guess.
pub(crate) fn random<const COUNT: usize>() -> io::Result<String> {
    let mut random = [0; COUNT];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 32)]);
    Ok(random.iter().map(letter).collect())
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_names_of_small_letters_and_digits_become_paths(
            text in prop_oneof![any::<String>(), "[a-z0-9./~\\-]{0,40}", "[a-z0-9]{1,40}"],
        ) {
            let state = tempfile::tempdir().unwrap();
            let records = Records::open(state.path()).unwrap();
            let id = SandboxId::new(text.as_str());
            let names = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
            prop_assert_eq!(is_id(&id), (1..=32).contains(&text.len()) && text.bytes().all(names));
            prop_assert!(records.read(&id).unwrap().is_none());
            prop_assert!(!records.is_alive(&id).unwrap());
            prop_assert!(records.try_lock(&id).unwrap().is_none());
            prop_assert_eq!(records.ids().unwrap(), []);
            // Where there is something of that name, it is inside and nothing else is looked at.
            if is_id(&id) {
                fs::create_dir(records.directory.join(&text)).unwrap();
                prop_assert_eq!(records.ids().unwrap(), [id]);
            }
        }
    }

    #[test]
    fn a_locked_record_is_alive_and_nobody_elses() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        let (id, locked) = records.add().unwrap();
        assert!(records.is_alive(&id).unwrap());
        assert!(records.try_lock(&id).unwrap().is_none());
        drop(locked);
        assert!(!records.is_alive(&id).unwrap());
        assert!(records.try_lock(&id).unwrap().is_some());
    }

    #[test]
    fn who_only_looks_does_not_keep_others_from_taking_the_lock() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        let (id, locked) = records.add().unwrap();
        drop(locked);
        let lock = File::open(records.path(&id).join("lock")).unwrap();
        lock.lock_shared().unwrap();
        let taker = {
            let (records, id) = (records.clone(), id.clone());
            thread::spawn(move || records.try_lock(&id))
        };
        // Others who look see no sandbox meanwhile, however often they do.
        while !taker.is_finished() {
            let _ = records.is_alive(&id).unwrap();
            lock.unlock().unwrap();
        }
        assert!(taker.join().unwrap().unwrap().is_some());
    }

    #[test]
    fn only_what_is_not_there_is_gone() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        let (none, file, odd) = ("none", "file", "odd");
        fs::write(records.directory.join(file), "").unwrap();
        fs::create_dir_all(records.directory.join(odd).join("lock")).unwrap();
        fs::write(records.directory.join(odd).join(RECORD), "{}").unwrap();
        let id = |name: &str| SandboxId::new(name);
        for gone in [none, file].map(id) {
            assert!(records.read(&gone).unwrap().is_none());
            assert!(!records.is_alive(&gone).unwrap());
            assert!(records.try_lock(&gone).unwrap().is_none());
        }
        let error = records.read(&id(odd)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(records.try_lock(&id(odd)).is_err());
        assert_eq!(records.ids().unwrap(), [id(odd)]);
    }

    #[test]
    fn hostile_ids_are_no_paths() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        for id in ["", "..", "../x", "a/b", "A", "a\0", &"a".repeat(33)] {
            let id = SandboxId::new(id);
            assert!(!is_id(&id), "{id}");
            assert!(records.read(&id).unwrap().is_none());
            assert!(records.open_directory(&id).unwrap().is_none());
            assert!(!records.is_alive(&id).unwrap());
            assert!(records.try_lock(&id).unwrap().is_none());
        }
        let id = new_id().unwrap();
        assert!(is_id(&id) && looks_like_id(id.as_str()));
        assert!(!looks_like_id("build") && !looks_like_id("staging-database"));
    }
}
