//! The file tree of a sandbox: its own `/proc`, `/dev`, `/sys` and `/run` around the overlays it is given.
//!
//! What does not depend on the overlays is put together aside first, while the zygote still makes them.

use std::ffi::{CStr, CString, OsStr};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use sandbox_agent::protocol::zygote::{Create, weaken};

use super::confine;
use super::cover;
use super::devices;
use super::failure::{During as _, Failure};
use super::stage::{self, ASSEMBLY};
use crate::sys::mount::{self, NewFilesystem, attribute};
use crate::sys::namespace;
use crate::view::{self, View};

/// Files and directories of `/proc` that tell of the host or reach it. They are covered by something empty.
const MASKED_FILES: [&str; 21] = [
    "bootconfig",
    "cmdline",
    "diskstats",
    "interrupts",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "latency_stats",
    "modules",
    "pagetypeinfo",
    "partitions",
    "sched_debug",
    "slabinfo",
    "swaps",
    "timer_list",
    "vmallocinfo",
    "zoneinfo",
];
const MASKED_DIRECTORIES: [&str; 7] = [
    "acpi",
    "asound",
    "driver",
    "dynamic_debug",
    "fs",
    "pressure",
    "scsi",
];

/// Parts of `/proc` that stay visible and cannot be changed.
const READ_ONLY: [&str; 4] = ["bus", "irq", "sys", "sysrq-trigger"];

/// Where the covers are attached, aside.
const COVERS: &str = "own";

/// The group of terminals.
const TERMINALS: u32 = 5;

/// Attributes of everything that holds no programs.
const PLAIN: u64 = attribute::NO_SUID | attribute::NO_DEV | attribute::NO_EXEC;

/// A root that is being put together.
#[derive(Debug)]
pub(crate) struct NewRoot(());

impl NewRoot {
    /// Puts together, aside, what comes into the root. The root itself is the first to be attached.
    ///
    /// `devices` is the file system of `/dev`, without any devices in it unless the zygote is real root; `cover` what
    /// [`cover::make`] has made.
    pub(crate) fn assemble(
        request: &Create,
        devices: &OwnedFd,
        cover: &OwnedFd,
        by_root: bool,
    ) -> Result<(Self, Option<View>), Failure> {
        let weakened = |wall: u32| request.weaken & wall != 0;
        let view = cover::attach(cover, &aside(COVERS), request.limits.is_some())
            .during("mount the sandbox's own files in the place of others")?;
        if weakened(weaken::PROCESSES) {
            bind("/proc", &aside("proc")).during("mount /proc")?;
        } else {
            mount_new(c"proc", &[], PLAIN, &aside("proc"))
                .map(drop)
                .during("mount /proc")?;
        }
        let size = Size::new(request.tmpfs_size);
        let of_host = weakened(weaken::DEVICES);
        attach_devices(devices, !of_host && !by_root).during("fill /dev")?;
        fill_devices(&size, request.uid_count).during("fill /dev")?;
        mount_run(&size).during("mount /run")?;
        bind(&aside(&format!("{COVERS}/sys")), &aside("sys")).during("mount /sys")?;
        // Every mount that is made, rather than moved, takes a mount namespace of its own for a moment; so none
        // can be made from here on.
        if !weakened(weaken::USER_NAMESPACES) {
            confine::forbid_namespaces(&aside("proc")).during("forbid namespaces inside")?;
        }
        if !by_root {
            confine::share_watches(&aside("proc")).during("share what is counted for the user")?;
        }
        if !weakened(weaken::PROC_MASKS) {
            mask_proc()?;
            for name in view::PROC {
                bind(
                    &aside(&format!("{COVERS}/proc/{name}")),
                    &aside(&format!("proc/{name}")),
                )
                .during_with(|| format!("cover /proc/{name}"))?;
            }
        }
        Ok((Self(()), view))
    }

    /// Attaches a mount at `target`, an absolute path inside, which is made if it is missing.
    pub(crate) fn attach(&self, mount: &OwnedFd, target: &[u8]) -> Result<(), Failure> {
        let place = if target == b"/" {
            stage::directory(stage::ROOT)
        } else {
            place(target)
        };
        place
            .and_then(|place| mount::attach(mount.as_fd(), place.as_fd()))
            .during_with(|| format!("mount {}", String::from_utf8_lossy(target)))
    }

    /// Moves what was put together into the root and makes it the root of this process, the only one it can see.
    pub(crate) fn enter(self) -> Result<(), Failure> {
        for name in ["proc", "dev", "sys", "run"] {
            place(name.as_bytes())
                .and_then(|place| mount::relocate(&c_path(aside(name))?, place.as_fd()))
                .during_with(|| format!("mount /{name}"))?;
        }
        stage::directory(stage::ROOT)
            .and_then(|root| namespace::change_directory(root.as_fd()))
            .and_then(|()| mount::enter_root())
            .during("make the new root the root")
    }
}

/// Where `name` is put together.
fn aside(name: &str) -> String {
    format!("{ASSEMBLY}/{name}")
}

/// Opens the directory `target` of the new root, name by name. A symbolic link is never followed: the tree may
/// come from another sandbox, and its links would lead astray before it is the root.
fn place(target: &[u8]) -> io::Result<OwnedFd> {
    let mut place = stage::directory(stage::ROOT)?;
    for name in target
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
    {
        namespace::change_directory(place.as_fd())?;
        let name = OsStr::from_bytes(name);
        place = match stage::directory_itself(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(name, 0o755)?;
                stage::directory_itself(name)?
            }
            result => result?,
        };
    }
    Ok(place)
}

fn mask_proc() -> Result<(), Failure> {
    let masks = MASKED_FILES.map(|name| (name, cover::FILE));
    for (name, cover) in masks
        .into_iter()
        .chain(MASKED_DIRECTORIES.map(|name| (name, cover::DIRECTORY)))
    {
        bind(
            &aside(&format!("{COVERS}/{cover}")),
            &aside(&format!("proc/{name}")),
        )
        .or_else(ignore_missing)
        .during_with(|| format!("mask /proc/{name}"))?;
    }
    for name in READ_ONLY {
        freeze(&aside(&format!("proc/{name}")))
            .or_else(ignore_missing)
            .during_with(|| format!("make /proc/{name} read-only"))?;
    }
    Ok(())
}

/// Covers `path` by itself, read-only.
fn freeze(path: &str) -> io::Result<()> {
    let path = c_path(path)?;
    mount::bind(&path, &path)?;
    mount::set_attributes_at(&path, PLAIN | attribute::READ_ONLY)
}

fn attach_devices(devices: &OwnedFd, kept: bool) -> io::Result<()> {
    mount::attach_at(devices.as_fd(), &c_path(aside("dev"))?)?;
    if kept {
        devices::mount_kept(&aside("dev"))?;
    }
    Ok(())
}

/// Mounts at the devices what the sandbox makes itself.
fn fill_devices(size: &Size, uid_count: u32) -> io::Result<()> {
    let terminals = [
        (c"max", c"64"),
        (c"ptmxmode", c"0666"),
        (c"mode", c"0620"),
        // That of terminals wherever there are any. Whoever is alone has no such group.
        (c"gid", c"5"),
    ];
    let options = if uid_count > TERMINALS {
        &terminals[..]
    } else {
        &terminals[..3]
    };
    mount_new(
        c"devpts",
        options,
        attribute::NO_SUID | attribute::NO_EXEC,
        &aside("dev/pts"),
    )?;
    mount_tmpfs(size, c"1777", &aside("dev/shm"))
}

fn mount_run(size: &Size) -> io::Result<()> {
    mount_tmpfs(size, c"0755", &aside("run"))?;
    // Where `/var/lock` leads to.
    make_directory(aside("run/lock"), 0o1777)
}

/// How large a tmpfs may become.
struct Size {
    bytes: CString,
    inodes: CString,
}

impl Size {
    fn new(bytes: u64) -> Self {
        // A file without contents takes about a kilobyte of the kernel's memory, so they are limited as well.
        let inodes = (bytes / 4096).clamp(1024, 1 << 20);
        let decimal = |number: u64| CString::new(number.to_string()).unwrap_or_default();
        Self {
            bytes: decimal(bytes),
            inodes: decimal(inodes),
        }
    }
}

fn mount_tmpfs(size: &Size, mode: &CStr, at: &str) -> io::Result<()> {
    let options = [
        (c"mode", mode),
        (c"size", &*size.bytes),
        (c"nr_inodes", &*size.inodes),
    ];
    mount_new(
        c"tmpfs",
        &options,
        attribute::NO_SUID | attribute::NO_DEV,
        at,
    )
    .map(drop)
}

/// Makes a file system and attaches it at the path `at`.
fn mount_new(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: u64,
    at: &str,
) -> io::Result<OwnedFd> {
    let fs = NewFilesystem::open(kind)?;
    options
        .iter()
        .try_for_each(|(key, value)| fs.set(key, value))?;
    let mount = fs.mount(attributes)?;
    mount::attach_at(mount.as_fd(), &c_path(at)?)?;
    Ok(mount)
}

fn bind(from: &str, to: &str) -> io::Result<()> {
    mount::bind(&c_path(from)?, &c_path(to)?)
}

/// Makes a directory with exactly these permissions: the umask is 0 during the set-up.
fn make_directory(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

fn c_path(path: impl Into<Vec<u8>>) -> io::Result<CString> {
    Ok(CString::new(path)?)
}
