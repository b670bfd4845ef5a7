//! What the doctor says of a state directory that does not serve: the cause and what helps against it.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sandbox_local::{Check, LocalProvider, Verdict};
use std::{ffi::CStr, path::PathBuf};
use tempfile::TempDir;

/// A file system on a directory of its own.
struct Mounted {
    path: PathBuf,
    _directory: TempDir,
}

impl Mounted {
    fn new(kind: &str, options: &CStr) -> Self {
        let directory = TempDir::with_prefix("sandbox-it-").unwrap();
        let path = directory.path().join("state");
        std::fs::create_dir(&path).unwrap();
        mount(kind, &path, kind, MountFlags::empty(), options).unwrap();
        Self {
            path,
            _directory: directory,
        }
    }

    fn failure(&self) -> Check {
        let builder = LocalProvider::builder().state_dir(&self.path);
        let checks = builder.doctor().checks;
        let failed = checks.into_iter();
        let mut failed = failed.filter(|check| check.verdict == Verdict::Fail);
        failed.next().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.path, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_file_system_that_does_not_serve_is_named() {
    let failure = Mounted::new("ramfs", c"").failure();
    let fix = failure.fix.as_deref().unwrap();
    assert!(
        fix.contains("is on ramfs") && fix.contains("ext4"),
        "{failure:?}"
    );
}

#[test]
fn a_full_disk_takes_room() {
    let failure = Mounted::new("tmpfs", c"size=64k,mode=700").failure();
    let fix = failure.fix.as_deref().unwrap();
    assert!(
        fix.contains("make room") && fix.contains("is on tmpfs"),
        "{failure:?}"
    );
}
