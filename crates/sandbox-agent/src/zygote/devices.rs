//! The file system of `/dev`. Only real root can make device nodes, so the zygote makes it; the child mounts more there.
//! A zygote that is not root keeps mounts of the host's nodes instead, which each child mounts again.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, symlink};

use sandbox_agent::protocol::zygote::{Create, weaken};

use super::failure::{During as _, Failure};
use super::overlay::ActingAs;
use super::stage::{self, Stage};
use crate::sys::mount::{self, NewFilesystem, attribute};

/// Devices that every program may expect: name and numbers.
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

/// Links to what every process sees as its own: where they lead, and their names.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes the sandbox's own `/dev`, detached, owned by the sandbox's root.
pub(crate) fn make(stage: &Stage, request: &Create) -> Result<OwnedFd, Failure> {
    if request.weaken & weaken::DEVICES != 0 {
        return stage.visit_host(|| host_tree(c"/dev", stage.is_root()));
    }
    let _acting = ActingAs::owner(request.uid_base)?;
    build(!stage.is_root()).during("make /dev")
}

/// Names of the devices.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    DEVICES.iter().filter_map(|(name, ..)| name.to_str().ok())
}

fn build(mounted: bool) -> io::Result<OwnedFd> {
    let fs = NewFilesystem::open(c"tmpfs")?;
    // A file written here by mistake instead of to a device must not eat up the memory.
    for (key, value) in [(c"mode", c"0755"), (c"size", c"64k"), (c"nr_inodes", c"1k")] {
        fs.set(key, value)?;
    }
    let mount = fs.mount(attribute::NO_SUID | attribute::NO_EXEC)?;
    stage::inside(mount.as_fd(), || {
        for (name, major, minor) in DEVICES.into_iter().filter(|_| !mounted) {
            mount::make_device(name, major, minor)?;
        }
        for (target, name) in LINKS {
            symlink(target, name)?;
        }
        let mut builder = DirBuilder::new();
        ["pts", "shm"]
            .into_iter()
            .try_for_each(|name| builder.mode(0o755).create(name))
    })?;
    Ok(mount)
}

/// Puts the nodes of the host into the new `/dev` at `path`, from where the zygote keeps them.
pub(crate) fn mount_kept(path: &str) -> io::Result<()> {
    for name in names() {
        let target = format!("{path}/{name}");
        File::create(&target)?;
        mount::bind(
            &CString::new(format!("{}/{name}", stage::DEVICES))?,
            &CString::new(target)?,
        )?;
    }
    Ok(())
}

/// A read-only copy of a host mount, for tests that take a wall away. To who is not real root the kernel shows it only
/// with all that is mounted below.
pub(crate) fn host_tree(path: &CStr, is_root: bool) -> Result<OwnedFd, Failure> {
    let clone = if is_root {
        mount::clone_tree
    } else {
        mount::clone_trees
    };
    let tree = clone(path).during("copy a mount of the host")?;
    mount::set_attributes(tree.as_fd(), attribute::READ_ONLY, None)
        .during("copy a mount of the host")?;
    Ok(tree)
}
