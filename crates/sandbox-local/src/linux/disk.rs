//! A file system of our own for disks that do not fit into memory: a btrfs in a sparse file, which takes only the room that
//! is used, with a subvolume and a quota for each sandbox. A snapshot of a subvolume takes no time, whatever is in it.
//!
//! `<state>/disk.img` is mounted on `<state>/disk` from the first sandbox that needs it on. Who makes something in it holds
//! `<state>/disk.lock`, shared; who takes it away needs the lock alone, and does so when nothing is left in it.
//!
//! It is made no larger than the room that the machine has, so that who fills it gets an error. Where somebody else has
//! taken that room since, the kernel gives the file system up for writing, for all sandboxes in it. When these are gone it is
//! mounted anew, with what was on disk, so that no more than they are lost.

use super::record::make_private;
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    mount::{UnmountFlags, unmount},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Name of the directory in which it is mounted.
pub(crate) const DIRECTORY: &str = "disk";
const IMAGE: &str = "disk.img";
/// The image while it is being made.
const NEW: &str = "disk.new";
const LOCK: &str = "disk.lock";

/// Programs of btrfs-progs and util-linux that it takes.
const PROGRAMS: [&str; 3] = ["mkfs.btrfs", "btrfs", "mount"];
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Smallest file system that is made.
const SMALLEST: u64 = 1 << 30;

/// How long the kernel may take to let go of one that nobody uses any more.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Whether this machine has what it takes.
pub(crate) fn is_possible(release: &str, file_systems: &str) -> bool {
    let found = |program: &&str| {
        PATH.split(':')
            .any(|dir| Path::new(dir).join(program).exists())
    };
    let module = format!("/lib/modules/{release}/kernel/fs/btrfs");
    let known = file_systems.lines().any(|line| line.trim() == "btrfs");
    PROGRAMS.iter().all(found)
        && Path::new("/dev/loop-control").exists()
        && (known || Path::new(&module).exists())
}

/// Where the subvolume of this name is.
pub(crate) fn path(state: &Path, name: &str) -> PathBuf {
    state.join(DIRECTORY).join(name)
}

/// Makes a subvolume that holds at most so many bytes.
pub(crate) fn make(state: &Path, name: &str, bytes: u64) -> io::Result<PathBuf> {
    let held = open(state)?;
    let path = path(state, name);
    run(
        &held,
        "btrfs",
        &["subvolume".as_ref(), "create".as_ref(), path.as_os_str()],
    )?;
    let bytes = bytes.to_string();
    let limit = || {
        let words = ["qgroup", "limit", &bytes].map(AsRef::as_ref);
        run(&held, "btrfs", &[&words[..], &[path.as_os_str()]].concat())
    };
    // Whoever has mounted it may have been killed before it counted.
    limit().or_else(|_| count(state, &held).and_then(|()| limit()))?;
    Ok(path)
}

/// Makes `to` a subvolume with what `from` has now.
pub(crate) fn copy(state: &Path, from: &str, to: &str) -> io::Result<PathBuf> {
    let held = open(state)?;
    let (from, to) = (path(state, from), path(state, to));
    let words = ["subvolume", "snapshot"].map(AsRef::as_ref);
    run(
        &held,
        "btrfs",
        &[&words[..], &[from.as_os_str(), to.as_os_str()]].concat(),
    )?;
    Ok(to)
}

/// Removes a subvolume. It is no error if there is none.
pub(crate) fn remove(state: &Path, name: &str) -> io::Result<()> {
    if !path(state, name).exists() {
        return Ok(());
    }
    let held = File::create(state.join(LOCK))?;
    held.lock_shared()?;
    delete(state, name, &held)
}

fn delete(state: &Path, name: &str, held: &File) -> io::Result<()> {
    let path = path(state, name);
    let words = ["subvolume", "delete"].map(AsRef::as_ref);
    match run(held, "btrfs", &[&words[..], &[path.as_os_str()]].concat()) {
        // Somebody else was quicker.
        Err(_) if !path.exists() => Ok(()),
        // It goes when the file system is mounted anew.
        Err(_) if has_failed(state)? => Ok(()),
        deleted => deleted,
    }
}

/// Mounts the file system, made first if there is none. As long as the file that is returned is open it stays.
pub(crate) fn open(state: &Path) -> io::Result<File> {
    let lock = File::create(state.join(LOCK))?;
    loop {
        lock.lock_shared()?;
        if is_mounted(state)? && !has_failed(state)? {
            return Ok(lock);
        }
        lock.unlock()?;
        lock.lock()?;
        mount_anew(state, &lock)?;
        lock.unlock()?;
    }
}

/// Removes subvolumes that are not to be kept, and the file system when it is empty, unless somebody is at work in it.
pub(crate) fn tidy(state: &Path, keep: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let (image, new) = (state.join(IMAGE), state.join(NEW));
    if !image.exists() && !new.exists() {
        return Ok(());
    }
    let lock = File::create(state.join(LOCK))?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ if !image.exists() => return Ok(()),
        _ => {}
    }
    match mount_anew(state, &lock) {
        // Somebody still has what has failed.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(()),
        mounted => mounted?,
    }
    let mut kept = false;
    for entry in fs::read_dir(state.join(DIRECTORY))? {
        let name = entry?.file_name();
        match name.to_str().filter(|name| !keep(name)) {
            Some(name) => delete(state, name, &lock)?,
            None => kept = true,
        }
    }
    if kept {
        return Ok(());
    }
    while is_mounted(state)? {
        match unmount(state.join(DIRECTORY), UnmountFlags::empty()) {
            // Somebody looks at it; the next one who tidies up takes it away.
            Err(Errno::BUSY) => return Ok(()),
            unmounted => unmounted?,
        }
    }
    fs::remove_file(image)
}

fn is_mounted(state: &Path) -> io::Result<bool> {
    match fs::metadata(state.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        disk => Ok(disk?.dev() != fs::metadata(state)?.dev()),
    }
}

/// Whether the kernel lets nobody write any more, as it does once there was no room for what it had taken.
fn has_failed(state: &Path) -> io::Result<bool> {
    let status = statvfs(state.join(DIRECTORY))?;
    Ok(status.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Mounts the file system if it is not, or has failed.
///
/// # Errors
/// `ResourceBusy` while somebody has what has failed.
fn mount_anew(state: &Path, held: &File) -> io::Result<()> {
    while is_mounted(state)? {
        if !has_failed(state)? {
            return Ok(());
        }
        unmount(state.join(DIRECTORY), UnmountFlags::DETACH)?;
    }
    require_gone(&state.join(IMAGE))?;
    mount(state, held)?;
    if has_failed(state)? {
        return Err(io::Error::other("the file system for disks is damaged"));
    }
    Ok(())
}

/// Refuses to go on while the kernel has the image: mounted twice, it would be destroyed.
fn require_gone(image: &Path) -> io::Result<()> {
    let is_attached = || -> io::Result<bool> {
        for device in fs::read_dir("/sys/block")? {
            let file = fs::read(device?.path().join("loop/backing_file"));
            if file.is_ok_and(|file| file.trim_ascii_end() == image.as_os_str().as_encoded_bytes())
            {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let start = Instant::now();
    while is_attached()? {
        if start.elapsed() > GONE_WITHIN {
            let message = "the machine had no room for what was written to the file system for disks: \
                           kill the sandboxes that have a large disk";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn mount(state: &Path, held: &File) -> io::Result<()> {
    let (image, place) = (state.join(IMAGE), state.join(DIRECTORY));
    if !image.exists() {
        let new = state.join(NEW);
        let around = statvfs(state)?;
        // What is left is for what the file system writes about the files, and for others.
        let size = around.f_bavail.saturating_mul(around.f_frsize) / 10 * 9;
        if size < SMALLEST {
            let message = "a file system for disks needs more than a GiB of room";
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        File::create(&new)?.set_len(size)?;
        run(
            held,
            "mkfs.btrfs",
            &["-q".as_ref(), "-f".as_ref(), new.as_os_str()],
        )?;
        fs::rename(&new, &image)?;
    }
    make_private(&place)?;
    let options = ["-o", "loop,noatime,nosuid,nodev,discard=async"].map(AsRef::as_ref);
    run(
        held,
        "mount",
        &[&options[..], &[image.as_os_str(), place.as_os_str()]].concat(),
    )?;
    count(state, held)
}

/// Has the file system count what each subvolume takes.
fn count(state: &Path, held: &File) -> io::Result<()> {
    let place = state.join(DIRECTORY);
    run(
        held,
        "btrfs",
        &["quota".as_ref(), "enable".as_ref(), place.as_os_str()],
    )
}

/// Runs a program of this machine, which shares the lock until it ends, also if this program is killed before.
///
/// # Errors
/// With what it said, if it failed.
fn run(held: &File, program: &str, args: &[&std::ffi::OsStr]) -> io::Result<()> {
    let output = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .stdin(held.try_clone()?)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} failed: {}",
        said.trim()
    )))
}
