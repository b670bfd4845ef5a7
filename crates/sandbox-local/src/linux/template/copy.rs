//! Copies host files into a template, but only what every user of the host may read.

use super::{host::make_directory, secrets};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

/// A file larger than this is no configuration, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Copies `path` and what is below it to the same place in `root`. Links are copied as links. What others may not
/// read, what `never` names, and what holds a password in an address is left out; everything becomes root's.
///
/// With `share`, files are hard links where that is possible: for large trees whose files are replaced and not edited.
pub(super) fn copy(path: &Path, root: &Path, never: &[&str], share: bool) -> io::Result<()> {
    if !secrets::is_public(path) {
        return Ok(());
    }
    let Some(name) = path.strip_prefix("/").ok() else {
        return Ok(());
    };
    if let Some(parent) = root.join(name).parent().filter(|parent| !parent.exists()) {
        make_directory(parent, 0o755)?;
    }
    copy_below(path, root, never, share)
}

/// `None` for what everybody may read but us.
fn readable<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        result => result.map(Some),
    }
}

fn copy_below(path: &Path, root: &Path, never: &[&str], share: bool) -> io::Result<()> {
    if never.iter().any(|never| Path::new(never) == path) {
        return Ok(());
    }
    let Ok(name) = path.strip_prefix("/") else {
        return Ok(());
    };
    let target = root.join(name);
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if metadata.is_symlink() {
        return symlink(fs::read_link(path)?, target);
    }
    if !secrets::is_open(&metadata) {
        return Ok(());
    }
    if metadata.is_dir() {
        make_directory(&target, metadata.permissions().mode() & 0o777)?;
        for entry in readable(fs::read_dir(path))?.into_iter().flatten() {
            copy_below(&entry?.path(), root, never, share)?;
        }
    } else if metadata.is_file() && metadata.len() <= LARGEST {
        if share && fs::hard_link(path, &target).is_ok() {
            return Ok(());
        }
        let Some(contents) = readable(fs::read(path))? else {
            return Ok(());
        };
        if !secrets::holds_password(&contents) {
            fs::write(&target, contents)?;
            // Without the bits that would run it as somebody else.
            fs::set_permissions(
                &target,
                fs::Permissions::from_mode(metadata.permissions().mode() & 0o777),
            )?;
        }
    }
    Ok(())
}
