//! Replaces the overlays of a sandbox, from inside its user and mount namespaces.
//!
//! It is done by a process of its own: whoever has entered a user namespace cannot come back. For the sandbox that
//! process is root with all rights, which PID 1 has given up.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::failure::{During as _, Failure};
use super::stage;
use crate::sys::{file, mount, namespace};

/// New overlays and what goes with them.
#[derive(Debug)]
pub(crate) struct Switch {
    /// Where each is to be, relative to the root, and the overlay; that of the root, whose place is empty, first.
    pub(crate) overlays: Vec<(CString, OwnedFd)>,
    /// Where the other mounts are, relative to the root.
    pub(crate) others: Vec<CString>,
}

impl Switch {
    /// Enters the sandbox, by its namespaces for users and mounts, and makes the new overlays what all there have as their
    /// root. If that fails, all is as it was.
    pub(crate) fn carry_out(
        &self,
        users: BorrowedFd<'_>,
        mounts: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        namespace::enter_user_namespace(users)
            .and_then(|()| namespace::enter_mount_namespace(mounts))
            .during("enter the sandbox")?;
        let old = stage::directory("/").during("open the sandbox's root")?;
        let ((_, root), rest) = self
            .overlays
            .split_first()
            .ok_or_else(|| Failure::invalid("find the new root"))?;
        // Over the old root, through which all others still go.
        mount::attach(root.as_fd(), old.as_fd()).during("mount the new root")?;
        let enter = || {
            namespace::change_directory(root.as_fd())
                .and_then(|()| mount::enter_root())
                .during("make the new root the root")
        };
        let switched = attach(rest, root)
            .and_then(|()| self.relocate_all(&old, root))
            .and_then(|()| {
                enter().inspect_err(|_| {
                    let _ = self.relocate_all(root, &old);
                })
            });
        if switched.is_err() {
            // Whatever fails here leaves no more than a mount that nobody sees.
            let _ = namespace::change_directory(root.as_fd()).and_then(|()| mount::detach(c"."));
        }
        switched
    }

    /// Moves what is mounted on the overlays of one tree to those of another one: all of it, or nothing.
    fn relocate_all(&self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Failure> {
        for (index, other) in self.others.iter().enumerate() {
            let moved = relocate(from, to, other);
            if moved.is_err() {
                for other in self.others[..index].iter().rev() {
                    let _ = relocate(to, from, other);
                }
            }
            moved.during_with(|| format!("move /{}", other.to_string_lossy()))?;
        }
        Ok(())
    }
}

fn attach(overlays: &[(CString, OwnedFd)], root: &OwnedFd) -> Result<(), Failure> {
    for (target, overlay) in overlays {
        place(root, target)
            .and_then(|place| mount::attach(overlay.as_fd(), place.as_fd()))
            .during_with(|| format!("mount /{}", target.to_string_lossy()))?;
    }
    Ok(())
}

/// Moves what is mounted at a place of one tree to that of another one.
fn relocate(from: &OwnedFd, to: &OwnedFd, at: &CStr) -> io::Result<()> {
    let (mount, target) = (place(from, at)?, place(to, at)?);
    mount::attach(mount.as_fd(), target.as_fd())
}

/// Opens a place below a directory, across mounts and through no link.
fn place(below: &OwnedFd, path: &CStr) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    file::open(below.as_fd(), path, libc::O_PATH, 0, resolve)
}
