//! Where a sandbox's changed files are kept, by what must hold of them.
//!
//! A plain directory has no limits. A file system in memory has both, on bytes and on files; what lies there counts as memory
//! of the sandbox, so that it may be no larger than half of that: a full disk is then an error to whoever writes, and never
//! the end of a process for want of memory. What is larger goes into a btrfs of our own, where the machine can make one.

use super::{disk, host::Host};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
};
use sandbox_core::Limits;
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

/// What holds the changed files of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Store {
    /// A directory among the others, without limits.
    #[default]
    Directory,
    /// A file system in memory.
    Memory,
    /// A part of a file system of our own.
    Subvolume,
}

/// First kernel with file systems in memory whose owners can be mapped.
const MAPPED_MEMORY: (u32, u32) = (6, 3);

/// Bytes for each file where no number of them is asked for: an empty one takes about a kilobyte of the kernel's memory.
const BYTES_A_FILE: u64 = 4096;
const FILES: std::ops::RangeInclusive<u64> = 256..=1 << 20;

/// Files that are not the sandbox's own: the root of the store, and three directories for each tree, of 16 at most.
const OWN_FILES: u64 = 1 + 3 * 16;

/// Least that a file system in memory is made for.
const SMALLEST: u64 = 64 * 1024;

/// Least that btrfs counts well, which needs room for what it knows of the files as well.
const SMALLEST_SUBVOLUME: u64 = 64 * 1024 * 1024;

/// Names of the directories in a store that a tree's changed files are in and that the kernel works in. They change with
/// each generation: the files of earlier ones have become a layer that others share.
pub(crate) fn names(tree: usize, generation: u32) -> [String; 2] {
    let generation = match generation {
        0 => String::new(),
        later => format!(".{later}"),
    };
    ["u", "w"].map(|kind| format!("{kind}{tree}{generation}"))
}

/// Gives a directory the owner and permissions of another one. The zygote of an ordinary user sees to owners itself.
pub(crate) fn make_alike(path: &Path, like: &Path) -> io::Result<()> {
    let like = fs::metadata(like)?;
    if rustix::process::geteuid().is_root() {
        chown(path, Some(like.uid()), Some(like.gid()))?;
    }
    fs::set_permissions(path, like.permissions())
}

impl Store {
    /// The store that carries the limits on disk and inodes among these.
    ///
    /// # Errors
    /// Why there is none, and what would help.
    pub(crate) fn choose(host: &Host, limits: &Limits) -> Result<Self, String> {
        let disk = match (limits.disk, limits.inodes) {
            (None, None) => return Ok(Self::Directory),
            (None, Some(_)) => {
                return Err("files are counted only with a limit on disk, too".into());
            }
            (Some(disk), _) => disk,
        };
        if !host.is_root {
            return Err("only root can make a file system for it".into());
        }
        if host.kernel < MAPPED_MEMORY {
            return Err("it needs Linux 6.3 or newer".into());
        }
        if disk < SMALLEST {
            return Err(format!("it must be at least {SMALLEST} bytes"));
        }
        match limits.memory {
            Some(memory) if disk <= memory / 2 => Ok(Self::Memory),
            _ if host.btrfs && limits.inodes.is_none() && disk >= SMALLEST_SUBVOLUME => {
                Ok(Self::Subvolume)
            }
            Some(memory) => Err(format!(
                "files are kept in memory for it, of which it may be half: ask for at most {} bytes, or for more memory{}",
                memory / 2,
                larger(host, limits)
            )),
            None => Err(format!(
                "files are kept in memory for it, of which it may be half, and no limit on memory holds{}",
                larger(host, limits)
            )),
        }
    }

    /// How it holds limits, for people.
    pub(crate) fn carrier(self) -> &'static str {
        match self {
            Self::Directory => "a plain directory, which has no quota",
            Self::Memory => "a file system in memory, which counts as memory of the sandbox",
            Self::Subvolume => "a quota in a btrfs of our own",
        }
    }

    /// Gets the directory `path` of the sandbox `id` ready, which is empty.
    pub(crate) fn attach(
        self,
        path: &Path,
        state: &Path,
        id: &str,
        limits: &Limits,
    ) -> io::Result<()> {
        match self {
            Self::Directory => Ok(()),
            Self::Memory => attach_memory(path, limits),
            Self::Subvolume => {
                let subvolume = disk::make(state, id, limits.disk.unwrap_or_default())?;
                Ok(mount_bind(subvolume, path)?)
            }
        }
    }
}

/// What would make larger disks possible.
fn larger(host: &Host, limits: &Limits) -> &'static str {
    match (host.btrfs, limits.inodes) {
        (false, None) => "; with the package btrfs-progs (and loop devices) a disk can be larger",
        (_, Some(_)) => "; without a limit on inodes a disk can be larger",
        (true, None) => "",
    }
}

fn attach_memory(path: &Path, limits: &Limits) -> io::Result<()> {
    let bytes = limits.disk.unwrap_or_default();
    let usual = (bytes / BYTES_A_FILE).clamp(*FILES.start(), *FILES.end());
    let files = limits.inodes.unwrap_or(usual).saturating_add(OWN_FILES);
    let options = CString::new(format!(
        "mode=0700,size={bytes},nr_inodes={files},huge=never"
    ))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    Ok(mount("sandbox", path, "tmpfs", flags, &*options)?)
}

/// Takes away what may be attached to the directory of a store. It is no error if nothing is.
pub(crate) fn detach(path: &Path) -> io::Result<()> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // More than one has no reason to be there, and would be in the way.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Removes what overlays keep for themselves in the working directories of a store, which is most of what there is
/// after a short life. It takes six calls where a walk that knows nothing takes fifty; what is left is for that walk.
pub(crate) fn clear(path: &Path) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(store) = openat(CWD, path, flags, Mode::empty()) else {
        return;
    };
    // Nobody in a sandbox reaches these.
    let kept = ["work/incompat/volatile", "work/incompat", "work", ""];
    let clear_one = |work: &str| -> rustix::io::Result<()> {
        let dirty = format!("{work}/{}/dirty", kept[0]);
        unlinkat(&store, dirty, AtFlags::empty())?;
        kept.iter()
            .try_for_each(|kept| unlinkat(&store, format!("{work}/{kept}"), AtFlags::REMOVEDIR))
    };
    let _ = (0..).try_for_each(|index| {
        let [_, work] = names(index, 0);
        clear_one(&work)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn host() -> Host {
        Host {
            is_root: true,
            kernel: (6, 18),
            ..Host::default()
        }
    }

    #[test]
    fn memory_is_taken_for_what_fits_into_half_of_it() {
        let limits = Limits::new().memory(64 * MIB);
        assert_eq!(Store::choose(&host(), &limits), Ok(Store::Directory));
        let fits = limits.disk(32 * MIB);
        assert_eq!(Store::choose(&host(), &fits), Ok(Store::Memory));
        assert_eq!(Store::choose(&host(), &fits.inodes(10)), Ok(Store::Memory));
        let refused = [
            limits.disk(32 * MIB + 1),
            limits.disk(1),
            limits.inodes(10),
            Limits::new().disk(MIB),
        ];
        for limits in refused {
            assert!(Store::choose(&host(), &limits).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn what_is_larger_goes_into_a_btrfs_if_there_can_be_one() {
        let mut host = host();
        let limits = Limits::new().memory(64 * MIB).disk(1024 * MIB);
        let reason = Store::choose(&host, &limits).unwrap_err();
        assert!(reason.contains("btrfs-progs"), "{reason}");
        host.btrfs = true;
        assert_eq!(Store::choose(&host, &limits), Ok(Store::Subvolume));
        assert_eq!(
            Store::choose(&host, &Limits::new().disk(1024 * MIB)),
            Ok(Store::Subvolume)
        );
        assert!(Store::choose(&host, &limits.inodes(10)).is_err());
        assert!(Store::choose(&host, &limits.disk(33 * MIB)).is_err());
    }

    #[test]
    fn a_machine_that_cannot_says_so() {
        let limits = Limits::new().memory(64 * MIB).disk(MIB);
        let lacks: [fn(&mut Host); 2] = [|host| host.is_root = false, |host| host.kernel = (6, 1)];
        for take in lacks {
            let mut host = host();
            take(&mut host);
            assert!(Store::choose(&host, &limits).is_err());
        }
    }

    #[test]
    fn nothing_to_detach_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        detach(directory.path()).unwrap();
        detach(&directory.path().join("gone")).unwrap();
    }
}
