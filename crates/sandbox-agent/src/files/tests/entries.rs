//! Describing, listing, and making directories and links.

use std::os::unix::fs::MetadataExt;

use sandbox_agent::protocol::files::FileReply;
use sandbox_agent::protocol::{MAX_CHUNK, Wire};

use super::*;

#[test]
fn stat_tells_what_a_file_is() {
    let worker = Fixture::new();
    worker.done(&write("/home/a", b"12345"));
    worker.done(&symlink("/home/link", "a"));
    let file = std::fs::metadata(worker.host("/home/a")).unwrap();
    let got = worker.stat("/home/a");
    assert_eq!(
        (got.mode, got.size, got.uid, got.gid),
        (libc::S_IFREG | 0o644, 5, 1000, 1000)
    );
    assert_eq!(
        (
            got.user.as_deref(),
            got.group.as_deref(),
            got.target.clone()
        ),
        (Some("user"), Some("user"), None)
    );
    assert_eq!(
        got.modified_ms,
        file.mtime() * 1000 + file.mtime_nsec() / 1_000_000
    );

    let link = worker.stat("/home/link");
    assert_eq!(
        (link.mode & libc::S_IFMT, link.target),
        (libc::S_IFLNK, Some(blob("a")))
    );
    assert_eq!(
        worker.ask(&stat("/home/link", true)).0,
        FileReply::Stat { stat: got }
    );
    assert_eq!(worker.stat("/").mode & libc::S_IFMT, libc::S_IFDIR);
    assert_eq!(worker.stat("/home/").uid, 1000);

    worker.done(&symlink("/home/dangling", "/nowhere"));
    assert_eq!(worker.stat("/home/dangling").target, Some(blob("/nowhere")));
    worker.fails(libc::ENOENT, &stat("/home/dangling", true));
    worker.fails(libc::ENOENT, &stat("/home/missing", false));
    worker.fails(libc::ENOTDIR, &stat("/home/a/", false));
    worker.fails(libc::EACCES, &stat("/root/secret", false));
}

#[test]
fn names_of_ids_follow_the_account_files() {
    let worker = Fixture::new();
    worker.done(&as_root(write("/tmp/a", b"")));
    worker.done(&as_root(permit("/tmp/a", None, Some("7:50"))));
    let got = worker.stat("/tmp/a");
    assert_eq!(
        (got.user.as_deref(), got.group.as_deref()),
        (Some("ann"), Some("staff"))
    );
    worker.done(&as_root(write("/etc/passwd", b"bob:x:7:7::/:\n")));
    assert_eq!(worker.stat("/tmp/a").user.as_deref(), Some("bob"));
    worker.done(&as_root(remove("/etc/passwd", false)));
    worker.done(&as_root(symlink("/etc/passwd", "/etc/passwd")));
    assert_eq!(worker.stat("/tmp/a").user, None);
}

#[test]
fn listings_are_sorted_and_as_deep_as_asked() {
    let worker = Fixture::new();
    for path in ["b/2", "b/1/x", "a", "c/deep/deeper/deepest", "b.txt"] {
        worker.done(&write(format!("/home/l/{path}"), b""));
    }
    worker.done(&symlink("/home/l/b/loop", ".."));
    assert_eq!(worker.names("/home/l", 1), ["a", "b", "b.txt", "c"]);
    assert_eq!(
        worker.names("/home/l", 2),
        ["a", "b", "b/1", "b/2", "b/loop", "b.txt", "c", "c/deep"]
    );
    let all = worker.names("/home/l", u32::MAX);
    assert_eq!(all[2..6], ["b/1", "b/1/x", "b/2", "b/loop"]);
    assert_eq!(all.last().unwrap(), "c/deep/deeper/deepest");
    // The listed path itself may be a link, and an empty directory has no entries.
    worker.done(&symlink("/home/to", "l/b/1"));
    assert_eq!(worker.names("/home/to", 5), ["x"]);
    worker.done(&mkdir("/home/empty", false));
    assert!(worker.names("/home/empty", 5).is_empty());

    let (entries, _) = worker.list(&list("/home/l/b", 1, 10));
    assert_eq!(entries[2].stat.target, Some(blob("..")));
    assert_eq!(entries[1].stat.user.as_deref(), Some("user"));
}

#[test]
fn listings_name_what_is_wrong() {
    let worker = Fixture::new();
    worker.done(&write("/home/file", b""));
    worker.fails(libc::EINVAL, &list("/home", 0, 10));
    worker.fails(libc::ENOTDIR, &list("/home/file", 1, 10));
    worker.fails(libc::ENOENT, &list("/home/missing", 1, 10));
    worker.fails(libc::EACCES, &list("/root", 1, 10));
    // A directory inside that may not be read is shown without its entries.
    worker.done(&as_root(write("/root/secret", b"")));
    let names = worker.names("/", 3);
    assert!(
        names.iter().any(|name| name == "root")
            && !names.iter().any(|name| name.starts_with("root/"))
    );
    assert!(names.iter().any(|name| name == "etc/passwd"));
}

#[test]
fn directories_without_access_to_their_entries_are_passed_over() {
    let worker = Fixture::new();
    worker.done(&write("/home/l/names/only", b""));
    worker.done(&permit("/home/l/names", Some(0o444), None));
    assert_eq!(worker.names("/home/l", 3), ["names"]);
    worker.fails(libc::EACCES, &list("/home/l/names", 1, 10));
}

#[test]
fn long_listings_come_in_packets_and_end_at_the_limit() {
    let worker = Fixture::new();
    worker.done(&mkdir("/home/many", false));
    for n in 0..3000 {
        std::fs::write(
            worker
                .host("/home/many")
                .join(format!("{n:05}-{}", "x".repeat(200))),
            "",
        )
        .unwrap();
    }
    let (all, end) = worker.list(&list("/home/many", 1, 3000));
    assert_eq!((all.len(), end), (3000, FileReply::Done {}));
    assert!(all.is_sorted_by_key(|entry| entry.path.0.clone()));
    assert!(FileReply::Entries { entries: all }.encode().len() > 5 * MAX_CHUNK);
    for limit in [0, 1, 2999] {
        let (some, end) = worker.list(&list("/home/many", 1, limit));
        assert_eq!(some.len() as u64, limit);
        let FileReply::Failed { errno, message } = end else {
            panic!("{end:?}")
        };
        assert_eq!(errno, libc::EOVERFLOW);
        assert!(message.contains("limit"), "{message}");
    }
}

#[test]
fn directories_are_made() {
    let worker = Fixture::new();
    worker.done(&mkdir("/home/a", false));
    assert_eq!(
        (worker.mode("/home/a"), worker.stat("/home/a").uid),
        (0o755, 1000)
    );
    worker.fails(libc::EEXIST, &mkdir("/home/a", false));
    worker.done(&mkdir("/home/a", true));
    worker.fails(libc::ENOENT, &mkdir("/home/b/c/d", false));
    worker.done(&mkdir("/home/b/c/d/", true));
    assert_eq!(worker.names("/home/b", 3), ["c", "c/d"]);
    worker.done(&write("/home/file", b""));
    worker.fails(libc::EEXIST, &mkdir("/home/file", true));
    worker.fails(libc::EEXIST, &mkdir("/home/file", false));
    worker.fails(libc::ENOTDIR, &mkdir("/home/file/sub", true));
    worker.fails(libc::EACCES, &mkdir("/etc/mine", true));
    for odd in ["/", "/home/..", "/home/."] {
        worker.fails(libc::EEXIST, &mkdir(odd, false));
        worker.done(&mkdir(odd, true));
    }
    worker.done(&symlink("/home/link", "a"));
    worker.done(&mkdir("/home/link", true));
    worker.done(&symlink("/home/dangling", "/home/nowhere"));
    worker.fails(libc::EEXIST, &mkdir("/home/dangling", true));
    for wanted in [0o700, 0o1777, 0o2775, 0] {
        let path = format!("/home/mode-{wanted}");
        let request = FileRequest::Mkdir {
            path: blob(path.as_str()),
            user: None,
            mode: Some(wanted),
            parents: true,
        };
        worker.done(&request);
        assert_eq!(worker.mode(&path), wanted);
    }
    // The mode is of the last one only; those above can be used.
    let request = FileRequest::Mkdir {
        path: blob("/home/p/q"),
        user: None,
        mode: Some(0o500),
        parents: true,
    };
    worker.done(&request);
    assert_eq!(
        (worker.mode("/home/p"), worker.mode("/home/p/q")),
        (0o755, 0o500)
    );
}

#[test]
fn relative_paths_start_at_the_home_of_the_user() {
    let worker = Fixture::new();
    worker.done(&as_root(write("note", b"root's")));
    assert_eq!(std::fs::read(worker.host("/root/note")).unwrap(), b"root's");
    worker.done(&mkdir("/home/user", false));
    worker.done(&write("a/note", b"user's"));
    worker.done(&rename("a/note", "./a/../moved"));
    assert_eq!(
        std::fs::read(worker.host("/home/user/moved")).unwrap(),
        b"user's"
    );
    worker.done(&symlink("link", "moved"));
    assert_eq!(worker.stat("/home/user/link").target, Some(blob("moved")));
    // What a link leads to is not looked for at home.
    worker.done(&as_root(symlink("/tmp/link", "note")));
    worker.fails(libc::ENOENT, &as_root(read("/tmp/link", 0, 1)));
    // With the home before it, no more than 4095 bytes.
    let longest = [b"./".repeat(2039), b"moved".to_vec()].concat();
    worker.done(&permit(longest.clone(), Some(0o600), None));
    let too_long = [b"./".to_vec(), longest].concat();
    worker.fails(libc::ENAMETOOLONG, &stat(too_long, true));
}

#[test]
fn links_are_made() {
    let worker = Fixture::new();
    worker.done(&symlink("/home/a", "-n\nasty"));
    assert_eq!(worker.stat("/home/a").target, Some(blob("-n\nasty")));
    worker.fails(libc::EEXIST, &symlink("/home/a", "other"));
    worker.fails(libc::ENOENT, &symlink("/home/missing/a", "b"));
    worker.fails(libc::EINVAL, &symlink("/home/b", ""));
    worker.fails(libc::EINVAL, &symlink("/home/b", "nul\0"));
    worker.fails(libc::ENAMETOOLONG, &symlink("/home/b", vec![b'x'; 5000]));
    worker.fails(libc::EBUSY, &symlink("/", "b"));
    worker.fails(libc::EINVAL, &symlink("/home/..", "b"));
}

#[test]
fn permissions_and_owners_change() {
    let worker = Fixture::new();
    worker.done(&write("/home/a", b""));
    worker.done(&permit("/home/a", Some(0o4711), None));
    assert_eq!(worker.mode("/home/a"), 0o4711);
    // Type bits are no permissions.
    worker.done(&permit("/home/a", Some(libc::S_IFDIR | 0o600), None));
    assert_eq!(worker.stat("/home/a").mode, libc::S_IFREG | 0o600);
    worker.done(&permit("/home/a", None, None));
    worker.done(&permit("/home/a", None, Some("1000:1000")));
    worker.fails(libc::EPERM, &permit("/home/a", None, Some("root")));
    worker.fails(libc::EPERM, &permit("/etc/passwd", Some(0o777), None));
    worker.fails(libc::ENOENT, &permit("/home/a", None, Some("no-such")));
    worker.fails(libc::EINVAL, &permit("/home/a", None, Some("")));
    worker.fails(libc::ENOENT, &permit("/home/missing", Some(0o600), None));

    for (owner, uid, gid) in [
        ("ann", 7, 1000),
        ("ann:staff", 7, 50),
        ("0:1000", 0, 1000),
        (":8", 0, 8),
        ("1000", 1000, 8),
    ] {
        worker.done(&as_root(permit("/home/a", Some(0o2755), Some(owner))));
        let got = worker.stat("/home/a");
        assert_eq!(
            (got.uid, got.gid, got.mode & 0o7777),
            (uid, gid, 0o2755),
            "{owner}"
        );
    }
    worker.done(&symlink("/home/link", "a"));
    worker.done(&permit("/home/link", Some(0o640), None));
    assert_eq!(worker.mode("/home/a"), 0o640);
}
