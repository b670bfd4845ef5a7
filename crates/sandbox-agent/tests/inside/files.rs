//! The file worker of a real sandbox: its users, mounts and kernel files.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use sandbox_agent::protocol::Wire as _;
use sandbox_agent::protocol::agent::Request;
use sandbox_agent::protocol::files::{FileReply, FileRequest};

use crate::client::{Client, DEADLINE};
use crate::harness::eventually;
use crate::world::World;

/// A connection to a file worker.
struct Worker(Client);

impl Worker {
    fn new(world: &World) -> Self {
        let client = world.address.connect();
        client.send(&Request::Files { watch: false });
        Self(client)
    }

    fn ask(&self, request: &FileRequest) -> (FileReply, Vec<OwnedFd>) {
        self.0.send_bytes(&request.encode());
        self.0.receive().expect("the worker answers")
    }

    #[track_caller]
    fn done(&self, request: &FileRequest) {
        assert_eq!(self.ask(request).0, FileReply::Done {}, "{request:?}");
    }

    #[track_caller]
    fn fails(&self, errno: i32, request: &FileRequest) {
        match self.ask(request).0 {
            FileReply::Failed {
                errno: got,
                message,
            } => assert_eq!(got, errno, "{request:?}: {message}"),
            other => panic!("{request:?}: {other:?}"),
        }
    }
}

fn user(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

fn read(path: &str, who: &str, len: u64) -> FileRequest {
    FileRequest::Read {
        path: path.into(),
        user: user(who),
        offset: 0,
        len,
    }
}

fn write(path: &str, who: &str, data: &str) -> FileRequest {
    FileRequest::Write {
        path: path.into(),
        user: user(who),
        mode: None,
        data: data.into(),
    }
}

fn rename(from: &str, to: &str, who: &str) -> FileRequest {
    FileRequest::Rename {
        from: from.into(),
        to: to.into(),
        user: user(who),
    }
}

fn data(text: &str) -> FileReply {
    FileReply::Data {
        data: text.into(),
        size: text.len() as u64,
    }
}

const EACCES: i32 = 13;
const ELOOP: i32 = 40;

#[test]
fn files_and_commands_see_the_same() {
    let world = World::new();
    let worker = Worker::new(&world);
    worker.done(&write("/home/user/new/a", "", "from the host\n"));
    let report = world
        .address
        .sh("cat new/a; stat -c '%U %G %a' new new/a; echo inside > b")
        .expect_code(0);
    assert_eq!(
        report.out(),
        "from the host\nuser UNKNOWN 755\nuser UNKNOWN 644\n"
    );
    assert_eq!(
        worker.ask(&read("/home/user/b", "", 100)).0,
        data("inside\n")
    );
    // Files of the layers below are there to be read and changed.
    worker.done(&write("/usr/added", "root", ""));
    let stat = FileRequest::Stat {
        path: "/usr/added".into(),
        user: None,
        follow: true,
    };
    let FileReply::Stat { stat } = worker.ask(&stat).0 else {
        panic!()
    };
    assert_eq!(
        (
            stat.uid,
            stat.gid,
            stat.user.as_deref(),
            stat.group.as_deref()
        ),
        (0, 0, Some("root"), Some("root"))
    );
}

#[test]
fn descriptors_work_outside() {
    let world = World::new();
    let worker = Worker::new(&world);
    let create = FileRequest::Create {
        path: "/home/user/large".into(),
        user: None,
        mode: None,
    };
    let (FileReply::Opened { .. }, mut fds) = worker.ask(&create) else {
        panic!()
    };
    let mut file = File::from(fds.remove(0));
    let chunk = vec![7; 1 << 20];
    for _ in 0..8 {
        file.write_all(&chunk).unwrap();
    }
    drop(file);
    let (FileReply::Opened { size }, mut fds) = worker.ask(&read("/home/user/large", "", u64::MAX))
    else {
        panic!()
    };
    let mut bytes = Vec::new();
    File::from(fds.remove(0)).read_to_end(&mut bytes).unwrap();
    assert_eq!((size, bytes.len()), (8 << 20, 8 << 20));
    assert_eq!(
        world.address.sh("stat -c %s large").expect_code(0).out(),
        "8388608\n"
    );
}

#[test]
fn rights_are_those_of_the_user() {
    let world = World::new();
    let worker = Worker::new(&world);
    worker.done(&write("/secret/file", "root", "secret"));
    worker.fails(EACCES, &read("/secret/file", "", 10));
    worker.fails(EACCES, &write("/etc/passwd", "", ""));
    worker.fails(EACCES, &write("/home/ann/a", "", ""));
    worker.done(&write("/home/ann/a", "ann", ""));
    worker.done(&write("/home/ann/b", "root", ""));
    let report = world
        .address
        .sh("stat -c '%u:%g' /home/ann/a /home/ann/b")
        .expect_code(0);
    assert_eq!(report.out(), "1500:1501\n0:0\n");
    let owner = FileRequest::SetPermissions {
        path: "/home/ann/b".into(),
        user: user("root"),
        mode: Some(0o640),
        owner: user("ann:staff"),
    };
    worker.done(&owner);
    let report = world
        .address
        .sh("stat -c '%u:%g %a' /home/ann/b")
        .expect_code(0);
    assert_eq!(report.out(), "1500:1600 640\n");
    assert_eq!(
        worker.ask(&read("/secret/file", "root", 10)).0,
        data("secret")
    );
}

#[test]
fn moves_cross_mounts() {
    let world = World::new();
    let worker = Worker::new(&world);
    worker.done(&write("/home/user/t/a", "", "a"));
    worker.done(&rename("/home/user/t", "/dev/shm/t", ""));
    assert_eq!(worker.ask(&read("/dev/shm/t/a", "", 10)).0, data("a"));
    worker.done(&rename("/dev/shm/t", "/usr/t", "root"));
    let report = world
        .address
        .sh("cat /usr/t/a; ls /dev/shm; stat -c %u /usr/t/a")
        .expect_code(0);
    assert_eq!(report.out(), "a1000\n");
    // A directory of a lower layer, which the kernel cannot rename.
    worker.done(&rename("/data", "/data-moved", "root"));
    let report = world.address.sh("ls /data-moved; ls /data").expect_code(2);
    assert_eq!(report.out(), "bare\norphan\nplain\n");
}

#[test]
fn the_kernels_files_are_those_of_the_sandbox() {
    let world = World::new();
    let worker = Worker::new(&world);
    let (client, _, pid) = world
        .address
        .spawn(crate::client::sh("echo ready; sleep 1000"));
    client.until(|report| report.out() == "ready\n");
    let comm = format!("/proc/{pid}/comm");
    assert_eq!(worker.ask(&read(&comm, "", 100)).0, data("sh\n"));
    let FileReply::Data { data, .. } = worker.ask(&read("/proc/mounts", "", 60_000)).0 else {
        // A link to a process's own file, which would be the worker's.
        return worker.fails(EACCES, &read("/proc/mounts", "", 60_000));
    };
    panic!("{data:?}");
}

#[test]
fn nothing_of_init_and_the_worker_is_shown() {
    let world = World::new();
    let worker = Worker::new(&world);
    for who in ["", "root"] {
        for path in [
            "/proc/1/environ",
            "/proc/1/maps",
            "/proc/1/mem",
            "/proc/self/environ",
            "/proc/self/mem",
            "/proc/self/maps",
        ] {
            worker.fails(EACCES, &read(path, who, 100));
        }
        for path in [
            "/proc/self/fd/0",
            "/proc/self/root/etc/passwd",
            "/dev/stdin",
        ] {
            worker.fails(ELOOP, &read(path, who, 100));
        }
        worker.fails(EACCES, &read("/proc/1/root/etc/passwd", who, 100));
    }
    worker.fails(EACCES, &write("/proc/sys/kernel/hostname", "root", "x"));
    let list = FileRequest::List {
        path: "/proc/1/fd".into(),
        user: user("root"),
        depth: 1,
        limit: 100,
    };
    worker.fails(EACCES, &list);
    // Programs of the sandbox see the worker, but nothing in it, and cannot end it unless they are root.
    let pids = "for pid in /proc/[0-9]*; do echo ${pid#/proc/}; done | sort -n | sed -n 2p";
    let worker_pid = world.address.sh(pids).expect_code(0).out();
    let pid = worker_pid.trim();
    for as_root in [false, true] {
        let script = format!(
            "for f in environ maps mem; do cat /proc/{pid}/$f && exit 9; done; ls /proc/{pid}/fd && exit 9; exit 0"
        );
        let mut spawn = crate::client::sh(&script);
        spawn.user = as_root.then(|| "root".to_owned());
        world.address.run(spawn).expect_code(0);
    }
    world.address.sh(&format!("kill -9 {pid}")).expect_code(1);
    assert!(matches!(
        worker.ask(&read("/etc/passwd", "", 10)).0,
        FileReply::Data { .. }
    ));
}

#[test]
fn a_worker_ends_with_its_connection() {
    let world = World::new();
    let count = |wanted: &str| {
        eventually(|| world.address.sh("ls -d /proc/[0-9]* | wc -l").out().trim() == wanted)
    };
    let workers: Vec<_> = (0..8).map(|_| Worker::new(&world)).collect();
    for worker in &workers {
        assert!(matches!(
            worker.ask(&read("/etc/passwd", "", 10)).0,
            FileReply::Data { .. }
        ));
    }
    // PID 1, the workers, and the shell with its two programs.
    assert!(
        count("12"),
        "{}",
        world.address.sh("ls -d /proc/[0-9]*").out()
    );
    drop(workers);
    assert!(count("4"));
    assert!(!world.sandbox.has_ended());
    assert!(DEADLINE.as_secs() > 0);
}
