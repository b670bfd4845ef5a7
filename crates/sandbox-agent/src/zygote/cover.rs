//! The small file system with which files of the machine are covered: by something empty, or by what the sandbox is
//! told instead of them.
//!
//! Each sandbox has its own: locks and watches on a shared one would reach from sandbox to sandbox. The zygote makes
//! it while the child makes its namespaces, which takes as long.

use std::ffi::CString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use sandbox_agent::protocol::Limits;
use sandbox_agent::protocol::zygote::Create;

use super::failure::{During as _, Failure};
use super::overlay::ActingAs;
use super::stage;
use crate::sys::mount::{self, NewFilesystem, attribute};
use crate::view::{self, Machine, View};

/// Covers a file.
pub(crate) const FILE: &str = "file";

/// Covers a directory.
pub(crate) const DIRECTORY: &str = "directory";

/// Makes the covers of a sandbox, detached, owned by the sandbox's root; read-only if the limits that they show are
/// known.
pub(crate) fn make(request: &Create, machine: &Machine) -> Result<OwnedFd, Failure> {
    let _acting = ActingAs::owner(request.uid_base)?;
    build(machine, request.limits.as_ref()).during("make what covers files of the machine")
}

fn build(machine: &Machine, limits: Option<&Limits>) -> io::Result<OwnedFd> {
    let size = CString::new(machine.room().to_string())?;
    let fs = NewFilesystem::open(c"tmpfs")?;
    for (key, value) in [(c"mode", c"0555"), (c"size", &size), (c"nr_inodes", c"64")] {
        fs.set(key, value)?;
    }
    let mount = fs.mount(attribute::NO_SUID | attribute::NO_DEV | attribute::NO_EXEC)?;
    stage::inside(mount.as_fd(), || fill(machine, limits))?;
    if limits.is_some() {
        mount::set_attributes(mount.as_fd(), attribute::READ_ONLY, None)?;
    }
    Ok(mount)
}

/// Attaches the covers at `path`, read-only. What is returned is the only way to write to them, if that is still to
/// be done.
pub(crate) fn attach(cover: &OwnedFd, path: &str, is_done: bool) -> io::Result<Option<View>> {
    let path = CString::new(path)?;
    mount::attach_at(cover.as_fd(), &path)?;
    if is_done {
        return Ok(None);
    }
    let writable = mount::clone_tree(&path)?;
    mount::set_attributes(cover.as_fd(), attribute::READ_ONLY, None)?;
    Ok(Some(View::new(writable)))
}

/// Makes the files in the working directory.
fn fill(machine: &Machine, limits: Option<&Limits>) -> io::Result<()> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(FILE)?;
    DirBuilder::new().mode(0o555).create(DIRECTORY)?;
    view::make(machine, limits)
}
