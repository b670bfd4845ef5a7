//! Ranges of host uids: each living sandbox has one of its own, whichever program made it.
//!
//! `/run/sandbox/ranges/N` names the record that holds range N. The directory belongs to the machine, not to a state
//! directory, because uids do. A holder whose record is gone holds nothing.

use sandbox_core::{Error, ErrorKind, Result};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Owner of all stored files: range 0.
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
    let path = Path::new(DIRECTORY).join(number.to_string());
    if fs::read(&path).is_ok_and(|bytes| bytes == holder.as_os_str().as_encoded_bytes()) {
        let _ = fs::remove_file(path);
        // The next search starts here: what the zygote prepared for this range serves again.
        let _ = fs::write(Path::new(DIRECTORY).join(".next"), (number - 1).to_string());
    }
}

/// Gives back whatever `holder` holds, by looking at all that is taken.
pub(crate) fn give_back_all(holder: &Path) {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    for number in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        give_back(number, holder);
    }
}

fn take_in(directory: &Path, holder: &Path) -> io::Result<Option<u32>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let lock = fs::File::create(directory.join(".lock"))?;
    lock.lock()?;
    // Start where the last search ended, so that a busy machine does not look at every range each time.
    let hint = fs::read_to_string(directory.join(".next"))
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    for step in 0..LAST {
        let number = (hint + step) % LAST + 1;
        let path = directory.join(number.to_string());
        if is_free(&path)? {
            fs::write(&path, holder.as_os_str().as_encoded_bytes())?;
            fs::write(directory.join(".next"), (number % LAST).to_string())?;
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn is_free(path: &PathBuf) -> io::Result<bool> {
    use std::os::unix::ffi::OsStringExt;
    match fs::read(path) {
        Ok(holder) => Ok(!Path::new(&std::ffi::OsString::from_vec(holder)).exists()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
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
        let first = take_in(&ranges, &one).unwrap().unwrap();
        let second = take_in(&ranges, &two).unwrap().unwrap();
        assert_ne!(first, second);
        fs::remove_dir(&one).unwrap();
        let all: Vec<_> = (1..LAST).map(|_| take_in(&ranges, &two).unwrap()).collect();
        assert!(all.contains(&Some(first)));
        assert_eq!(take_in(&ranges, &two).unwrap(), None);
    }

    #[test]
    fn no_range_reaches_beyond_signed_numbers() {
        assert!(i32::try_from(base(LAST) + (COUNT - 1)).is_ok());
    }
}
