//! What a copy keeps, what it merges, and where it stops.

use super::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mkdirat, mknodat, setxattr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Bytes and files.
const PLENTY: [u64; 2] = [1 << 30, 100_000];

const OPAQUE: &str = "trusted.overlay.opaque";

struct Trees(TempDir);

impl Trees {
    fn new() -> Self {
        let trees = Self(tempfile::tempdir().unwrap());
        for name in ["top", "low"] {
            fs::create_dir(trees.0.path().join(name)).unwrap();
        }
        trees
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn whiteout(&self, path: &str) {
        mknodat(
            CWD,
            self.path(path),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
    }

    fn copy(&self, from: &[&str], most: [u64; 2]) -> io::Result<Reply> {
        let blob = |name: &str| Blob(self.path(name).as_os_str().as_bytes().to_vec());
        let from: Vec<Blob> = from.iter().map(|name| blob(name)).collect();
        copy(&from, &blob("copy"), "trusted", most)
    }

    fn is_opaque(&self, path: &str) -> bool {
        let mut value = [0; 8];
        rustix::fs::getxattr(self.path(path), OPAQUE, &mut value[..]).is_ok()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let status = fs::symlink_metadata(self.path(path)).unwrap();
        status.file_type().is_char_device() && status.rdev() == 0
    }
}

#[test]
fn everything_of_an_entry_is_copied() {
    let trees = Trees::new();
    trees.write("top/d/file", "text");
    let file = trees.path("top/d/file");
    chown(&file, Some(70_000), Some(70_001)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6750)).unwrap();
    setxattr(&file, "user.note", b"x", XattrFlags::empty()).unwrap();
    setxattr(trees.path("top/d"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
    fs::hard_link(&file, trees.path("top/again")).unwrap();
    symlink("/nowhere", trees.path("top/link")).unwrap();
    mknodat(CWD, trees.path("top/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    trees.whiteout("top/gone");
    let old = fs::File::open(&file).unwrap();
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    old.set_times(times).unwrap();
    trees.copy(&["top"], PLENTY).unwrap();

    let status = fs::metadata(trees.path("copy/d/file")).unwrap();
    assert_eq!((status.uid(), status.gid()), (70_000, 70_001));
    assert_eq!((status.mode() & 0o7777, status.mtime()), (0o6750, 0));
    assert_eq!(
        status.ino(),
        fs::metadata(trees.path("copy/again")).unwrap().ino()
    );
    assert_ne!(status.ino(), fs::metadata(&file).unwrap().ino());
    assert_eq!(
        fs::read_to_string(trees.path("copy/d/file")).unwrap(),
        "text"
    );
    let mut value = [0; 8];
    let noted = rustix::fs::getxattr(trees.path("copy/again"), "user.note", &mut value[..]);
    assert_eq!(&value[..noted.unwrap()], b"x");
    assert!(trees.is_opaque("copy/d"));
    assert_eq!(
        fs::read_link(trees.path("copy/link")).unwrap(),
        Path::new("/nowhere")
    );
    let pipe = fs::symlink_metadata(trees.path("copy/pipe")).unwrap();
    assert!(pipe.file_type().is_fifo());
    assert!(trees.is_whiteout("copy/gone"));
}

#[test]
fn a_merged_layer_shows_only_what_the_one_above_does_not_hide() {
    let trees = Trees::new();
    for path in [
        "both",
        "hidden/low",
        "opaque/low",
        "merged/low",
        "kind/low",
        "only/low",
    ] {
        trees.write(&format!("low/{path}"), "low");
    }
    trees.whiteout("low/merged/removed");
    trees.write("top/both", "top");
    trees.whiteout("top/hidden");
    trees.write("top/opaque/top", "top");
    setxattr(trees.path("top/opaque"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
    trees.write("top/merged/top", "top");
    setxattr(trees.path("low/merged"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
    trees.write("top/kind", "top");
    // Layers that nobody changes are merged however large they are.
    let copied = trees.copy(&["top", "low"], [u64::MAX; 2]).unwrap();
    assert!(
        matches!(copied, Reply::Copied { files: 10..30, .. }),
        "{copied:?}"
    );

    let read = |path: &str| fs::read_to_string(trees.path(path)).unwrap();
    assert_eq!(read("copy/both"), "top");
    assert!(trees.is_whiteout("copy/hidden"));
    assert!(!trees.path("copy/opaque/low").exists());
    assert_eq!(read("copy/merged/top"), "top");
    assert_eq!(read("copy/merged/low"), "low");
    // What is below both is hidden by the lower one.
    assert!(trees.is_whiteout("copy/merged/removed"));
    assert!(trees.is_opaque("copy/merged") && !trees.is_opaque("copy/only"));
    assert_eq!(read("copy/kind"), "top");
    assert_eq!(read("copy/only/low"), "low");
}

#[test]
fn holes_stay_holes_and_only_what_is_written_counts() {
    let trees = Trees::new();
    let file = fs::File::create(trees.path("top/holes")).unwrap();
    file.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x", 1 << 29).unwrap();
    let Reply::Copied { bytes, files } = trees.copy(&["top"], [64 * 1024, 1]).unwrap() else {
        panic!("another answer");
    };
    assert!(bytes <= 64 * 1024 && files == 1);
    let status = fs::metadata(trees.path("copy/holes")).unwrap();
    assert_eq!(status.len(), 1 << 30);
    assert!(status.blocks() * BLOCK <= 64 * 1024);
}

#[test]
fn more_than_the_budget_is_refused() {
    let trees = Trees::new();
    for number in 0..10 {
        trees.write(&format!("top/{number}"), &"x".repeat(10_000));
    }
    for most in [[50_000, 100], [1 << 20, 9]] {
        let error = trees.copy(&["top"], most).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        for name in ["copy", "copy.links"] {
            fs::remove_dir_all(trees.path(name)).unwrap();
        }
    }
    trees.copy(&["top"], PLENTY).unwrap();
}

#[test]
fn a_device_is_not_copied() {
    let trees = Trees::new();
    let null = rustix::fs::makedev(1, 3);
    mknodat(
        CWD,
        trees.path("top/null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        null,
    )
    .unwrap();
    assert!(trees.copy(&["top"], PLENTY).is_err());
}

#[test]
fn directories_are_copied_however_many_are_in_each_other() {
    let trees = Trees::new();
    let mut directory = fs::File::open(trees.path("top")).unwrap();
    let below = |directory: &fs::File| -> fs::File {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        file::open(directory.as_fd(), c"d", flags, 0, 0)
            .unwrap()
            .into()
    };
    for _ in 0..2000 {
        mkdirat(&directory, c"d", Mode::RWXU).unwrap();
        directory = below(&directory);
    }
    trees.copy(&["top"], PLENTY).unwrap();
    let mut copied = fs::File::open(trees.path("copy")).unwrap();
    for _ in 0..2000 {
        copied = below(&copied);
    }
    let held = fs::File::open(trees.0.path()).unwrap();
    for name in [c"top", c"copy"] {
        crate::zygote::trees::remove_at(held.as_fd(), name).unwrap();
    }
}
