//! What of the host is nobody's business: recognises it, and hides it under an overlay layer.
//!
//! A sandbox's root sees the host's files as its own, so the host's permissions do not protect them inside: what only some
//! users of the host may read must not be in any layer.

use super::{can_give_files, host::make_directory};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Whether every user of the host may read it: a file's contents, a directory's entries.
pub(super) fn is_open(metadata: &Metadata) -> bool {
    let others = metadata.permissions().mode() & 0o007;
    if metadata.is_dir() {
        others & 0o5 == 0o5
    } else {
        others & 0o4 == 0o4
    }
}

/// Whether every user of the host may read the entry `path` itself, through all the directories above it, wherever links
/// among these lead.
pub(super) fn is_public(path: &Path) -> bool {
    let entry = fs::symlink_metadata(path);
    let above = path.parent().map(fs::canonicalize);
    let open = |path: &Path| fs::metadata(path).is_ok_and(|metadata| is_open(&metadata));
    entry.is_ok_and(|metadata| metadata.is_symlink() || is_open(&metadata))
        && above.is_none_or(|above| above.is_ok_and(|above| above.ancestors().all(open)))
}

/// Whether some text in it has the form of an address with a user, who may be a token: `://token@` or
/// `://user:password@`.
pub(super) fn holds_password(contents: &[u8]) -> bool {
    let mut rest = contents;
    while let Some(at) = rest.windows(3).position(|window| window == b"://") {
        rest = &rest[at + 3..];
        let authority = rest
            .split(|byte| b"/?# \t\r\n\"'<>()".contains(byte))
            .next();
        let user = authority.and_then(|text| text.iter().position(|byte| *byte == b'@'));
        if user.is_some_and(|length| length > 0) {
            return true;
        }
    }
    false
}

/// Makes `directory`, of an overlay layer, hide what the layers below have at its place.
pub(super) fn hide_contents(directory: &Path) -> io::Result<()> {
    // As the overlay that the layer is for looks for it.
    let name = if can_give_files() {
        "trusted.overlay.opaque"
    } else {
        "user.overlay.opaque"
    };
    Ok(rustix::fs::setxattr(
        directory,
        name,
        b"y",
        XattrFlags::empty(),
    )?)
}

/// Puts a whiteout into `layer` for all below `tree` that some users of the host may not read, but for the entries of
/// `tree` named in `skip`. What goes away meanwhile needs none.
///
/// With `all_directories` the layer gets all that are shown, so that they are its owner's.
pub(super) fn hide_unreadable(
    tree: &Path,
    layer: &Path,
    skip: &[&str],
    all_directories: bool,
) -> io::Result<()> {
    let entries = match fs::read_dir(tree) {
        // Everybody may read it but us.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if let (Some(above_tree), Some(above_layer)) = (tree.parent(), layer.parent()) {
                make_parents(above_tree, above_layer)?;
            }
            return hide(layer);
        }
        entries => unless_gone(entries)?,
    };
    let Some(entries) = entries else {
        return Ok(());
    };
    if all_directories {
        make_parents(tree, layer)?;
    }
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if skip.iter().any(|skip| name == *skip) {
            continue;
        }
        let Some(metadata) = unless_gone(entry.metadata())?.filter(|found| !found.is_symlink())
        else {
            continue;
        };
        let target = layer.join(&name);
        if !is_open(&metadata) {
            make_parents(tree, layer)?;
            hide(&target)?;
        } else if metadata.is_dir() {
            hide_unreadable(&entry.path(), &target, &[], all_directories)?;
        }
    }
    Ok(())
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// The layer's directory takes the permissions of the one it lies on, because those are what is shown.
fn make_parents(tree: &Path, layer: &Path) -> io::Result<()> {
    if !layer.exists() {
        if let (Some(above_tree), Some(above_layer)) = (tree.parent(), layer.parent()) {
            make_parents(above_tree, above_layer)?;
        }
        make_directory(layer, fs::metadata(tree)?.permissions().mode() & 0o7777)?;
    }
    Ok(())
}

/// A whiteout: a character device of number 0.
fn hide(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mknodat(
        CWD,
        path,
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_seen() {
        assert!(holds_password(
            b"deb https://user:secret@host/debian stable main"
        ));
        assert!(holds_password(b"a\nb://x:y@z"));
        assert!(holds_password(
            b"deb https://ghp_abc123@host/debian stable main"
        ));
        assert!(!holds_password(
            b"see <https://host> or me@host, or ://@host"
        ));
        assert!(!holds_password(b"deb https://host:8080/debian stable"));
        assert!(!holds_password(b"mail a:b@c"));
        assert!(!holds_password(b"https://host/path:with@sign"));
    }

    #[test]
    fn what_others_cannot_read_is_not_open() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        fs::write(&file, "secret").unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open(&fs::metadata(&file).unwrap()), open, "{mode:o}");
        }
        // The file is open, but the directory above is not.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(!is_public(&file));
    }

    #[test]
    fn links_open_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(directory.path(), 0o755);
        let [closed, link] = ["closed", "link"].map(|name| directory.path().join(name));
        fs::create_dir_all(closed.join("apt")).unwrap();
        fs::write(closed.join("apt/list"), "secret").unwrap();
        std::os::unix::fs::symlink("closed/apt", &link).unwrap();
        assert!(is_public(&link.join("list")));
        set_mode(&closed, 0o700);
        assert!(!is_public(&link.join("list")));
        // The link as such is everybody's to see.
        assert!(is_public(&link));
    }
}
