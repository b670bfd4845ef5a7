//! Reading, writing and creating.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use sandbox_agent::protocol::MAX_CHUNK;
use sandbox_agent::protocol::files::{FileReply, FileRequest};

use super::*;

fn opened(reply: (FileReply, Vec<OwnedFd>)) -> (File, u64) {
    let (FileReply::Opened { size }, mut fds) = reply else {
        panic!("{:?}", reply.0)
    };
    assert_eq!(fds.len(), 1);
    (File::from(fds.remove(0)), size)
}

#[test]
fn what_is_written_can_be_read() {
    let worker = Fixture::new();
    for len in [0, 1, 4096, MAX_CHUNK, MAX_CHUNK + 1, 300_000] {
        let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        worker.done(&write("/home/a", &data));
        assert_eq!(std::fs::read(worker.host("/home/a")).unwrap(), data);
        let reply = worker.ask(&read("/home/a", 0, len as u64));
        if len <= MAX_CHUNK {
            assert_eq!(
                reply.0,
                FileReply::Data {
                    data: blob(data),
                    size: len as u64
                }
            );
            assert!(reply.1.is_empty());
        } else {
            let (mut file, size) = opened(reply);
            let mut got = Vec::new();
            file.read_to_end(&mut got).unwrap();
            assert!(got == data && size == len as u64);
        }
    }
}

#[test]
fn ranges_end_with_the_file() {
    let worker = Fixture::new();
    worker.done(&write("/home/a", b"0123456789"));
    for (offset, len, want) in [
        (0, 4, &b"0123"[..]),
        (8, 4, b"89"),
        (10, 4, b""),
        (11, 4, b""),
        (3, 0, b""),
        (u64::MAX, 4, b""),
        (i64::MAX as u64, 4, b""),
    ] {
        let reply = worker.ask(&read("/home/a", offset, len)).0;
        assert_eq!(
            reply,
            FileReply::Data {
                data: blob(want),
                size: 10
            },
            "{offset} {len}"
        );
    }
    let (file, size) = opened(worker.ask(&read("/home/a", u64::MAX, u64::MAX)));
    assert_eq!((file.metadata().unwrap().len(), size), (10, 10));
}

#[test]
fn descriptors_go_one_way() {
    let worker = Fixture::new();
    worker.done(&write("/home/a", b"old"));
    let (file, _) = opened(worker.ask(&read("/home/a", 0, u64::MAX)));
    assert_eq!(
        testing::open_flags(file.as_fd()) & libc::O_ACCMODE,
        libc::O_RDONLY
    );
    let (mut file, size) = opened(worker.ask(&create("/home/a", None)));
    assert_eq!(
        testing::open_flags(file.as_fd()) & libc::O_ACCMODE,
        libc::O_WRONLY
    );
    assert_eq!((size, file.metadata().unwrap().len()), (0, 0));
    file.write_all(b"new").unwrap();
    assert_eq!(worker.data("/home/a"), b"new");
}

#[test]
fn new_files_and_parents_belong_to_the_user() {
    let worker = Fixture::new();
    worker.done(&write("/home/x/y/z", b"1"));
    for (path, mode) in [
        ("/home/x", 0o755),
        ("/home/x/y", 0o755),
        ("/home/x/y/z", 0o644),
    ] {
        let file = std::fs::metadata(worker.host(path)).unwrap();
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o7777),
            (1000, 1000, mode),
            "{path}"
        );
    }
    opened(worker.ask(&as_root(create("/opt/lib/a", Some(0o666)))));
    let file = std::fs::metadata(worker.host("/opt/lib/a")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (0, 0o666));
    assert_eq!(std::fs::metadata(worker.host("/opt/lib")).unwrap().uid(), 0);
}

#[test]
fn existing_files_keep_inode_and_mode_unless_asked() {
    let worker = Fixture::new();
    worker.done(&write("/home/a", b"long old contents"));
    worker.done(&permit("/home/a", Some(0o640), None));
    let inode = std::fs::metadata(worker.host("/home/a")).unwrap().ino();
    worker.done(&write("/home/a", b"new"));
    let file = std::fs::metadata(worker.host("/home/a")).unwrap();
    assert_eq!(
        (file.ino(), file.len(), file.mode() & 0o7777),
        (inode, 3, 0o640)
    );
    let mut request = write("/home/a", b"x");
    for wanted in [0o600, 0o777, 0o4755, 0o200] {
        let FileRequest::Write { mode, .. } = &mut request else {
            unreachable!()
        };
        *mode = Some(wanted);
        worker.done(&request);
        assert_eq!(worker.mode("/home/a"), wanted);
    }
    opened(worker.ask(&create("/home/a", Some(0o755))));
    assert_eq!(worker.mode("/home/a"), 0o755);
    opened(worker.ask(&create("/home/unreadable", Some(0))));
    assert_eq!(worker.mode("/home/unreadable"), 0);
}

#[test]
fn the_rights_are_the_users() {
    let worker = Fixture::new();
    worker.done(&as_root(write("/root/secret", b"s")));
    worker.fails(libc::EACCES, &read("/root/secret", 0, 1));
    worker.fails(libc::EACCES, &write("/root/new", b""));
    worker.fails(libc::EACCES, &write("/etc/passwd", b""));
    worker.fails(libc::EACCES, &write("/new/parents/a", b""));
    assert_eq!(
        worker.ask(&as_root(read("/root/secret", 0, 1))).0,
        FileReply::Data {
            data: blob("s"),
            size: 1
        }
    );
    // Coming back from root leaves nothing of it.
    worker.fails(libc::EACCES, &read("/root/secret", 0, 1));

    std::fs::write(worker.host("/tmp/group"), "g").unwrap();
    std::os::unix::fs::chown(worker.host("/tmp/group"), Some(0), Some(50)).unwrap();
    std::fs::set_permissions(worker.host("/tmp/group"), PermissionsExt::from_mode(0o640)).unwrap();
    worker.fails(libc::EACCES, &read("/tmp/group", 0, 1));
    let ask = |name: &str| {
        let request = FileRequest::Read {
            path: blob("/tmp/group"),
            user: Some(name.into()),
            offset: 0,
            len: 1,
        };
        worker.ask(&request).0
    };
    // Supplementary groups count, and an explicit group replaces them.
    assert_eq!(
        ask("ann"),
        FileReply::Data {
            data: blob("g"),
            size: 1
        }
    );
    assert!(matches!(
        ask("ann:8"),
        FileReply::Failed {
            errno: libc::EACCES,
            ..
        }
    ));
    assert!(matches!(ask("4242:50"), FileReply::Data { .. }));
    for (nobody, errno) in [
        ("no-such", libc::ENOENT),
        ("ann:no-such", libc::ENOENT),
        ("70000", libc::EINVAL),
        ("", libc::EINVAL),
    ] {
        let FileReply::Failed {
            errno: got,
            message,
        } = ask(nobody)
        else {
            panic!("{nobody}")
        };
        assert_eq!(got, errno, "{message}");
    }
    // The worker goes on after a user that does not exist.
    assert_eq!(
        ask("ann"),
        FileReply::Data {
            data: blob("g"),
            size: 1
        }
    );
}

#[test]
fn only_regular_files_have_contents() {
    let worker = Fixture::new();
    worker.done(&mkdir("/home/dir", false));
    let home = File::open(worker.host("/home")).unwrap();
    crate::sys::file::make_node(home.as_fd(), c"fifo", libc::S_IFIFO | 0o666, 0).unwrap();
    crate::sys::file::make_node(
        home.as_fd(),
        c"device",
        libc::S_IFCHR | 0o666,
        libc::makedev(1, 5),
    )
    .unwrap();
    crate::sys::file::make_node(
        home.as_fd(),
        c"disk",
        libc::S_IFBLK | 0o666,
        libc::makedev(7, 200),
    )
    .unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(worker.host("/home/socket")).unwrap();
    for (name, errno, kind) in [
        ("dir", libc::EISDIR, "a directory"),
        ("fifo", libc::EINVAL, "a fifo"),
        ("device", libc::EINVAL, "a character device"),
        ("disk", libc::EINVAL, "a block device"),
        ("socket", libc::EINVAL, "a socket"),
    ] {
        let path = format!("/home/{name}");
        worker.done(&symlink(format!("{path}-link"), path.as_str()));
        for path in [path.clone(), format!("{path}-link")] {
            for request in [
                read(path.as_str(), 0, 1),
                read(path.as_str(), 0, u64::MAX),
                write(path.as_str(), b"x"),
                create(path.as_str(), None),
            ] {
                let (got, message) = worker.failure(&request);
                assert_eq!(got, errno, "{message}");
                assert!(message.contains(kind), "{message}");
            }
        }
        // Its permissions are nobody's contents.
        assert_ne!(
            worker.stat(path.as_str()).mode & libc::S_IFMT,
            libc::S_IFREG
        );
    }
}

#[test]
fn paths_that_lead_nowhere_are_named() {
    let worker = Fixture::new();
    worker.done(&write("/home/file", b""));
    worker.done(&symlink("/home/loop", "loop"));
    worker.done(&symlink("/home/ping", "pong"));
    worker.done(&symlink("/home/pong", "ping"));
    worker.fails(libc::ENOENT, &read("/home/missing", 0, 1));
    worker.fails(libc::ENOTDIR, &read("/home/file/below", 0, 1));
    worker.fails(libc::ENOTDIR, &write("/home/file/below", b""));
    worker.fails(libc::ELOOP, &read("/home/loop", 0, 1));
    worker.fails(libc::ELOOP, &write("/home/ping", b""));
    worker.fails(libc::ELOOP, &create("/home/ping/x", None));
    worker.fails(libc::EISDIR, &write("/home/new/", b""));
    let (_, message) = worker.failure(&read("/home/missing", 0, 1));
    assert_eq!(message, "open \"/home/missing\": no such file or directory");
}

#[test]
fn links_are_followed() {
    let worker = Fixture::new();
    worker.done(&symlink("/home/link", "/home/target"));
    worker.done(&write("/home/link", b"through"));
    assert_eq!(worker.data("/home/target"), b"through");
    assert_eq!(worker.data("/home/link"), b"through");
    worker.done(&symlink("/home/dir", "real"));
    worker.done(&mkdir("/home/real", false));
    worker.done(&write("/home/dir/sub/a", b"1"));
    assert_eq!(worker.data("/home/real/sub/a"), b"1");
    // A link to nowhere in the middle is not made into something.
    worker.done(&symlink("/home/nowhere", "/home/none"));
    worker.fails(libc::ENOENT, &write("/home/nowhere/a", b"1"));
    // And one that climbs out of the root stays in it.
    worker.done(&symlink("/home/up", "../../../../../etc/passwd"));
    assert!(worker.data("/home/up").starts_with(b"root:x:0:0"));
}

#[test]
fn holes_are_zeros() {
    let worker = Fixture::new();
    worker.done(&write("/home/a", b""));
    let file = File::options()
        .write(true)
        .open(worker.host("/home/a"))
        .unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"end", (1 << 40) - 3).unwrap();
    let reply = worker.ask(&read("/home/a", (1 << 40) - 5, 100)).0;
    assert_eq!(
        reply,
        FileReply::Data {
            data: blob(b"\0\0end"),
            size: 1 << 40
        }
    );
}

#[test]
fn a_full_disk_is_an_error() {
    let worker = Fixture::with_mounts(Box::new(|root| {
        testing::mount_tmpfs(&root.join("tmp"), "size=64k,mode=1777").unwrap();
    }));
    worker.fails(libc::ENOSPC, &write("/tmp/a", &[0; 200_000]));
    worker.done(&remove("/tmp/a", false));
    worker.done(&write("/tmp/a", &[0; 1000]));
}

#[test]
fn a_lease_is_an_error_and_no_wait() {
    let worker = Fixture::new();
    worker.done(&write("/home/a", b"1"));
    let file = File::options()
        .read(true)
        .write(true)
        .open(worker.host("/home/a"))
        .unwrap();
    testing::lease(file.as_fd()).unwrap();
    let (errno, message) = worker.failure(&read("/home/a", 0, 1));
    assert_eq!(errno, libc::EAGAIN);
    assert!(message.contains("lease"), "{message}");
    worker.fails(libc::EAGAIN, &write("/home/a", b""));
    drop(file);
    assert_eq!(worker.data("/home/a"), b"1");
}

#[test]
fn files_of_the_kernel_are_copied() {
    let (socket, worker) = start(false, || ());
    let pid = std::process::id();
    // Another process, because the worker shows nothing of its own. It ends with its standard input.
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let score = format!("/proc/{}/oom_score_adj", child.id());
    let read = |len| ask(&socket, &as_root(read(score.as_str(), 0, len)));

    assert_eq!(
        ask(&socket, &as_root(write(score.as_str(), b"500"))).0,
        FileReply::Done {}
    );
    assert_eq!(std::fs::read(&score).unwrap(), b"500\n");
    let data = |text: &str| FileReply::Data {
        data: blob(text),
        size: 4,
    };
    assert_eq!(read(100).0, data("500\n"));
    let tail = super::read(score.as_str(), 1, 2);
    assert_eq!(ask(&socket, &as_root(tail)).0, data("00"));
    let past = super::read(score.as_str(), 9, 2);
    assert_eq!(ask(&socket, &as_root(past)).0, data(""));
    let (mut copy, size) = opened(read(u64::MAX));
    let mut text = String::new();
    copy.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), size), ("500\n", 4));
    assert_eq!(
        testing::open_flags(copy.as_fd()) & libc::O_ACCMODE,
        libc::O_RDONLY
    );
    let (refused, fds) = ask(&socket, &as_root(create(score.as_str(), None)));
    assert!(
        matches!(
            refused,
            FileReply::Failed {
                errno: libc::EINVAL,
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(fds.is_empty());
    drop(child.stdin.take());
    child.wait().unwrap();

    for own in [
        "/proc/self/environ",
        "/proc/self/task/../maps",
        "/proc/thread-self/comm",
        &format!("/proc/{pid}/mem"),
        "/proc/self",
    ] {
        let (reply, _) = ask(&socket, &as_root(super::read(own, 0, 10)));
        assert!(
            matches!(
                reply,
                FileReply::Failed {
                    errno: libc::EACCES,
                    ..
                }
            ),
            "{own}: {reply:?}"
        );
    }
    for magic in [
        "/proc/self/root/etc/passwd",
        "/proc/self/fd/0",
        "/proc/self/cwd",
        "/dev/stdin",
    ] {
        let (reply, _) = ask(&socket, &as_root(super::read(magic, 0, 10)));
        assert!(
            matches!(
                reply,
                FileReply::Failed {
                    errno: libc::ELOOP,
                    ..
                }
            ),
            "{magic}: {reply:?}"
        );
    }
    drop(socket);
    worker.join().unwrap();
}
