//! Walls that a test build leaves out: each is gone then, and only then.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::zygote::weaken;

use crate::harness::{Sandbox, Zygote};

fn without(zygote: &Zygote, wall: u32) -> Sandbox {
    let mut request = zygote.request(1);
    request.weaken = wall;
    if wall == weaken::SECCOMP {
        request.seccomp = Blob::default();
    }
    zygote.create(&request).unwrap()
}

#[test]
fn namespaces_are_the_host_s() {
    let zygote = Zygote::start();
    let walls = [
        ("net", weaken::NETWORK),
        ("pid", weaken::PROCESSES),
        ("ipc", weaken::IPC),
        ("uts", weaken::HOST_NAME),
    ];
    for (_, wall) in walls {
        let sandbox = without(&zygote, wall);
        for (kind, other) in walls {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            let same = link(&sandbox.pid.to_string()) == link("self");
            assert_eq!(same, wall == other, "{kind} without {wall:#x}");
        }
    }
    let sandbox = without(&zygote, weaken::PROCESSES);
    assert!(sandbox.inside("/proc/self/status").exists());
}

#[test]
fn what_leaves_the_host_s_network_is_never_caught() {
    let zygote = Zygote::start();
    let mut request = zygote.request(1);
    (request.captured, request.weaken) = (true, weaken::NETWORK);
    let step = "catch what leaves the host's network".to_owned();
    assert_eq!(zygote.create(&request).err(), Some((step, 0)));
}

#[test]
fn rights_are_kept() {
    let zygote = Zygote::start();
    assert_eq!(
        without(&zygote, weaken::NO_NEW_PRIVS).status("NoNewPrivs"),
        "0"
    );
    let sandbox = without(&zygote, weaken::CAPABILITIES);
    assert_ne!(sandbox.status("CapEff"), "00000000800404fb");
    assert_ne!(sandbox.status("CapBnd"), "00000000800404fb");
    let sandbox = without(&zygote, weaken::DUMPABLE);
    let environ = fs::metadata(format!("/proc/{}/environ", sandbox.pid)).unwrap();
    assert_eq!(environ.uid(), sandbox.base);
    let sandbox = without(&zygote, weaken::USER_NAMESPACES);
    assert_eq!(sandbox.shell("unshare -U true"), (true, String::new()));
    assert!(!without(&zygote, weaken::SECCOMP).has_ended());
}

#[test]
fn the_host_s_files_are_shown() {
    let zygote = Zygote::start();
    let sandbox = without(&zygote, weaken::ROOT);
    let shown = fs::read(sandbox.inside("/.host/etc/passwd")).unwrap();
    assert_eq!(shown, fs::read("/etc/passwd").unwrap());
    let (ok, text) = sandbox.shell("touch /.host/tmp/zygote-test");
    assert!(!ok && text.contains("Read-only file system"), "{text}");

    let sandbox = without(&zygote, weaken::DEVICES);
    for entry in fs::read_dir("/dev").unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            fs::symlink_metadata(sandbox.inside("/dev").join(&name)).is_ok(),
            "{name:?}"
        );
    }
    let own = fs::metadata(sandbox.inside("/dev/null")).unwrap();
    assert_eq!(own.dev(), fs::metadata("/dev/null").unwrap().dev());
    assert_eq!(
        sandbox.shell("test -c /dev/ptmx && ls /dev/pts"),
        (true, "ptmx".to_owned())
    );
}

#[test]
fn proc_is_whole() {
    let zygote = Zygote::start();
    let sandbox = without(&zygote, weaken::PROC_MASKS);
    assert!(!sandbox.proc_file("mountinfo").contains(" /proc/"));
    if Path::new("/proc/zoneinfo").exists() {
        assert_ne!(fs::read(sandbox.inside("/proc/zoneinfo")).unwrap(), b"");
    }
}
