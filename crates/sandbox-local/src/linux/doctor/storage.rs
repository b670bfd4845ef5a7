//! The file system that the state directory is on, by the name that `mount` has for it.

use std::{borrow::Cow, path::Path};

/// Names by the number of `statfs(2)`, of those that people keep such a directory on.
const NAMES: [(u64, &str); 13] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay"),
    (0x6573_5546, "fuse"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0x0102_1997, "9p"),
    (0x4d44, "vfat"),
];

/// Name of the file system that `path` is on.
pub(super) fn file_system(path: &Path) -> Cow<'static, str> {
    let Ok(found) = rustix::fs::statfs(path) else {
        return "an unknown file system".into();
    };
    let number = found.f_type as u64;
    let named = NAMES.iter().find(|(of, _)| *of == number);
    match named {
        Some((_, name)) => (*name).into(),
        None => format!("a file system of type {number:#x}").into(),
    }
}
