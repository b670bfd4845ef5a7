//! Names of user and group ids, for describing files.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{GroupLine, UserLine, contents, lines};

/// Names of ids, read again when the files change.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: Cached,
    groups: Cached,
}

impl Names {
    /// Looks at the files below `etc` again, if they are not the ones seen last.
    pub(crate) fn refresh(&mut self, etc: &Path) {
        self.users.refresh(&etc.join("passwd"), |line| {
            UserLine::parse(line).map(|user| (user.uid, user.name))
        });
        self.groups.refresh(&etc.join("group"), |line| {
            GroupLine::parse(line).map(|group| (group.gid, group.name))
        });
    }

    /// Name of a user.
    pub(crate) fn user(&self, uid: u32) -> Option<String> {
        self.users.names.get(&uid).cloned()
    }

    /// Name of a group.
    pub(crate) fn group(&self, gid: u32) -> Option<String> {
        self.groups.names.get(&gid).cloned()
    }
}

/// What tells one version of a file from another: device, inode, size, and change time.
type Stamp = (u64, u64, u64, i64, i64);

#[derive(Debug, Default)]
struct Cached {
    stamp: Option<Stamp>,
    names: HashMap<u32, String>,
}

impl Cached {
    fn refresh(&mut self, path: &Path, parse: impl Fn(&[u8]) -> Option<(u32, &str)>) {
        let now = std::fs::symlink_metadata(path).ok();
        let now = now.map(|file| {
            (
                file.dev(),
                file.ino(),
                file.size(),
                file.ctime(),
                file.ctime_nsec(),
            )
        });
        if now == self.stamp {
            return;
        }
        self.stamp = now;
        self.names.clear();
        for (id, name) in lines(&contents(path)).filter_map(parse) {
            self.names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
}
