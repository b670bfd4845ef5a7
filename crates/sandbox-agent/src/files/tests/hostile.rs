//! Names, trees and requests that somebody made to cause trouble.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbox_agent::protocol::Wire;

use super::*;
use crate::sys::file;

#[test]
fn odd_names_are_names() {
    let worker = Fixture::new();
    let long = [b'x'; 255];
    let names: [&[u8]; 9] = [
        b"-rf",
        b"--",
        b"new\nline",
        b"\xff\xfe",
        b" ",
        b"...",
        b"\x1b[31m",
        b"a\\b\"c'",
        &long,
    ];
    for name in names {
        let path = [b"/home/odd/", name].concat();
        worker.done(&write(path.as_slice(), name));
        assert_eq!(
            worker.ask(&read(path.as_slice(), 0, 300)).0,
            FileReply::Data {
                data: blob(name),
                size: name.len() as u64
            }
        );
        assert_eq!(worker.stat(path.as_slice()).size, name.len() as u64);
    }
    let (entries, _) = worker.list(&list("/home/odd", 1, 100));
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.path.0.as_slice())
            .collect::<Vec<_>>(),
        sorted
    );
    for name in names {
        let path = [b"/home/odd/", name].concat();
        worker.done(&rename(path.as_slice(), "/home/odd/plain"));
        worker.done(&rename("/home/odd/plain", path));
    }
    worker.done(&remove("/home/odd", true));
}

#[test]
fn paths_outside_the_rules_are_refused() {
    let worker = Fixture::new();
    let requests: [fn(Vec<u8>) -> FileRequest; 12] = [
        |path| read(path, 0, 1),
        |path| write(path, b""),
        |path| create(path, None),
        |path| stat(path, true),
        |path| stat(path, false),
        |path| list(path, 1, 1),
        |path| mkdir(path, true),
        |path| mkdir(path, false),
        |path| rename(path, "/home/b"),
        |path| rename("/home", path),
        |path| remove(path, true),
        |path| permit(path, None, None),
    ];
    let too_long = [vec![b'/'; 2], vec![b'a'; 4094]].concat();
    let long_name = [b"/home/".to_vec(), vec![b'a'; 256]].concat();
    for (path, errno) in [
        (b"".to_vec(), libc::EINVAL),
        (b"nul\0/x".to_vec(), libc::EINVAL),
        (b"/home/nul\0/x".to_vec(), libc::EINVAL),
        (b"\0".to_vec(), libc::EINVAL),
        (too_long, libc::ENAMETOOLONG),
        (vec![b'/'; 1 << 20], libc::ENAMETOOLONG),
        (long_name, libc::ENAMETOOLONG),
    ] {
        for request in requests {
            let (got, message) = worker.failure(&request(path.clone()));
            assert_eq!(got, errno, "{message}");
            assert!(message.len() < 1000);
        }
    }
    worker.fails(libc::EINVAL, &symlink("", "x"));
    assert!(worker.names("/home", 1).is_empty());
    // The longest path that there is.
    let longest = [vec![b'/'; 4090], b"home/".to_vec()].concat();
    assert_eq!(worker.stat(longest).uid, 1000);
}

/// Makes directories inside each other, deeper than any path can name.
fn nest(at: &std::path::Path, depth: usize, name: &str) -> OwnedFd {
    let name = CString::new(name).unwrap();
    let mut dir = OwnedFd::from(File::open(at).unwrap());
    for _ in 0..depth {
        file::make_dir(dir.as_fd(), &name, 0o777).unwrap();
        let next =
            file::open(dir.as_fd(), &name, libc::O_RDONLY | libc::O_DIRECTORY, 0, 0).unwrap();
        file::set_owner(next.as_fd(), Some(1000), Some(1000)).unwrap();
        dir = next;
    }
    dir
}

#[test]
fn endless_trees_end() {
    let worker = Fixture::new();
    nest(&worker.host("/home"), 3000, "deeper-and-deeper");
    let (entries, end) = worker.list(&list("/home", u32::MAX, 1_000_000));
    assert!(entries.iter().all(|entry| entry.path.0.len() < 4096));
    assert_eq!(entries.len(), 4096 / 18);
    assert!(
        matches!(
            end,
            FileReply::Failed {
                errno: libc::ENAMETOOLONG,
                ..
            }
        ),
        "{end:?}"
    );
    worker.done(&remove("/home/deeper-and-deeper", true));
    assert!(worker.names("/home", 1).is_empty());
}

#[test]
fn a_tree_deeper_than_any_path_is_moved() {
    let worker = Fixture::with_mounts(Box::new(|root| {
        testing::mount_tmpfs(&root.join("tmp"), "mode=1777").unwrap()
    }));
    let last = nest(&worker.host("/home"), 500, "a-long-name-for-a-directory");
    file::make_node(last.as_fd(), c"bottom", libc::S_IFREG | 0o644, 0).unwrap();
    drop(last);
    worker.done(&rename("/home/a-long-name-for-a-directory", "/tmp/moved"));
    assert!(worker.names("/home", 1).is_empty());
    let (entries, end) = worker.list(&list("/tmp", 1000, 1_000_000));
    assert!(
        entries.len() > 100
            && matches!(
                end,
                FileReply::Failed {
                    errno: libc::ENAMETOOLONG,
                    ..
                }
            )
    );
    worker.done(&rename("/tmp/moved", "/home/back"));
    worker.done(&remove("/home/back", true));
}

#[test]
fn only_some_directories_are_held_open() {
    let dir = tempfile::tempdir().unwrap();
    nest(dir.path(), 300, "d");
    let root = OwnedFd::from(File::open(dir.path()).unwrap());
    let mut ladder = super::super::walk::Ladder::new(root).unwrap();
    for _ in 0..300 {
        ladder.push(c"d", true).unwrap();
    }
    assert!(ladder.held() <= 65, "{}", ladder.held());
    for _ in 0..300 {
        ladder.pop().unwrap();
    }
    let inode = file::status(ladder.top().unwrap()).unwrap().st_ino;
    assert_eq!(
        inode,
        file::status(File::open(dir.path()).unwrap().as_fd())
            .unwrap()
            .st_ino
    );
}

#[test]
fn a_directory_moved_away_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    nest(dir.path(), 200, "d");
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let root = OwnedFd::from(File::open(dir.path()).unwrap());
    let mut ladder = super::super::walk::Ladder::new(root).unwrap();
    for _ in 0..200 {
        ladder.push(c"d", true).unwrap();
    }
    let moved = dir.path().join("d/".repeat(100));
    std::fs::rename(moved, dir.path().join("elsewhere/d")).unwrap();
    let error = (0..200).find_map(|_| ladder.pop().err()).unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
}

#[test]
fn large_directories_are_read_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let parent = File::open(dir.path()).unwrap();
    for n in 0..60_000 {
        file::make_node(
            parent.as_fd(),
            &CString::new(format!("{n}")).unwrap(),
            libc::S_IFREG,
            0,
        )
        .unwrap();
    }
    let mut walk = super::super::walk::Walk::new(parent.into(), true).unwrap();
    let mut names = Vec::new();
    while let super::super::walk::Step::Entry(name) = walk.step().unwrap() {
        names.push(name);
    }
    assert_eq!(names.len(), 60_000);
    assert!(names.is_sorted());
}

#[test]
fn a_tree_that_changes_is_still_answered() {
    let worker = Fixture::with_mounts(Box::new(|root| {
        testing::mount_tmpfs(&root.join("tmp"), "mode=1777").unwrap()
    }));
    let stop = Arc::new(AtomicBool::new(false));
    let base = worker.host("/home/t");
    std::fs::create_dir(&base).unwrap();
    std::os::unix::fs::chown(&base, Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o777)).unwrap();
    let decoy = worker.host("/home/decoy");
    std::fs::write(&decoy, "decoy").unwrap();
    let churn = {
        let (stop, base, decoy) = (Arc::clone(&stop), base.clone(), decoy.clone());
        std::thread::spawn(move || {
            let mut n = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                n = n.wrapping_add(1);
                let (a, b) = (base.join("a"), base.join(format!("b{}", n % 7)));
                let _ = std::fs::create_dir_all(a.join("x/y"));
                let _ = std::fs::write(a.join("x/y/z"), "z");
                let _ = std::fs::rename(&a, &b);
                let _ = std::os::unix::fs::symlink(&decoy, &a);
                let _ = std::fs::remove_file(&a);
                let _ = std::fs::remove_dir_all(&b);
                let _ = std::os::unix::fs::symlink("..", &a);
                let _ = std::fs::remove_file(&a);
            }
        })
    };
    for _ in 0..200 {
        worker.list(&list("/home/t", 10, 1000));
        worker.ask(&as_root(remove("/home/t/a", true)));
        worker.ask(&as_root(rename("/home/t/b1", "/tmp/b1")));
        worker.ask(&as_root(remove("/tmp/b1", true)));
        worker.ask(&read("/home/t/a/x/y/z", 0, 10));
        worker.ask(&as_root(write("/home/t/b2/x/y/z", b"w")));
    }
    stop.store(true, Ordering::Relaxed);
    churn.join().unwrap();
    assert_eq!(std::fs::read(decoy).unwrap(), b"decoy");
    worker.done(&as_root(remove("/home/t", true)));
}

#[test]
fn hanging_up_ends_a_long_operation() {
    let mut worker = Fixture::new();
    worker.done(&mkdir("/home/many", false));
    for n in 0..5000 {
        std::fs::write(worker.host("/home/many").join(n.to_string()), "").unwrap();
    }
    let socket = worker.socket.take().unwrap();
    socket::send(socket.as_fd(), &list("/home/many", 1, 5000).encode(), &[]).unwrap();
    drop(socket);
    // Ends although nobody took the entries.
    worker.worker.take().unwrap().join().unwrap();
    worker.worker = Some(std::thread::spawn(|| ()));
}
