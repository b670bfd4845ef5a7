//! Whose files a layer shows: user namespaces used only for their id maps.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::failure::{During as _, Failure};
use crate::sys::clone::{self, Child, NewNamespaces};
use crate::sys::{credential, namespace};

/// How many storage maps are kept for ranges that are used again.
const KEPT: usize = 64;

/// One range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) base: u32,
    pub(crate) count: u32,
}

/// Moves this process into a new user namespace that has no maps yet, with a copy of its mounts.
pub(crate) fn leave_user_namespace() -> io::Result<()> {
    namespace::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
}

/// Moves this process into the user namespace that `sandbox`, another one, was made in, with a copy of its mounts. Whoever
/// has made that is its root.
pub(crate) fn join_parent_of(sandbox: BorrowedFd<'_>) -> io::Result<()> {
    let parent = namespace::parent_of(sandbox)?;
    namespace::enter_user_namespace(parent.as_fd())?;
    namespace::unshare(libc::CLONE_NEWNS)
}

/// Whether this process is root of a user namespace with the ids `0..=count`.
pub(crate) fn is_mapped(count: u32) -> io::Result<bool> {
    let has = |map: &str| -> io::Result<bool> {
        let text = fs::read_to_string(map)?;
        let reaches = text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse::<u32>);
            let (first, _, length) = (
                fields.next()?.ok()?,
                fields.next()?.ok()?,
                fields.next()?.ok()?,
            );
            (first <= 1).then(|| first.saturating_add(length))
        });
        Ok(reaches.max().is_some_and(|end| end > count))
    };
    Ok(credential::effective_ids() == (0, 0)
        && has("/proc/self/uid_map")?
        && has("/proc/self/gid_map")?)
}

/// Makes this process root of a new user namespace in which it is alone, with a copy of its mounts.
///
/// It keeps its groups: whoever may not give itself other ids may not give up groups either.
pub(crate) fn become_root_alone() -> io::Result<()> {
    let (uid, gid) = credential::effective_ids();
    leave_user_namespace()?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Makes `inside..` of the child's user namespace the ids `outside`.
pub(crate) fn write_maps(child: &Child, inside: u32, outside: Range) -> io::Result<()> {
    let line = format!("{inside} {} {}", outside.base, outside.count);
    fs::write(format!("/proc/{}/uid_map", child.pid()), &line)?;
    fs::write(format!("/proc/{}/gid_map", child.pid()), &line)?;
    // What runs now has run all the time, so the maps are its own and not those of a later process.
    child.check_running()
}

/// The user namespace of a child.
pub(crate) fn user_namespace(child: &Child) -> io::Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{}/ns/user", child.pid()))?;
    // What runs now has run all the time, so this and the maps are its own and not those of a later process.
    child.check_running()?;
    Ok(namespace.into())
}

/// Maps from the storage range, in which all stored files are owned, to the ranges of sandboxes.
#[derive(Debug)]
pub(crate) struct StorageMaps {
    storage_base: u32,
    kept: VecDeque<(Range, OwnedFd)>,
}

impl StorageMaps {
    /// Starts without any map.
    pub(crate) fn new(storage_base: u32) -> Self {
        Self {
            storage_base,
            kept: VecDeque::new(),
        }
    }

    /// First id of the storage range.
    pub(crate) fn storage_base(&self) -> u32 {
        self.storage_base
    }

    /// A user namespace that maps the storage range to `range`.
    pub(crate) fn get(&mut self, range: Range) -> Result<BorrowedFd<'_>, Failure> {
        let index = match self.kept.iter().position(|(kept, _)| *kept == range) {
            Some(index) => index,
            None => {
                let map = make(self.storage_base, range).during("make the storage map")?;
                self.kept.truncate(KEPT - 1);
                self.kept.push_front((range, map));
                0
            }
        };
        Ok(self.kept[index].1.as_fd())
    }
}

/// The ids of `user` and of its group inside.
const USER: u32 = 1000;

/// A user namespace that maps `ids` of the host to `user` and its group, and all others as those of stored files are: what
/// other users of the sandbox write there belongs to nobody of the host.
pub(crate) fn shared_map(
    storage_base: u32,
    range: Range,
    [uid, gid]: [u32; 2],
) -> Result<OwnedFd, Failure> {
    let line = |id: u32| {
        let all = |from: u32, count: u32| {
            format!("{} {} {count}", storage_base + from, range.base + from)
        };
        if id == 0 || range.count <= USER {
            return all(0, range.count);
        }
        let own = format!("{id} {} 1", range.base + USER);
        let after = all(USER + 1, range.count - USER - 1);
        format!("{}\n{own}\n{after}\n", all(0, USER))
    };
    make_with(&line(uid), &line(gid)).during("make the map of a volume")
}

/// Makes a user namespace by a process that does nothing else. The namespace outlives it by its descriptor.
fn make(inside: u32, outside: Range) -> io::Result<OwnedFd> {
    let line = format!("{inside} {} {}", outside.base, outside.count);
    make_with(&line, &line)
}

fn make_with(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let parent = std::process::id();
    match clone::fork_into(libc::CLONE_NEWUSER, None)? {
        NewNamespaces::Child => clone::wait_for_the_end(parent),
        NewNamespaces::Parent(child) => {
            fs::write(format!("/proc/{}/uid_map", child.pid()), uids)?;
            fs::write(format!("/proc/{}/gid_map", child.pid()), gids)?;
            user_namespace(&child)
        }
    }
}
