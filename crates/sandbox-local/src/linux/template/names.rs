//! Names of templates: `<templates>/.names/<name>` is a link to the directory of one. A new one takes the old one's place.

use crate::linux::{record::make_private, snapshot};
use sandbox_core::{Error, Result};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

const DIRECTORY: &str = ".names";

/// Longest name.
const LONGEST: usize = 128;

/// Whether `name` can be the name of a template.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check(name: &str) -> Result<()> {
    let wrong = |message: &'static str| {
        Err(Error::invalid(message).with_context("name", name.escape_debug()))
    };
    if matches!(name, super::host::NAME | super::host::ALIAS)
        || name.starts_with("sha256:")
        || snapshot::looks_like_id(name)
    {
        return wrong("a template cannot have this name, it means another one");
    }
    let fits = |(index, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || index > 0 && b"._-:".contains(&byte)
    };
    if (1..=LONGEST).contains(&name.len()) && name.bytes().enumerate().all(fits) {
        return Ok(());
    }
    wrong(
        "a template's name has up to 128 letters, digits, `.`, `_`, `-` or `:`, and starts with a letter or digit",
    )
}

/// Gives the template in `directory` a name, which another one may have had.
pub(super) fn set(templates: &Path, name: &str, directory: &str) -> io::Result<()> {
    let names = templates.join(DIRECTORY);
    make_private(&names)?;
    let lock = fs::File::create(templates.join(".names.lock"))?;
    lock.lock()?;
    let new = names.join(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(directory, &new)?;
    fs::rename(new, names.join(name))
}

/// Takes a name away; false if there was none.
pub(super) fn remove(templates: &Path, name: &str) -> io::Result<bool> {
    if check(name).is_err() {
        return Ok(false);
    }
    match fs::remove_file(templates.join(DIRECTORY).join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// The directory of the template of this name.
pub(super) fn find(templates: &Path, name: &str) -> Option<String> {
    check(name).ok()?;
    target(&templates.join(DIRECTORY).join(name))
}

/// All names and the directories they stand for.
pub(super) fn all(templates: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(templates.join(DIRECTORY));
    let entries = entries.into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        check(&name).ok()?;
        Some((name, target(&entry.path())?))
    });
    names.collect()
}

fn target(link: &Path) -> Option<String> {
    let target: PathBuf = fs::read_link(link).ok()?;
    let name = target.to_str()?;
    super::imported::is_directory(name).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_last_template_that_got_it() {
        let templates = tempfile::tempdir().unwrap();
        let path = templates.path();
        let [one, two] = ['1', '2'].map(|digit| format!("sha256-{}", digit.to_string().repeat(64)));
        assert_eq!(find(path, "x"), None);
        set(path, "x", &one).unwrap();
        set(path, "x", &two).unwrap();
        set(path, "python:3.13", &one).unwrap();
        assert_eq!(find(path, "x"), Some(two.clone()));
        let both = [("python:3.13".to_owned(), one), ("x".to_owned(), two)];
        assert_eq!(all(path), both.into());
        assert!(remove(path, "x").unwrap());
        assert!(!remove(path, "x").unwrap());
        assert_eq!(find(path, "x"), None);
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        let long = "x".repeat(129);
        for name in [
            "",
            "host",
            "base",
            "sha256:12",
            "..",
            "a/b",
            ".x",
            "a\0",
            &long,
        ] {
            assert!(check(name).is_err(), "{name}");
            assert_eq!(find(Path::new("/"), name), None);
        }
    }
}
