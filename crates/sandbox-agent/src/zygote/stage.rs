//! The zygote's own mount namespace, in which new sandboxes begin.
//!
//! It holds an almost empty, read-only tree, so that copying it for a sandbox costs little and shows nothing of the
//! host. Host paths are opened on short visits to the namespace that the zygote was started in; nothing is ever
//! mounted there.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

use super::devices;
use super::failure::{During as _, Failure};
use crate::sys::mount::{self, NewFilesystem, attribute};
use crate::sys::namespace;

/// Where a new root is attached, before it becomes the root.
pub(crate) const ROOT: &str = "/root";

/// Where a zygote that cannot make devices keeps mounts of the host's.
pub(crate) const DEVICES: &str = "/devices";

/// Where a child puts together what goes into its root.
pub(crate) const ASSEMBLY: &str = "/assembly";

/// Where the layers of overlays are attached while the overlays are made.
///
/// The name is short because the kernel takes at most 255 bytes for the paths of all lower layers.
pub(crate) const LAYERS: &str = "/l";

/// How many layers can be attached at once.
pub(crate) const MAX_LAYERS: usize = 256;

/// Descriptors that lead from one mount namespace to the other.
#[derive(Debug)]
pub(crate) struct Stage {
    host: OwnedFd,
    host_root: OwnedFd,
    own: OwnedFd,
    is_root: bool,
}

impl Stage {
    /// Moves this process into a new mount namespace whose tree is made on `staging`, an empty host directory.
    ///
    /// What only real root can make is copied from the host unless `is_root`: `/proc`, without which no sandbox could
    /// mount its own, and devices.
    pub(crate) fn enter(staging: &CStr, is_root: bool) -> Result<Self, Failure> {
        let host_root = directory("/").during("open the host's root")?;
        let host = File::open("/proc/self/ns/mnt").during("open the host's mount namespace")?;
        namespace::unshare(libc::CLONE_NEWNS).during("make the zygote's mount namespace")?;
        mount::make_all_private().during("cut the zygote's mounts off from the host's")?;
        let root = build().during("build the staging tree")?;
        mount::attach_at(root.as_fd(), staging)
            .during("mount the staging tree on the staging directory")?;
        namespace::change_directory(root.as_fd()).during("enter the staging tree")?;
        if is_root {
            let attributes = attribute::NO_SUID | attribute::NO_DEV | attribute::NO_EXEC;
            NewFilesystem::open(c"proc")
                .and_then(|fs| fs.mount(attributes))
                .and_then(|proc_fs| mount::attach_at(proc_fs.as_fd(), c"proc"))
                .during("mount the zygote's /proc")?;
        } else {
            mount::clone_trees(c"/proc")
                .and_then(|proc_fs| mount::attach_at(proc_fs.as_fd(), c"proc"))
                .during("mount the zygote's /proc")?;
            keep_devices().during("keep the host's devices")?;
        }
        mount::set_attributes(root.as_fd(), attribute::READ_ONLY, None)
            .during("make the staging tree read-only")?;
        mount::enter_root().during("make the staging tree the zygote's root")?;
        let own = File::open("/proc/self/ns/mnt").during("open the zygote's mount namespace")?;
        Ok(Self {
            host: host.into(),
            host_root,
            own: own.into(),
            is_root,
        })
    }

    /// Whether the zygote is real root. Else there are devices at [`DEVICES`].
    pub(crate) fn is_root(&self) -> bool {
        self.is_root
    }

    /// What a copy of this process needs for visits to the host.
    pub(crate) fn descriptors(&self) -> [RawFd; 3] {
        [&self.host, &self.host_root, &self.own].map(AsRawFd::as_raw_fd)
    }

    /// Does `work` in the host's mount namespace, with the host's root as the root.
    pub(crate) fn visit_host<T>(
        &self,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        namespace::enter_mount_namespace(self.host.as_fd())
            .during("visit the host's mount namespace")?;
        let result = namespace::change_root(self.host_root.as_fd())
            .during("enter the host's root")
            .and_then(|()| work());
        if namespace::enter_mount_namespace(self.own.as_fd()).is_err() {
            // Sandboxes must never begin in the host's tree, so this zygote is of no use any more. Its end tells
            // the library, and ends the child that is being set up.
            std::process::exit(1);
        }
        result
    }
}

/// Makes the staging tree, detached and still writable.
fn build() -> io::Result<OwnedFd> {
    let fs = NewFilesystem::open(c"tmpfs")?;
    fs.set(c"mode", c"0755")?;
    fs.set(c"size", c"1m")?;
    let root = fs.mount(attribute::NO_SUID | attribute::NO_DEV | attribute::NO_EXEC)?;
    inside(root.as_fd(), make_directories)?;
    Ok(root)
}

/// Mounts the host's devices in the staging tree, which is the working directory.
fn keep_devices() -> io::Result<()> {
    for name in devices::names() {
        let place = format!("{}/{name}", relative(DEVICES));
        File::create(&place)?;
        let device = mount::clone_tree(&CString::new(format!("/dev/{name}"))?)?;
        mount::set_attributes(
            device.as_fd(),
            attribute::NO_SUID | attribute::NO_EXEC,
            None,
        )?;
        mount::attach_at(device.as_fd(), &CString::new(place)?)?;
    }
    Ok(())
}

fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// Makes the directories of the staging tree below the working directory.
fn make_directories() -> io::Result<()> {
    for path in ["proc", &relative(ROOT), &relative(DEVICES)] {
        fs::create_dir(path)?;
    }
    for name in ["proc", "dev", "sys", "run", "own"] {
        fs::create_dir_all(format!("{}/{name}", relative(ASSEMBLY)))?;
    }
    fs::create_dir(relative(LAYERS))?;
    for index in 0..MAX_LAYERS {
        fs::create_dir(format!("{}/{index}", relative(LAYERS)))?;
    }
    Ok(())
}

/// Does `work` with the root of a detached mount as the working directory.
pub(crate) fn inside<T>(
    mount: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let root = directory("/")?;
    namespace::change_directory(mount)?;
    let done = work();
    namespace::change_directory(root.as_fd())?;
    done
}

/// Opens a directory only as a place.
pub(crate) fn directory(path: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    open_place(path.as_ref(), 0)
}

/// As [`directory`], but refuses a symbolic link to one.
pub(crate) fn directory_itself(name: &OsStr) -> io::Result<OwnedFd> {
    open_place(name, libc::O_NOFOLLOW)
}

fn open_place(path: &OsStr, flags: i32) -> io::Result<OwnedFd> {
    let place = libc::O_PATH | libc::O_DIRECTORY | flags;
    OpenOptions::new()
        .read(true)
        .custom_flags(place)
        .open(path)
        .map(OwnedFd::from)
}
