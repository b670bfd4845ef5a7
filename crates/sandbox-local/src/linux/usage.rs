//! What a sandbox uses, as its cgroups and its directory on disk say.

use super::{cgroup::Groups, record::STORE, zygote::Zygote};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, openat2, statat},
    io::Errno,
};
use sandbox_agent::protocol::{
    Blob,
    zygote::{Reply, Request},
};
use sandbox_core::Usage;
use std::{
    ffi::{CStr, CString},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Most files that are looked at; of a sandbox with more its use of the disk is not told.
const MOST_FILES: u64 = 500_000;

/// Most bytes of the paths of directories that are still to be looked into; a sandbox with more is as one with too many files.
const MOST_PATHS: usize = 16 << 20;

/// Bytes of a block as `stat(2)` counts them.
const BLOCK: u64 = 512;

/// Directories of changed files are its own: no link and no mount leads out of them.
const BELOW: ResolveFlags = ResolveFlags::NO_SYMLINKS
    .union(ResolveFlags::BENEATH)
    .union(ResolveFlags::NO_XDEV);

/// What the cgroups say. What no controller counts is not known.
pub(crate) fn of_groups(groups: &Groups) -> Usage {
    let mut usage = Usage::new();
    let paths: Vec<&PathBuf> = groups.v1.iter().chain(&groups.v2).collect();
    let text = |name: &str| {
        let read = |path: &&PathBuf| fs::read_to_string(path.join(name)).ok();
        paths.iter().find_map(read)
    };
    let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
    let times = text("cpu.stat");
    usage.cpu_time = times
        .and_then(|text| field(&text, "usage_usec"))
        .or_else(|| {
            // In version 1 that file says only how often it was held back.
            let own = groups.v2.as_ref()?.join("cpu.stat");
            field(&fs::read_to_string(own).ok()?, "usage_usec")
        })
        .map(Duration::from_micros);
    usage.memory = number("memory.usage_in_bytes").or_else(|| number("memory.current"));
    usage.memory_peak = number("memory.max_usage_in_bytes").or_else(|| number("memory.peak"));
    let transferred = match text("io.stat") {
        Some(text) => Some((sum(&text, "rbytes="), sum(&text, "wbytes="))),
        None => groups.v2.as_deref().and_then(of_processes),
    };
    (usage.read, usage.written) = transferred.unzip();
    usage
}

/// Bytes that the processes of a group and those below it have read from disks and written there. What has ended is in
/// the sums of those who have waited for it, and so of PID 1. `None` if that is not for us to see.
fn of_processes(group: &Path) -> Option<(u64, u64)> {
    let mut all = (0_u64, 0_u64);
    let mut groups = vec![group.to_owned()];
    while let Some(group) = groups.pop() {
        // A group may go at any time, and so may a process.
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for member in members.lines() {
            match fs::read_to_string(format!("/proc/{member}/io")) {
                Ok(text) => {
                    all.0 = all.0.saturating_add(field(&text, "read_bytes:")?);
                    all.1 = all.1.saturating_add(field(&text, "write_bytes:")?);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
                Err(_) => {}
            }
        }
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        groups.extend(below.map(|entry| entry.path()));
    }
    Some(all)
}

/// The number after `name` in a file with a name and a number in each line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines.find(|(other, _)| *other == name)?;
    number.parse().ok()
}

/// All numbers after `key`, of all devices.
fn sum(text: &str, key: &str) -> u64 {
    let words = text.split_whitespace();
    let numbers = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    numbers.fold(0, u64::saturating_add)
}

/// Bytes and number of the files that the record in this directory keeps; `None` if there are too many.
///
/// The sandbox may change them meanwhile, so it is an estimate; a file with several names counts for each.
pub(crate) fn of_disk(record: &Path) -> Option<(u64, u64)> {
    let Some(helper) = Zygote::helper() else {
        return of_disk_within(record, MOST_PATHS);
    };
    let path = Blob(record.join(STORE).as_os_str().as_bytes().to_vec());
    let most_files = MOST_FILES;
    match helper.tend(&Request::Measure { path, most_files }) {
        Ok(Reply::Measured {
            bytes,
            files,
            is_whole: true,
        }) => Some((bytes, files)),
        _ => None,
    }
}

fn of_disk_within(record: &Path, most_paths: usize) -> Option<(u64, u64)> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = |dir: &OwnedFd, path: &CStr| openat2(dir, path, directory, Mode::empty(), BELOW);
    let store = rustix::fs::openat(CWD, record.join(STORE), directory, Mode::empty()).ok()?;
    let (mut bytes, mut files) = (0, 0);
    let (mut left, mut left_bytes) = (Vec::new(), 0);
    each(&store, |name, _| {
        // The others are the kernel's own, to work in.
        if name.to_bytes().starts_with(b"u") {
            left_bytes += name.count_bytes();
            left.push(name.to_owned());
        }
    })?;
    while let Some(path) = left.pop() {
        left_bytes -= path.count_bytes();
        let opened = match open(&store, &path) {
            Ok(opened) => opened,
            // Gone or replaced meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(_) => return None,
        };
        let listed = each(&opened, |name, kind| {
            files += 1;
            if let Ok(status) = statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) {
                bytes += u64::try_from(status.st_blocks).unwrap_or(0) * BLOCK;
            }
            if kind == FileType::Directory && files < MOST_FILES && left_bytes < most_paths {
                let below = [path.to_bytes(), b"/", name.to_bytes()].concat();
                left_bytes += below.len();
                left.extend(CString::new(below));
            }
        });
        listed.filter(|()| files < MOST_FILES && left_bytes < most_paths)?;
    }
    Some((bytes, files))
}

/// Calls `each` with the name and kind of every entry of a directory.
fn each(directory: &OwnedFd, mut each: impl FnMut(&CStr, FileType)) -> Option<()> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.ok()?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            each(name, entry.file_type());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_groups_say_is_read_whatever_their_version() {
        let dir = tempfile::tempdir().unwrap();
        let group = |name: &str, files: &[(&str, &str)]| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            for (name, text) in files {
                fs::write(path.join(name), text).unwrap();
            }
            path
        };
        let cpu = group("cpu", &[("cpu.stat", "nr_periods 0\n")]);
        let memory = group("memory", &[("memory.usage_in_bytes", "4096\n")]);
        let first = group("v2", &[("cpu.stat", "usage_usec 1500\nuser_usec 1\n")]);
        let io = "8:0 rbytes=10 wbytes=3 rios=1\n8:16 rbytes=5 wbytes=4\nx rbytes=x\n";
        let second = group(
            "all",
            &[
                ("cpu.stat", "usage_usec 7\n"),
                ("memory.current", "12\n"),
                ("memory.peak", "13\n"),
                ("io.stat", io),
            ],
        );
        let groups = Groups {
            v1: vec![cpu, memory],
            v2: Some(first),
        };
        let usage = of_groups(&groups);
        assert_eq!(usage.cpu_time, Some(Duration::from_micros(1500)));
        assert_eq!((usage.memory, usage.memory_peak), (Some(4096), None));
        // Nobody lives there.
        assert_eq!((usage.read, usage.written), (Some(0), Some(0)));
        let usage = of_groups(&Groups {
            v1: Vec::new(),
            v2: Some(second),
        });
        assert_eq!((usage.memory, usage.memory_peak), (Some(12), Some(13)));
        assert_eq!((usage.read, usage.written), (Some(15), Some(7)));
        assert_eq!(of_groups(&Groups::default()), Usage::new());
    }

    #[test]
    fn only_changed_files_are_counted_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_disk(dir.path()), None);
        let store = dir.path().join(STORE);
        fs::create_dir_all(store.join("u0/a/b")).unwrap();
        fs::create_dir_all(store.join("w0/work")).unwrap();
        std::os::unix::fs::symlink("/usr", store.join("u0/link")).unwrap();
        assert_eq!(of_disk(dir.path()).unwrap().1, 3);
        fs::write(store.join("u0/a/b/file"), vec![1; 100_000]).unwrap();
        let (bytes, files) = of_disk(dir.path()).unwrap();
        assert_eq!(files, 4);
        assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn paths_that_take_much_memory_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let deep = format!("u0/{}", format!("{}/", "x".repeat(250)).repeat(10));
        let deep = dir.path().join(STORE).join(deep);
        for number in 0..20 {
            fs::create_dir_all(deep.join(number.to_string())).unwrap();
        }
        assert_eq!(of_disk_within(dir.path(), 100_000).unwrap().1, 30);
        assert_eq!(of_disk_within(dir.path(), 40_000), None);
    }
}
