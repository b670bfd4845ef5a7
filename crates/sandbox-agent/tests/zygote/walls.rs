//! What a new sandbox is made of.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox_agent::protocol::zygote::Create;

use crate::harness::{COUNT, STORAGE_BASE, Sandbox, Zygote, encoded, eventually};

#[test]
fn every_namespace_is_its_own() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let own = link(&sandbox.pid.to_string());
        assert_ne!(own, link("self"), "{kind}");
        assert_ne!(own, link(&zygote.pid().to_string()), "{kind}");
    }
    assert_eq!(sandbox.status("NSpid"), format!("{}\t1", sandbox.pid));
    // Signals to "my process group" reach nobody else.
    assert_eq!(sandbox.status("NSpgid"), format!("{}\t1", sandbox.pid));
    assert_eq!(sandbox.status("NSsid"), format!("{}\t1", sandbox.pid));
}

#[test]
fn its_users_are_a_range_of_its_own() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(3);
    let base = STORAGE_BASE + 3 * COUNT;
    for name in ["uid_map", "gid_map"] {
        let map = sandbox.proc_file(name);
        let fields: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(fields, ["0", &base.to_string(), &COUNT.to_string()]);
    }
    let ids = vec![base.to_string(); 4].join("\t");
    assert_eq!(sandbox.status("Uid"), ids);
    assert_eq!(sandbox.status("Gid"), ids);
    assert_eq!(sandbox.status("Groups"), "");
}

#[test]
fn pid_1_keeps_only_what_root_of_a_sandbox_may_do() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    for (key, value) in [
        ("CapPrm", "00000008800404fb"),
        ("CapEff", "00000000800404fb"),
        ("CapBnd", "00000000800404fb"),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Umask", "0022"),
    ] {
        assert_eq!(sandbox.status(key), value, "{key}");
    }
    // What belongs to a process that may not be looked into is owned by the host's root.
    let owner = fs::metadata(format!("/proc/{}/environ", sandbox.pid))
        .unwrap()
        .uid();
    assert_eq!(owner, 0, "PID 1 is open to inspection");
    assert_eq!(
        fs::read_link(format!("/proc/{}/cwd", sandbox.pid)).unwrap(),
        Path::new("/")
    );
    assert!(sandbox.proc_file("limits").lines().any(|line| {
        line.split_whitespace()
            .take(6)
            .eq(["Max", "core", "file", "size", "1", "1"])
    }));
}

#[test]
fn limits_of_whoever_started_the_zygote_do_not_hold() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    let limits = fs::read_to_string(format!("/proc/{}/limits", sandbox.pid)).unwrap();
    let soft = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(soft("Max cpu time"), "unlimited");
    assert_eq!(soft("Max file size"), "unlimited");
    assert_eq!(soft("Max stack size"), "8388608");
}

#[test]
fn pid_1_is_spared_when_memory_runs_out() {
    const CAP_SYS_RESOURCE: u32 = 24;
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = own
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    let capable = u64::from_str_radix(capabilities, 16).unwrap() & (1 << CAP_SYS_RESOURCE) != 0;
    // Without the capability nobody can protect a process; then the score stays as it is.
    let expected = if capable { "-1000" } else { "0" };
    assert_eq!(sandbox.proc_file("oom_score_adj").trim(), expected);
}

#[test]
fn pid_1_has_only_its_own_descriptors() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    let known = |link: &str| {
        let inode = |kind: &str| {
            link.strip_prefix(kind)?
                .trim_matches(['[', ']'])
                .parse()
                .ok()
        };
        let inode = inode("socket:").or_else(|| inode("pipe:"));
        let sockets = sandbox.proc_file("net/unix");
        // The one that it makes for the programs of the sandbox.
        let sudo = sockets
            .lines()
            .find(|line| line.ends_with(" /run/.sandbox/sudo"));
        let sudo = sudo.and_then(|line| line.split_whitespace().nth(6)?.parse().ok());
        // The two of its own /dev that it works with.
        ["/dev/null", "/dev/pts"].contains(&link)
            || link.starts_with("anon_inode:")
            || link == zygote.path("lock").to_str().unwrap()
            || inode
                .is_some_and(|inode: u64| sandbox.inodes.contains(&inode) || sudo == Some(inode))
    };
    let links = || -> Vec<String> {
        let open = fs::read_dir(format!("/proc/{}/fd", sandbox.pid)).unwrap();
        let links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links
            .map(|link| link.to_string_lossy().into_owned())
            .collect()
    };
    // The socket to the zygote is closed a moment after the answer.
    assert!(
        eventually(|| links().iter().all(|link| known(link))),
        "{:?}",
        links()
    );
    for standard in 0..3 {
        let link = fs::read_link(format!("/proc/{}/fd/{standard}", sandbox.pid));
        assert_eq!(link.unwrap(), Path::new("/dev/null"));
    }
}

/// Mount point to (type, whether read-only).
fn mounts(sandbox: &Sandbox) -> BTreeMap<String, (String, bool)> {
    let table = sandbox.proc_file("mountinfo");
    let mount = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let separator = fields.iter().position(|field| *field == "-").unwrap();
        // Propagation from and to elsewhere would be named between options and separator.
        assert_eq!(separator, 6, "{line}");
        let read_only = fields[5].split(',').any(|option| option == "ro");
        (
            fields[4].to_owned(),
            (fields[separator + 1].to_owned(), read_only),
        )
    };
    table.lines().map(mount).collect()
}

#[test]
fn its_mounts_are_these_and_show_no_host_path() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    let mounts = mounts(&sandbox);
    for (point, kind, read_only) in [
        ("/", "overlay", false),
        ("/usr", "overlay", false),
        ("/proc", "proc", false),
        ("/proc/sys", "proc", true),
        ("/proc/fs", "tmpfs", true),
        ("/dev", "tmpfs", false),
        ("/dev/pts", "devpts", false),
        ("/dev/shm", "tmpfs", false),
        ("/run", "tmpfs", false),
        ("/sys", "tmpfs", true),
    ] {
        assert_eq!(
            mounts.get(point),
            Some(&(kind.to_owned(), read_only)),
            "{point}"
        );
    }
    let others = |point: &String| !["/proc/", "/dev/"].iter().any(|top| point.starts_with(top));
    let top: Vec<&String> = mounts.keys().filter(|point| others(point)).collect();
    assert_eq!(top, ["/", "/dev", "/proc", "/run", "/sys", "/usr"]);
    let table = sandbox.proc_file("mountinfo");
    let directory = zygote.path("").to_string_lossy().into_owned();
    assert!(!table.contains(directory.trim_end_matches('/')), "{table}");
    assert!(table.contains("lowerdir=/l/0,upperdir=/l/1/u0,"), "{table}");
}

#[test]
fn proc_tells_nothing_of_the_host() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    for name in [
        "cmdline",
        "kallsyms",
        "keys",
        "interrupts",
        "zoneinfo",
        "diskstats",
    ] {
        if Path::new("/proc").join(name).exists() {
            let masked = fs::read(sandbox.inside(&format!("/proc/{name}"))).unwrap();
            assert_eq!(masked, b"", "{name}");
        }
    }
    for name in [
        "kcore",
        "kmsg",
        "timer_list",
        "slabinfo",
        "vmallocinfo",
        "pagetypeinfo",
    ] {
        if Path::new("/proc").join(name).exists() {
            let masked = fs::metadata(sandbox.inside(&format!("/proc/{name}"))).unwrap();
            assert_eq!(
                (masked.is_file(), masked.len(), masked.mode() & 0o777),
                (true, 0, 0o444),
                "{name}"
            );
        }
    }
    assert_eq!(
        fs::read_dir(sandbox.inside("/proc/acpi")).map_or(0, Iterator::count),
        0
    );
    for write in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
    ] {
        if !Path::new(write).exists() {
            continue;
        }
        let (ok, text) = sandbox.shell(&format!("echo 1 > {write}"));
        assert!(
            !ok && text.contains("Read-only file system"),
            "{write}: {text}"
        );
    }
}

#[test]
fn devices_are_the_harmless_ones_and_belong_to_its_root() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    let mut names: Vec<String> = fs::read_dir(sandbox.inside("/dev"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(names, expected);
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let own = fs::metadata(sandbox.inside(&format!("/dev/{name}"))).unwrap();
        let host = fs::metadata(Path::new("/dev").join(name)).unwrap();
        assert!(own.file_type().is_char_device());
        assert_eq!(
            (own.rdev(), own.mode() & 0o777, own.uid()),
            (host.rdev(), 0o666, sandbox.base),
            "{name}"
        );
    }
    let (ok, text) =
        sandbox.shell("echo gone > /dev/null && head -c 3 /dev/zero | wc -c && mknod /dev/x c 1 3");
    assert!(
        !ok && text.starts_with('3') && text.contains("Operation not permitted"),
        "{text}"
    );
    let (ok, text) = sandbox.shell("stat -c '%a %u' /dev/shm /run /run/lock /dev/pts/ptmx /sys");
    assert!(ok, "{text}");
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["1777 0", "755 0", "1777 0", "666 0", "555 0"]
    );
}

#[test]
fn its_tmpfs_mounts_are_limited() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    for place in ["/run", "/dev/shm"] {
        let (ok, text) = sandbox.shell(&format!("head -c 1048577 /dev/zero > {place}/file"));
        assert!(!ok && text.contains("No space left"), "{place}: {text}");
    }
    let (ok, text) = sandbox.shell("touch /sys/file");
    assert!(!ok && text.contains("Read-only file system"), "{text}");
}

#[test]
fn host_programs_are_its_own_copy() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    // Owned by root inside, which from here is the first id of its range.
    assert_eq!(
        fs::metadata(sandbox.inside("/usr/bin")).unwrap().uid(),
        sandbox.base
    );
    let script = "cp /usr/bin/env /usr/bin/zygote-test && chown 1000:1000 /usr/bin/zygote-test && rm /usr/bin/env && \
                  echo changed > /etc/file && stat -c %u:%g /usr/bin/zygote-test";
    let (ok, text) = sandbox.shell(script);
    assert!(ok, "{text}");
    assert_eq!(text, "1000:1000");
    assert!(Path::new("/usr/bin/env").exists() && !Path::new("/usr/bin/zygote-test").exists());
    assert!(!zygote.path("template/etc/file").exists());
    // On disk, everything belongs to the storage range, whatever the sandbox's range is.
    let stored = fs::metadata(sandbox.store.join("u1/bin/zygote-test")).unwrap();
    assert_eq!(
        (stored.uid(), stored.gid()),
        (STORAGE_BASE + 1000, STORAGE_BASE + 1000)
    );
    assert_eq!(
        fs::metadata(sandbox.store.join("u0/etc/file"))
            .unwrap()
            .uid(),
        STORAGE_BASE
    );
}

#[test]
fn no_namespaces_can_be_made_inside() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    for flag in ["-U", "-m", "-p", "-n", "-i", "-u", "-C"] {
        let (ok, text) = sandbox.shell(&format!("unshare {flag} true"));
        assert!(
            !ok && text.contains("No space left on device"),
            "{flag}: {text}"
        );
    }
}

#[test]
fn its_host_name_and_loopback_are_its_own() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    let (ok, text) = sandbox.shell("cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname");
    assert_eq!((ok, text.as_str()), (true, "test-1\n(none)"));
    let interfaces = sandbox.proc_file("net/dev");
    let names: Vec<&str> = interfaces
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    assert!(names.contains(&"lo"), "{interfaces}");
    assert!(
        sandbox.proc_file("net/fib_trie").contains("127.0.0.1"),
        "loopback is down"
    );
    let routes = sandbox.proc_file("net/route");
    assert_eq!(routes.lines().count(), 1, "{routes}");
}

#[test]
fn a_long_request_arrives() {
    let zygote = Zygote::start();
    let mut request = zygote.request(1);
    request
        .env
        .push(("LONG".into(), "x".repeat(500_000).as_str().into()));
    // Longer than a packet: it has to come in a memfd, which this test's side makes.
    let sandbox = zygote.create(&request).unwrap();
    assert!(!sandbox.has_ended());
}

#[test]
fn a_missing_mount_point_is_made() {
    let zygote = Zygote::start();
    let mut request = zygote.request(1);
    request.overlays[1].target = "/opt/tools".into();
    let sandbox = zygote.create(&request).unwrap();
    assert!(sandbox.inside("/opt/tools/bin").is_dir());
    assert!(!zygote.path("template/opt").exists());
}

#[test]
fn its_session_keyring_is_its_own() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(5);
    // Kernels without keyrings have nothing to leave.
    if let Ok(users) = fs::read_to_string("/proc/key-users") {
        let owner = format!("{}:", sandbox.base);
        assert!(
            users
                .lines()
                .any(|line| line.trim_start().starts_with(&owner)),
            "{users}"
        );
    }
}

#[test]
fn it_begins_in_the_cgroup_that_came_along() {
    let zygote = Zygote::start();
    let group = Group::new(&zygote.path("cgroup2"));
    let request = Create {
        process_cgroup: true,
        oom_counter: true,
        ..zygote.request(1)
    };
    // PID 1 makes groups below.
    chown(&group.directory, Some(request.uid_base), None).unwrap();
    let (mut fds, lifeline) = zygote.descriptors().split();
    fds.push(fs::File::open(&group.directory).unwrap().into());
    fds.push(
        fs::File::open(group.directory.join("cgroup.events"))
            .unwrap()
            .into(),
    );
    let sandbox = zygote
        .create_with(&request, &encoded(&request), fds, lifeline)
        .unwrap();
    let members = fs::read_to_string(group.directory.join("cgroup.procs")).unwrap();
    assert_eq!(members.trim(), sandbox.pid.to_string());
    // Inside, it is the top.
    let (_, text) = sandbox.shell("cat /proc/1/cgroup");
    assert!(text.lines().any(|line| line == "0::/"), "{text}");
}

/// A cgroup of a test, in the machine's cgroup2 tree.
struct Group {
    tree: PathBuf,
    directory: PathBuf,
}

impl Group {
    fn new(tree: &Path) -> Self {
        fs::create_dir(tree).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "cgroup2", "none"]).arg(tree).status();
        assert!(mounted.unwrap().success(), "this test needs cgroup2");
        let directory = tree.join(format!("zygote-test-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        Self {
            tree: tree.to_owned(),
            directory,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empty as soon as the sandbox has ended.
        let removed = eventually(|| {
            let _ = fs::remove_dir(self.directory.join("commands"));
            fs::remove_dir(&self.directory).is_ok()
        });
        let unmounted = Command::new("umount").arg("-l").arg(&self.tree).status();
        assert!(std::thread::panicking() || (removed && unmounted.is_ok_and(|s| s.success())));
    }
}
