//! Every command on a state directory that has no room left.

use crate::support::{Home, Outcome};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

/// A state directory on a small disk of its own. Fields are dropped in this order.
struct Disk {
    home: Home,
    mounted: Mounted,
    _directory: tempfile::TempDir,
}

/// A file system, unmounted at the end.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

impl Disk {
    /// Room for a template and a few sandboxes.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        mount(
            "tmpfs",
            path,
            "tmpfs",
            MountFlags::empty(),
            c"size=512m,mode=700",
        )
        .unwrap();
        Self {
            home: Home::at(path.to_owned()),
            mounted: Mounted(path.to_owned()),
            _directory: directory,
        }
    }

    /// Fills it to the last byte and the last name.
    fn fill(&self) {
        let bytes = vec![0; 1 << 20];
        let mut file = File::create(self.mounted.0.join("ballast")).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&bytes) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        fs::remove_file(self.mounted.0.join("ballast")).unwrap();
    }
}

#[track_caller]
fn assert_says_so(outcome: &Outcome) {
    outcome.assert_code(125);
    assert!(outcome.stderr.starts_with("error: "), "{outcome:?}");
    let text = outcome.stderr.to_lowercase();
    assert!(
        text.contains("no space left") && text.contains("room"),
        "{outcome:?}"
    );
}

#[test]
fn what_needs_room_says_so_and_the_rest_works() {
    let disk = Disk::new();
    let home = &disk.home;
    let id = home.create(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), vec![1; 1 << 20]).unwrap();
    let (local, inside) = (
        file.path().to_str().unwrap(),
        format!("{id}:/home/user/file"),
    );
    disk.fill();

    for args in [&["create"][..], &["run", "-c", "print(1)"]] {
        assert_says_so(&home.sandbox(args));
    }
    // What the sandbox's own disk lacks is the program's error, or the file call's.
    let written = home.sandbox(&["exec", &id, "--", "cp", "/etc/passwd", "/home/user/x"]);
    assert_ne!(written.code, 0);
    assert!(
        written.stderr.contains("No space left on device"),
        "{written:?}"
    );
    assert_says_so(&home.sandbox(&["cp", local, &inside]));

    // What needs none works, and makes room.
    assert_eq!(
        home.sandbox(&["exec", &id, "--", "echo", "fine"]).ok(),
        "fine\n"
    );
    home.sandbox(&["cp", &format!("{id}:/etc/passwd"), "-"])
        .ok();
    for args in [
        &["ls", "--json"][..],
        &["stats", "--once", "--json"],
        &["pause", &id],
        &["resume", &id],
    ] {
        home.sandbox(args).ok();
    }
    let doctor = home.sandbox(&["doctor"]);
    assert!(doctor.stdout.contains("make room"), "{doctor:?}");
    home.sandbox(&["kill", &id]).ok();
    home.sandbox(&["prune"]).ok();
    home.assert_nothing_left(&id);

    disk.empty();
    assert_eq!(home.sandbox(&["run", "-c", "print(1)"]).ok(), "1\n");
}

#[test]
fn a_template_that_finds_no_room_leaves_nothing_half_made() {
    let disk = Disk::new();
    disk.fill();
    assert_says_so(&disk.home.sandbox(&["run", "-c", "print(1)"]));
    // What little room there is, is there again.
    let half_made = disk.mounted.0.join("templates/.new");
    let ballast = File::options()
        .write(true)
        .open(disk.mounted.0.join("ballast"))
        .unwrap();
    let length = ballast.metadata().unwrap().len();
    ballast.set_len(length - (4 << 20)).unwrap();
    drop(ballast);
    assert_says_so(&disk.home.sandbox(&["run", "-c", "print(1)"]));
    assert!(!half_made.exists());
    // Also if whoever made it was ended.
    fs::create_dir_all(half_made.join("root/etc")).unwrap();
    assert_eq!(disk.home.sandbox(&["prune"]).ok(), "template .new\n");
    assert!(!half_made.exists());
    disk.empty();
    assert_eq!(disk.home.sandbox(&["run", "-c", "print(1)"]).ok(), "1\n");
}
