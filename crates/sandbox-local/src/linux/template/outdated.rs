//! Removes templates that the machine has outlived, but never one that a sandbox stands on.
//!
//! A sandbox's record names its template's directory. Until the record is written, its maker holds a shared lock on that
//! directory, and nobody removes one without its exclusive lock.

use crate::linux::remove::remove_tree;
use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// What the name of a directory begins with that is being removed.
const GOING: &str = ".old-";

/// The names that records have; `None` if that cannot be told, and then all may be in use.
pub(crate) type InUse = Option<HashSet<String>>;

/// Keeps the template at `path` from being removed; `None` if it was already.
pub(crate) fn hold(path: &Path) -> io::Result<Option<File>> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    };
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(error) => return gone(error),
    };
    lock.lock_shared()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.ino() == lock.metadata()?.ino()).then_some(lock)),
        Err(error) => gone(error),
    }
}

/// Names of all templates called `kind`; none of those that several state directories share by a link, since other
/// records than ours may name them.
pub(super) fn all(templates: &Path, kind: &str) -> Vec<String> {
    if templates.is_symlink() {
        return Vec::new();
    }
    let entries = fs::read_dir(templates).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_one = |name: &String| {
        let key = name.strip_prefix(kind);
        key.is_some_and(|key| key.starts_with('-'))
    };
    names.filter(is_one).collect()
}

/// Those of [`all`] that are neither the `current` one nor in use.
pub(super) fn list(templates: &Path, kind: &str, current: &str, used: &InUse) -> Vec<String> {
    let Some(used) = used else {
        return Vec::new();
    };
    let mut names = all(templates, kind);
    names.retain(|name| name != current && !used.contains(name));
    names
}

/// Removes those of [`list`], and what an earlier removal has left; returns their names.
pub(super) fn remove(
    templates: &Path,
    kind: &str,
    current: &str,
    used: &dyn Fn() -> InUse,
) -> Vec<String> {
    let mut names = list(templates, kind, current, &used());
    names.retain(|name| {
        remove_one(templates, name, used, &mut || Ok(())).unwrap_or_else(|error| {
            tracing::warn!(name, %error, "a template that is out of date could not be removed");
            false
        })
    });
    names
}

/// Removes the template in the directory `name` unless it is in use, after `before`; false if it is.
pub(super) fn remove_one(
    templates: &Path,
    name: &str,
    used: &dyn Fn() -> InUse,
    before: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<bool> {
    let (path, going) = (
        templates.join(name),
        templates.join(format!("{GOING}{name}")),
    );
    remove_tree(&going)?;
    let lock = File::open(&path)?;
    // Whoever has held it until now has written a record.
    if lock.try_lock().is_err() || used().is_none_or(|used| used.contains(name)) {
        return Ok(false);
    }
    // Somebody else may have removed it before the lock was ours, and a third one have made it anew.
    if fs::metadata(&path).map(|found| found.ino()).ok() != Some(lock.metadata()?.ino()) {
        return Ok(false);
    }
    before()?;
    fs::rename(&path, &going)?;
    remove_tree(&going)?;
    Ok(true)
}

/// What removals have left that were ended; with `only_look` it is but found.
pub(super) fn sweep(templates: &Path, only_look: bool) -> Vec<String> {
    let entries = fs::read_dir(templates).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut left: Vec<String> = names.filter(|name| name.starts_with(GOING)).collect();
    left.retain(|name| only_look || remove_tree(&templates.join(name)).is_ok());
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(names: &[&str]) -> InUse {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn what_is_held_or_named_or_current_stays() {
        let templates = tempfile::tempdir().unwrap();
        for name in ["host-1", "host-2", "host-3", "host-4", "hosts", "other-1"] {
            fs::create_dir_all(templates.path().join(name).join("root/etc")).unwrap();
        }
        let held = hold(&templates.path().join("host-3")).unwrap();
        assert!(held.is_some());
        let remove = |used: InUse| {
            let mut removed = remove(templates.path(), "host", "host-1", &|| used.clone());
            removed.sort();
            removed
        };
        assert_eq!(remove(None), Vec::<String>::new());
        assert_eq!(remove(in_use(&["host-2"])), ["host-4"]);
        assert!(!templates.path().join("host-4").exists());
        drop(held);
        assert_eq!(remove(in_use(&["host-2"])), ["host-3"]);
        assert_eq!(remove(in_use(&[])), ["host-2"]);
        let left = fs::read_dir(templates.path()).unwrap().count();
        assert_eq!(left, ["host-1", "hosts", "other-1"].len());
    }

    #[test]
    fn one_that_was_made_anew_meanwhile_stays() {
        let templates = tempfile::tempdir().unwrap();
        let path = templates.path().join("host-1");
        fs::create_dir(&path).unwrap();
        let held = std::cell::Cell::new(None);
        let used = || {
            fs::rename(&path, templates.path().join("elsewhere")).unwrap();
            fs::create_dir(&path).unwrap();
            held.set(hold(&path).unwrap());
            in_use(&[])
        };
        let removed = remove_one(templates.path(), "host-1", &used, &mut || Ok(()));
        assert!(!removed.unwrap());
        assert!(path.exists() && held.take().is_some());
    }

    #[test]
    fn what_was_removed_is_not_held() {
        let templates = tempfile::tempdir().unwrap();
        let path = templates.path().join("host-1");
        assert!(hold(&path).unwrap().is_none());
        fs::create_dir(&path).unwrap();
        let first = hold(&path).unwrap().unwrap();
        // Several may hold it.
        assert!(hold(&path).unwrap().is_some());
        drop(first);
    }

    #[test]
    fn what_is_shared_with_others_is_left_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let [templates, link] = ["shared", "templates"].map(|name| directory.path().join(name));
        fs::create_dir_all(templates.join("host-1")).unwrap();
        std::os::unix::fs::symlink(&templates, &link).unwrap();
        assert_eq!(all(&templates, "host"), ["host-1"]);
        assert_eq!(all(&link, "host"), Vec::<String>::new());
    }

    #[test]
    fn one_that_is_named_while_it_is_being_removed_stays() {
        let templates = tempfile::tempdir().unwrap();
        fs::create_dir(templates.path().join("host-1")).unwrap();
        let asked = std::cell::Cell::new(0);
        let used = || {
            asked.set(asked.get() + 1);
            // The record appears between the two looks.
            in_use(if asked.get() == 1 { &[] } else { &["host-1"] })
        };
        assert!(remove(templates.path(), "host", "", &used).is_empty());
        assert!(templates.path().join("host-1").exists());
    }
}
