//! A directory of this machine that receives files from a sandbox. Names from a sandbox are hostile: whatever they are,
//! and whatever links lie about, nothing is touched outside of the directory.

use rustix::{
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A path below a directory: one or more plain names, none of them `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Below(Vec<OsString>);

impl Below {
    /// Takes what a sandbox calls a path below a directory; `None` if it is none.
    pub(crate) fn new(path: &[u8]) -> Option<Self> {
        let names: Option<Vec<_>> = path
            .split(|byte| *byte == b'/')
            .map(|name| {
                let plain = !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
                plain.then(|| OsString::from_vec(name.to_vec()))
            })
            .collect();
        names.map(Self)
    }

    /// The path as it was written.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.join(OsStr::new("/")).into_vec()
    }

    /// How many directories lie above.
    fn depth(&self) -> usize {
        self.0.len() - 1
    }

    fn split(&self) -> (&[OsString], &OsStr) {
        match self.0.split_last() {
            Some((name, directories)) => (directories, name),
            // `new` yields at least one name, and the empty name is no file.
            None => (&[], OsStr::new("")),
        }
    }
}

impl fmt::Display for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

/// Whether a link at `path` that points to `target` stays inside the directory, given that all other links there do.
///
/// A `..` after a name could climb out through another link, so `..` is taken only at the start, where it climbs real
/// directories.
pub(crate) fn stays_inside(path: &Below, target: &[u8]) -> bool {
    if target.is_empty() || target.first() == Some(&b'/') || target.contains(&0) {
        return false;
    }
    let mut climbed = 0;
    let mut descended = false;
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if descended => return false,
            b".." => climbed += 1,
            _ => descended = true,
        }
    }
    climbed <= path.depth()
}

/// A directory of this machine.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Directory {
    /// Opens a directory where this machine's user says it is; links on the way are theirs and are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        Ok(Self(fs::openat(CWD, path, OPEN_DIRECTORY, Mode::empty())?))
    }

    /// Opens the directory above `path`, following no link.
    fn parent<'a>(&self, path: &'a Below) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (directories, name) = path.split();
        let mut directory = self.0.try_clone()?;
        for name in directories {
            directory = open_beneath(&directory, name)?;
        }
        Ok((directory, name))
    }

    /// Opens a directory below, following no link.
    pub(crate) fn enter(&self, path: &Below) -> io::Result<Self> {
        let (directory, name) = self.parent(path)?;
        Ok(Self(open_beneath(&directory, name)?))
    }

    /// Makes a directory unless there is one. Its owner can always use it, or it could not be filled.
    pub(crate) fn make_directory(&self, path: &Below, mode: u32) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(mode & 0o777) | Mode::RWXU;
        match fs::mkdirat(&directory, name, mode) {
            Err(Errno::EXIST) => open_beneath(&directory, name).map(drop),
            made => Ok(made?),
        }
    }

    /// Starts a file that takes its place once it is complete. It gets no setuid bit, and the umask holds.
    pub(crate) fn start_file(&self, path: &Below, mode: u32) -> io::Result<Partial> {
        let (directory, name) = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o777);
        let (temporary, file) = unique(|temporary| fs::openat(&directory, temporary, flags, mode))?;
        Ok(Partial {
            entry: Entry {
                directory,
                temporary,
                name: name.to_owned(),
                kept: false,
            },
            file: tokio::fs::File::from_std(file.into()),
        })
    }

    /// Makes a link, in place of a file or link of that name.
    pub(crate) fn make_link(&self, path: &Below, target: &[u8]) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        let target = OsStr::from_bytes(target);
        let (temporary, ()) = unique(|temporary| fs::symlinkat(target, &directory, temporary))?;
        Entry {
            directory,
            temporary,
            name: name.to_owned(),
            kept: false,
        }
        .keep()
    }
}

fn open_beneath(directory: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    match fs::openat(
        &directory,
        name,
        OPEN_DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    ) {
        // Linux says ENOTDIR of a link that is opened as a directory but not followed.
        Err(Errno::LOOP | Errno::NOTDIR) if is_link(&directory, name) => {
            Err(io::Error::other(format!(
                "{} is a link, and links are not followed",
                PathBuf::from(name).display()
            )))
        }
        opened => Ok(opened?),
    }
}

fn is_link(directory: impl AsFd, name: &OsStr) -> bool {
    fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_symlink())
}

/// Calls `make` with names until one is free.
fn unique<T>(make: impl Fn(&str) -> rustix::io::Result<T>) -> io::Result<(String, T)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".sandbox-cp-{}-{number}", std::process::id());
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A file on its way. Unless it is finished, nothing remains of it.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) file: tokio::fs::File,
    entry: Entry,
}

impl Partial {
    /// Gives the file its name, in place of a file or link that has it.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.entry.keep()
    }
}

/// An entry of a directory under a name for the meantime.
#[derive(Debug)]
struct Entry {
    directory: OwnedFd,
    temporary: String,
    name: OsString,
    kept: bool,
}

impl Entry {
    fn keep(mut self) -> io::Result<()> {
        fs::renameat(
            &self.directory,
            &self.temporary,
            &self.directory,
            &self.name,
        )?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.kept {
            // It may be gone with its directory.
            let _ = fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, os::unix::fs::PermissionsExt};
    use tokio::io::AsyncWriteExt;

    fn below(path: &str) -> Below {
        Below::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn hostile_names_are_no_paths_below() {
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "a//b",
            "a/",
            "./a",
            "a\0b",
        ] {
            assert_eq!(Below::new(path.as_bytes()), None, "{path:?} was taken");
        }
        assert!(Below::new(b"a/b c/...\n/\xff").is_some());
    }

    #[test]
    fn links_may_climb_real_directories_only() {
        let inside = |path, target: &str| stays_inside(&below(path), target.as_bytes());
        assert!(inside("a", "b"));
        assert!(inside("d/a", "../b"));
        assert!(inside("d/e/a", "../../b/c"));
        assert!(inside("a", "./b//c/"));
        assert!(!inside("a", "../b"));
        assert!(!inside("d/a", "../../b"));
        assert!(!inside("a", "/etc/passwd"));
        // With `up -> ..` this would be above the directory.
        assert!(!inside("d/a", "up/../x"));
        assert!(!inside("a", ""));
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("trap")).unwrap();
        let directory = Directory::open(inside.path()).unwrap();
        for error in [
            directory
                .start_file(&below("trap/x"), 0o644)
                .map(drop)
                .unwrap_err(),
            directory
                .make_directory(&below("trap/x"), 0o755)
                .unwrap_err(),
            directory.make_directory(&below("trap"), 0o755).unwrap_err(),
            directory.make_link(&below("trap/x"), b"y").unwrap_err(),
            directory.enter(&below("trap")).map(drop).unwrap_err(),
        ] {
            assert!(error.to_string().contains("trap is a link"), "{error}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_appears_when_it_is_complete_and_replaces_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "safe").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join("x")).unwrap();
        let target = Directory::open(directory.path()).unwrap();
        let mut partial = target.start_file(&below("x"), 0o4755).unwrap();
        partial.file.write_all(b"new").await.unwrap();
        partial.file.flush().await.unwrap();
        assert_eq!(
            fs::read_to_string(directory.path().join("x")).unwrap(),
            "safe"
        );
        partial.finish().unwrap();
        let info = fs::symlink_metadata(directory.path().join("x")).unwrap();
        assert!(info.is_file());
        assert_eq!(info.permissions().mode() & 0o7700, 0o700);
        assert_eq!(fs::read_to_string(victim).unwrap(), "safe");
    }

    #[tokio::test]
    async fn nothing_remains_of_a_file_that_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let target = Directory::open(directory.path()).unwrap();
        drop(target.start_file(&below("x"), 0o644).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_is_not_replaced_by_a_file_or_link() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        let target = Directory::open(directory.path()).unwrap();
        target.make_directory(&below("d"), 0o755).unwrap();
        assert!(target.make_link(&below("d"), b"x").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn any_path_below_stays_below(path in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(below) = Below::new(&path) {
                let joined: PathBuf = below.0.iter().collect();
                prop_assert_eq!(below.to_bytes(), path);
                prop_assert!(joined.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }

        #[test]
        fn links_that_stay_inside_do_so_in_any_combination(
            links in prop::collection::btree_map("[ab]/[ab]/[lm]|[ab]/[lm]|[lm]", "((\\.\\.|[ab]|[lm])/){0,4}(\\.\\.|[ab]|[lm])", 1..6),
        ) {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("root");
            for path in ["a/a", "a/b", "b/a", "b/b"] {
                fs::create_dir_all(root.join(path)).unwrap();
            }
            let directory = Directory::open(&root).unwrap();
            let kept: Vec<_> = links
                .iter()
                .filter(|(path, target)| stays_inside(&below(path), target.as_bytes()))
                .collect();
            for (path, target) in &kept {
                directory.make_link(&below(path), target.as_bytes()).unwrap();
            }
            let real = root.canonicalize().unwrap();
            for (path, _) in kept {
                if let Ok(reached) = root.join(path).canonicalize() {
                    prop_assert!(reached.starts_with(&real), "{path} leads to {}", reached.display());
                }
            }
        }
    }
}
