//! Ranges of host uids: each living sandbox has one of its own, whichever program made it.
//!
//! `/run/sandbox/ranges/N` is a link to the record that holds range N. The directory belongs to the machine, not to a state
//! directory, because uids do. A holder whose record is gone holds nothing.

use sandbox_core::{Error, ErrorKind, Result};
use std::{
    collections::HashSet,
    fs, io,
    ops::Range,
    os::unix::fs::{DirBuilderExt, symlink},
    path::Path,
};

/// Owner of all stored files: range 0. The first id that systemd gives to nobody; SSSD might, see `docs/DESIGN.md`.
pub(crate) const STORAGE_BASE: u32 = 0x7000_0000;
/// Uids in a range.
pub(crate) const COUNT: u32 = 0x1_0000;
/// Ranges 1 to this are for sandboxes; beyond it uids would not be positive as signed numbers.
const LAST: u32 = 0x0fff;

const DIRECTORY: &str = "/run/sandbox/ranges";

/// First uid of range `number`.
pub(crate) fn base(number: u32) -> u32 {
    STORAGE_BASE + number * COUNT
}

/// The uids of a sandbox's processes: those of its range, or as an ordinary user's those from `subordinate` on, or the
/// user's own.
pub(crate) fn uids(range: Option<u32>, subordinate: Option<u32>) -> Range<u32> {
    match range.map(base).or(subordinate) {
        Some(first) => first..first.saturating_add(COUNT),
        None => {
            let own = rustix::process::getuid().as_raw();
            own..own + 1
        }
    }
}

/// Takes a free range for the record at `holder`.
pub(crate) fn take(holder: &Path) -> Result<u32> {
    take_in(Path::new(DIRECTORY), holder).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "no range of user ids could be reserved")
            .with_context("directory", DIRECTORY)
            .with_source(error)
    })?
    .ok_or_else(|| {
        let message = format!("all {LAST} ranges of user ids are taken: end some sandboxes, or run `sandbox prune`");
        Error::new(ErrorKind::QuotaExceeded, message)
    })
}

/// Gives a range back, if `holder` holds it.
pub(crate) fn give_back(number: u32, holder: &Path) {
    give_back_in(Path::new(DIRECTORY), number, holder);
}

fn give_back_in(directory: &Path, number: u32, holder: &Path) {
    let path = directory.join(number.to_string());
    if fs::read_link(&path).is_ok_and(|held_by| held_by == holder) {
        let _ = fs::remove_file(path);
    }
}

/// Gives back whatever `holder` holds, by looking at all that is taken.
pub(crate) fn give_back_all(holder: &Path) {
    for number in taken(Path::new(DIRECTORY)).unwrap_or_default() {
        give_back(number, holder);
    }
}

/// Takes the lowest free range: what the zygote prepared for one that was given back serves again.
fn take_in(directory: &Path, holder: &Path) -> io::Result<Option<u32>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let lock = fs::File::create(directory.join(".lock"))?;
    lock.lock()?;
    let mut number = lowest_free(directory)?;
    if number.is_none() {
        remove_stale(directory)?;
        number = lowest_free(directory)?;
    }
    if let Some(number) = number {
        symlink(holder, directory.join(number.to_string()))?;
    }
    Ok(number)
}

fn lowest_free(directory: &Path) -> io::Result<Option<u32>> {
    let taken = taken(directory)?;
    Ok((1..=LAST).find(|number| !taken.contains(number)))
}

fn taken(directory: &Path) -> io::Result<HashSet<u32>> {
    let mut taken = HashSet::new();
    for entry in fs::read_dir(directory)? {
        taken.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(taken)
}

/// Gives back what is held by records that are gone, with their state directory as it may be. Called under the lock.
fn remove_stale(directory: &Path) -> io::Result<()> {
    for number in taken(directory)? {
        let path = directory.join(number.to_string());
        if !path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_one_holder_until_its_record_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let ranges = directory.path().join("ranges");
        assert_eq!(take_in(&ranges, &one).unwrap(), Some(1));
        assert_eq!(take_in(&ranges, &two).unwrap(), Some(2));
        for number in 3..=LAST {
            symlink(&two, ranges.join(number.to_string())).unwrap();
        }
        assert_eq!(take_in(&ranges, &two).unwrap(), None);
        fs::remove_dir(&one).unwrap();
        assert_eq!(take_in(&ranges, &two).unwrap(), Some(1));
        assert_eq!(take_in(&ranges, &two).unwrap(), None);
    }

    #[test]
    fn a_range_is_given_back_by_its_holder_only() {
        let directory = tempfile::tempdir().unwrap();
        let (range, holder) = (directory.path().join("7"), directory.path().join("one"));
        symlink(&holder, &range).unwrap();
        give_back_in(directory.path(), 7, &directory.path().join("two"));
        assert!(range.is_symlink());
        give_back_in(directory.path(), 7, &holder);
        assert!(!range.is_symlink());
    }

    #[test]
    fn no_range_reaches_beyond_signed_numbers() {
        assert!(i32::try_from(base(LAST) + (COUNT - 1)).is_ok());
    }
}
