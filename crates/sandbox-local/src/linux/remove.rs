//! Removes a tree that hostile code has made: however deep and wide it is, it takes no more than two descriptors, no
//! recursion, and some bytes a level.
//!
//! Every step is relative to an open directory and follows no link, so that the walk stays in the tree even if somebody
//! still changes it. The way back up is `..`, which must then be the directory that the walk came from. Directories that
//! their owner, who is no other than us, may not change are opened up first.

use super::zygote::Zygote;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, chmod, fchmod, fstat,
        openat2, seek, unlinkat,
    },
    io::Errno,
};
use sandbox_agent::protocol::{Blob, zygote::Request};
use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// How often a directory may turn out to have entries again before the removal gives up.
const PASSES: u32 = 100;

/// Within the tree no link and no mount leads anywhere.
pub(crate) const BELOW: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_XDEV);

/// Bytes of names that are read at a time: few, for they are read again after each directory that was entered.
const BUFFER: usize = 4096;

/// Removes what is at `path`, be it a directory with all that is in it. It is no error if there is nothing.
///
/// What belongs to subordinate ids is removed by a process that may, unless `path` would be another place there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let is_same_there = path.is_absolute() && !path.starts_with("/proc");
    match remove_own(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_same_there => {
            match Zygote::helper() {
                Some(helper) => {
                    let path = Blob(path.as_os_str().as_bytes().to_vec());
                    helper.tend(&Request::Remove { path }).map(drop)
                }
                None => Err(error),
            }
        }
        removed => removed,
    }
}

fn remove_own(path: &Path) -> io::Result<()> {
    let top = CString::new(path.as_os_str().as_bytes())?;
    for _ in 0..PASSES {
        match remove(CWD, path, FileType::Unknown) {
            Err(Errno::NOTEMPTY) => {}
            Err(Errno::NOENT) => return Ok(()),
            removed => return Ok(removed?),
        }
        match open(CWD, &top, ResolveFlags::empty()) {
            Ok(directory) => match empty(directory) {
                // What a directory says that somebody else removes while the walk is in it, by the file system.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::NOENT | Errno::INVAL)
                    ) => {}
                emptied => emptied?,
            },
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

/// A directory that the walk is in, or was in on its way down.
struct Level {
    /// Of it in its parent.
    name: CString,
    id: (u64, u64),
    /// Before the first entry that was not looked at.
    position: u64,
    /// How often it had entries again.
    passes: u32,
}

impl Level {
    fn new(directory: BorrowedFd<'_>, name: CString) -> io::Result<Self> {
        Ok(Self {
            name,
            id: open_up(directory)?,
            position: 0,
            passes: 0,
        })
    }
}

/// Removes what is in a directory. Where somebody makes new entries meanwhile, these may be left.
fn empty(root: OwnedFd) -> io::Result<()> {
    let mut levels = vec![Level::new(root.as_fd(), CString::default())?];
    let mut directory = root;
    while let Some(level) = levels.last_mut() {
        if let Some((name, after)) = clear(directory.as_fd(), level.position)? {
            level.position = after;
            match open(directory.as_fd(), &name, BELOW) {
                Ok(below) => {
                    levels.push(Level::new(below.as_fd(), name)?);
                    directory = below;
                }
                // It has become something else. If that is still there in the end, there is another pass.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno.into()),
            }
        } else if let [.., parent, level] = &mut *levels {
            let up = open(directory.as_fd(), c"..", BELOW)?;
            if identity(up.as_fd())? != parent.id {
                // It was moved elsewhere meanwhile.
                return Err(Errno::STALE.into());
            }
            match remove(up.as_fd(), &*level.name, FileType::Directory) {
                Err(Errno::NOTEMPTY) if level.passes < PASSES => {
                    level.position = 0;
                    level.passes += 1;
                    continue;
                }
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            levels.pop();
            directory = up;
        } else {
            break;
        }
    }
    Ok(())
}

/// Removes the entries from `position` on up to the first directory that is not empty; returns that one's name and the
/// position after it.
fn clear(directory: BorrowedFd<'_>, position: u64) -> io::Result<Option<(CString, u64)>> {
    seek(directory, SeekFrom::Start(position))?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match remove(directory, name, entry.file_type()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY) => return Ok(Some((name.to_owned(), entry.next_entry_cookie()))),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(None)
}

/// Removes one entry, whatever it is; `NOTEMPTY` if it is a directory that has entries.
fn remove<P: rustix::path::Arg + Copy>(
    directory: BorrowedFd<'_>,
    name: P,
    kind: FileType,
) -> rustix::io::Result<()> {
    let as_directory = || match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Err(Errno::EXIST) => Err(Errno::NOTEMPTY),
        removed => removed,
    };
    let as_file = || unlinkat(directory, name, AtFlags::empty());
    match kind {
        FileType::Directory => match as_directory() {
            Err(Errno::NOTDIR) => as_file(),
            removed => removed,
        },
        _ => match as_file() {
            Err(Errno::ISDIR) => as_directory(),
            removed => removed,
        },
    }
}

fn open(
    directory: BorrowedFd<'_>,
    name: &CStr,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags| openat2(directory, name, flags, Mode::empty(), resolve);
    match open(flags) {
        Err(Errno::ACCESS) => {
            let place =
                open(OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
            // A descriptor that is only a place has no other way to its permissions.
            chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), Mode::RWXU)?;
            open(flags)
        }
        opened => opened,
    }
}

/// Sees to it that entries of a directory can be removed; returns its identity.
fn open_up(directory: BorrowedFd<'_>) -> rustix::io::Result<(u64, u64)> {
    let status = fstat(directory)?;
    if !Mode::from_raw_mode(status.st_mode).contains(Mode::RWXU) {
        fchmod(directory, Mode::RWXU)?;
    }
    Ok((status.st_dev, status.st_ino))
}

fn identity(directory: BorrowedFd<'_>) -> rustix::io::Result<(u64, u64)> {
    fstat(directory).map(|status| (status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{mkdirat, mknodat};
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        thread,
    };

    const DEEP: usize = 20_000;

    /// Makes directories in each other, more than a path can name.
    fn nest(top: &Path, levels: usize) {
        let top = CString::new(top.as_os_str().as_bytes()).unwrap();
        let mut directory = open(CWD, &top, ResolveFlags::empty()).unwrap();
        for _ in 0..levels {
            mkdirat(&directory, c"d", Mode::RWXU).unwrap();
            directory = open(directory.as_fd(), c"d", BELOW).unwrap();
        }
        mkdirat(&directory, c"f", Mode::RWXU).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_stack_and_descriptors_reach_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir(&top).unwrap();
        nest(&top, DEEP);
        let small = thread::Builder::new().stack_size(64 * 1024);
        let remove = small.spawn(move || remove_tree(&top).map(|()| top));
        let top = remove.unwrap().join().unwrap().unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_wide_tree_of_all_kinds_goes_away_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (top, other) = (directory.path().join("top"), directory.path().join("other"));
        for number in 0..1000 {
            let below = top.join(format!("{number}-{}", "x".repeat(number % 200)));
            fs::create_dir_all(below.join("a/b")).unwrap();
            fs::create_dir_all(below.join("c")).unwrap();
            fs::write(below.join("a/b/file"), "").unwrap();
            symlink(&other, below.join("a/link")).unwrap();
            mknodat(CWD, below.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        }
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "").unwrap();
        fs::set_permissions(top.join("0-"), PermissionsExt::from_mode(0o000)).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert!(other.join("file").exists());
    }

    #[test]
    fn several_who_remove_the_same_tree_all_succeed() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        for _ in 0..200 {
            fs::create_dir_all(top.join("a/b")).unwrap();
            fs::create_dir_all(top.join("c/d")).unwrap();
            let removed: Vec<_> = thread::scope(|scope| {
                let remove = || remove_tree(&top);
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(remove)).collect();
                let results = threads.into_iter().map(|thread| thread.join().unwrap());
                results.collect()
            });
            assert!(removed.iter().all(io::Result::is_ok), "{removed:?}");
            assert!(!top.exists());
        }
    }

    #[test]
    fn what_is_no_directory_is_removed_itself() {
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        symlink(directory.path(), &link).unwrap();
        fs::write(&file, "").unwrap();
        remove_tree(&link).unwrap();
        assert!(file.exists() && !link.is_symlink());
        remove_tree(&file).unwrap();
        assert!(!file.exists());
        remove_tree(&file).unwrap();
    }
}
