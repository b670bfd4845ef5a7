//! Removing and renaming, within and between mounts.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;
use crate::sys::file;

/// A worker whose `/tmp` is another mount than its `/home`.
fn two_mounts() -> Fixture {
    Fixture::with_mounts(Box::new(|root| {
        testing::mount_tmpfs(&root.join("tmp"), "size=8m,mode=1777").unwrap()
    }))
}

#[test]
fn removal_takes_what_it_is_told() {
    let worker = Fixture::new();
    worker.done(&write("/home/t/a/b/c", b""));
    worker.done(&symlink("/home/t/out", "/home/keep"));
    worker.done(&write("/home/keep/x", b""));
    worker.fails(libc::ENOTEMPTY, &remove("/home/t", false));
    worker.done(&remove("/home/t/a/b/c", false));
    worker.done(&remove("/home/t/a/b", false));
    worker.done(&remove("/home/t/a/", false));
    worker.done(&remove("/home/t/out/", true));
    assert_eq!(worker.names("/home", 2), ["keep", "keep/x", "t"]);
    worker.done(&write("/home/t/a/b/c", b""));
    worker.done(&symlink("/home/t/a/out", "/home/keep"));
    worker.done(&remove("/home/t", true));
    assert_eq!(worker.names("/home", 2), ["keep", "keep/x"]);
    worker.done(&remove("/home/keep/x", true));

    for recursive in [false, true] {
        worker.fails(libc::ENOENT, &remove("/home/missing", recursive));
        worker.fails(libc::ENOENT, &remove("/home/missing/x", recursive));
        worker.fails(libc::EBUSY, &remove("/", recursive));
        worker.fails(libc::EBUSY, &remove("///", recursive));
        worker.fails(libc::EINVAL, &remove("/home/..", recursive));
        worker.fails(libc::EINVAL, &remove("/home/.", recursive));
        worker.fails(libc::EACCES, &remove("/etc/passwd", recursive));
    }
    worker.fails(libc::EACCES, &remove("/etc", true));
    assert!(worker.host("/etc/passwd").exists());
}

#[test]
fn removal_stops_at_other_mounts() {
    let worker = Fixture::with_mounts(Box::new(|root| {
        std::fs::create_dir_all(root.join("home/t/mount")).unwrap();
        testing::mount_tmpfs(&root.join("home/t/mount"), "mode=0777").unwrap();
        std::fs::write(root.join("home/t/mount/kept"), "").unwrap();
    }));
    worker.fails(libc::EBUSY, &as_root(remove("/home/t", true)));
    worker.fails(libc::EBUSY, &as_root(remove("/home/t/mount", true)));
    assert_eq!(worker.names("/home/t", 2), ["mount", "mount/kept"]);
    worker.fails(libc::EBUSY, &as_root(rename("/home/t/mount", "/home/u")));
    // A copy would have to take the mount's contents along.
    worker.fails(
        libc::EBUSY,
        &as_root(rename("/home/t", "/home/t/mount/sub")),
    );
    assert_eq!(worker.names("/home/t", 2), ["mount", "mount/kept"]);
}

#[test]
fn renames_are_those_of_the_system() {
    for worker in [Fixture::new(), two_mounts()] {
        worker.done(&write("/home/a", b"a"));
        worker.done(&write("/tmp/b", b"b"));
        worker.done(&mkdir("/home/dir", false));
        worker.done(&mkdir("/tmp/empty", false));
        worker.done(&write("/tmp/full/x", b""));

        worker.fails(libc::ENOENT, &rename("/home/missing", "/tmp/x"));
        worker.fails(libc::ENOENT, &rename("/home/a", "/tmp/missing/x"));
        worker.fails(libc::EISDIR, &rename("/home/a", "/tmp/empty"));
        worker.fails(libc::ENOTDIR, &rename("/home/dir", "/tmp/b"));
        worker.fails(libc::ENOTEMPTY, &rename("/home/dir", "/tmp/full"));
        worker.fails(libc::EINVAL, &rename("/home/dir", "/home/dir/sub"));
        worker.fails(libc::EBUSY, &rename("/", "/tmp/x"));
        worker.fails(libc::EBUSY, &rename("/home/a", "/"));
        worker.fails(libc::EINVAL, &rename("/home/a", "/tmp/.."));
        worker.fails(libc::EACCES, &rename("/etc/passwd", "/tmp/stolen"));
        worker.done(&as_root(write("/tmp/sticky", b"")));
        worker.fails(libc::EPERM, &rename("/tmp/sticky", "/home/stolen"));
        assert_eq!(worker.names("/tmp", 1), ["b", "empty", "full", "sticky"]);
        assert_eq!(worker.names("/home", 1), ["a", "dir"]);

        worker.done(&rename("/home/a", "/tmp/b"));
        assert_eq!(worker.data("/tmp/b"), b"a");
        worker.fails(libc::ENOENT, &stat("/home/a", false));
        worker.done(&rename("/home/dir", "/tmp/empty/"));
        worker.done(&rename("/tmp/full", "/home/moved"));
        assert_eq!(worker.names("/home", 2), ["moved", "moved/x"]);
        assert_eq!(worker.names("/tmp", 1), ["b", "empty", "sticky"]);
    }
}

#[test]
fn a_move_between_mounts_keeps_what_a_tree_is() {
    let worker = two_mounts();
    worker.done(&write("/home/t/sub/file", b"contents"));
    worker.done(&permit("/home/t/sub/file", Some(0o4751), None));
    worker.done(&symlink("/home/t/link", "/nowhere"));
    worker.done(&as_root(write("/home/t/theirs", b"")));
    worker.done(&as_root(permit(
        "/home/t/theirs",
        Some(0o6755),
        Some("7:50"),
    )));
    let home = File::open(worker.host("/home/t")).unwrap();
    file::make_node(home.as_fd(), c"fifo", libc::S_IFIFO | 0o640, 0).unwrap();
    file::set_owner(home.as_fd(), Some(1000), Some(1000)).unwrap();
    for name in [c"sub", c"link", c"theirs", c"fifo"] {
        file::set_modified(home.as_fd(), name, 1_000_000, 5_000_000).unwrap();
    }
    worker.done(&permit("/home/t", Some(0o1750), None));
    worker.done(&as_root(rename("/home/t", "/tmp/moved")));
    assert!(!worker.host("/home/t").exists());
    let (entries, _) = worker.list(&list("/tmp/moved", 3, 100));
    let got: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                str::from_utf8(&entry.path.0).unwrap(),
                entry.stat.mode,
                entry.stat.uid,
                entry.stat.gid,
            )
        })
        .collect();
    let want = [
        ("fifo", libc::S_IFIFO | 0o640, 0, 0),
        ("link", libc::S_IFLNK | 0o777, 1000, 1000),
        ("sub", libc::S_IFDIR | 0o755, 1000, 1000),
        ("sub/file", libc::S_IFREG | 0o4751, 1000, 1000),
        ("theirs", libc::S_IFREG | 0o6755, 7, 50),
    ];
    assert_eq!(got, want);
    assert!(
        entries
            .iter()
            .filter(|entry| entry.path.0 != b"sub/file")
            .all(|entry| entry.stat.modified_ms == 1_000_000_005)
    );
    assert_eq!(entries[1].stat.target, Some(blob("/nowhere")));
    assert_eq!(worker.data("/tmp/moved/sub/file"), b"contents");
    let moved = worker.stat("/tmp/moved");
    assert_eq!((moved.mode & 0o7777, moved.uid), (0o1750, 1000));
}

#[test]
fn a_moved_file_of_somebody_else_loses_its_set_id_bits() {
    let worker = two_mounts();
    worker.done(&write("/home/a", b""));
    worker.done(&as_root(permit("/home/a", Some(0o6755), Some("7:50"))));
    worker.done(&rename("/home/a", "/tmp/a"));
    let got = worker.stat("/tmp/a");
    assert_eq!((got.mode & 0o7777, got.uid), (0o755, 1000));
}

#[test]
fn holes_stay_holes() {
    let worker = two_mounts();
    worker.done(&write("/home/sparse", b"start"));
    let file = File::options()
        .write(true)
        .open(worker.host("/home/sparse"))
        .unwrap();
    file.set_len(1 << 34).unwrap();
    file.write_all_at(b"middle", 1 << 33).unwrap();
    // The other mount has 8 MiB.
    worker.done(&rename("/home/sparse", "/tmp/sparse"));
    let (reply, fds) = worker.ask(&read("/tmp/sparse", 0, u64::MAX));
    assert_eq!(reply, FileReply::Opened { size: 1 << 34 });
    let moved = File::from(fds.into_iter().next().unwrap());
    assert!(moved.metadata().unwrap().blocks() < 100);
    let mut bytes = [0; 6];
    moved.read_exact_at(&mut bytes, 1 << 33).unwrap();
    assert_eq!(&bytes, b"middle");
    moved.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"start\0");
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let worker = two_mounts();
    worker.done(&write("/home/t/a", b"small"));
    worker.done(&write("/home/t/z", b""));
    let large = File::options()
        .write(true)
        .open(worker.host("/home/t/z"))
        .unwrap();
    large.write_all_at(&vec![1; 16 << 20], 0).unwrap();
    worker.fails(libc::ENOSPC, &rename("/home/t", "/tmp/t"));
    worker.fails(libc::ENOSPC, &rename("/home/t/z", "/tmp/z"));
    assert!(worker.names("/tmp", 3).is_empty());
    assert_eq!(worker.names("/home", 3), ["t", "t/a", "t/z"]);

    worker.done(&as_root(write("/home/t/secret", b"")));
    worker.done(&as_root(permit("/home/t/secret", Some(0o600), None)));
    worker.done(&remove("/home/t/z", false));
    worker.fails(libc::EACCES, &rename("/home/t", "/tmp/t"));
    assert!(worker.names("/tmp", 3).is_empty());
}

#[test]
fn directories_of_a_lower_layer_are_moved() {
    let worker = Fixture::with_mounts(Box::new(|root| {
        for name in ["lower/dir/sub", "upper", "work", "over"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("lower/dir/sub/file"), "lower").unwrap();
        testing::mount_overlay(
            &root.join("over"),
            &root.join("lower"),
            &root.join("upper"),
            &root.join("work"),
        )
        .unwrap();
    }));
    worker.done(&as_root(rename("/over/dir", "/over/moved")));
    assert_eq!(
        worker.names("/over", 3),
        ["moved", "moved/sub", "moved/sub/file"]
    );
    assert_eq!(worker.data("/over/moved/sub/file"), b"lower");
    worker.fails(
        libc::EINVAL,
        &as_root(rename("/over/moved", "/over/moved/sub/x")),
    );
    // A new tree in the place of a removed one shows nothing of it.
    worker.done(&as_root(mkdir("/over/dir", false)));
    assert!(worker.names("/over/dir", 3).is_empty());
    worker.done(&as_root(remove("/over/moved", true)));
    assert_eq!(worker.names("/over", 3), ["dir"]);
}
