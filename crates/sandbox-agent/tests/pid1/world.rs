//! A sandbox to test in, with a small file tree, a cgroup for its commands and a counter of OOM kills.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sandbox_agent::protocol::zygote::Create;

use crate::client::Address;
use crate::harness::{COUNT, STORAGE_BASE, Sandbox, Zygote, encoded, eventually};

/// A sandbox. It ends when this is dropped.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) address: Address,
    pub(crate) cgroup: Option<Cgroup>,
    oom_counter: File,
    _zygote: Zygote,
}

/// A cgroup2 directory that the sandbox lives in.
pub(crate) struct Cgroup(PathBuf);

/// What makes one sandbox different from the usual one.
pub(crate) struct Options {
    pub(crate) cgroup: bool,
    pub(crate) change: fn(&mut Create),
}

impl World {
    /// Makes the usual sandbox.
    pub(crate) fn new() -> Self {
        Self::with(&Options {
            cgroup: true,
            change: |_| (),
        })
    }

    /// Makes a sandbox of another kind.
    pub(crate) fn with(options: &Options) -> Self {
        let zygote = Zygote::start();
        furnish(&zygote.path("template"));
        let number = next();
        let mut request = zygote.request(number);
        let counter = zygote.path("oom");
        fs::write(&counter, "oom_kill 0\n").unwrap();
        request.oom_counter = true;
        let cgroup = options
            .cgroup
            .then(|| Cgroup::new(STORAGE_BASE + COUNT * number));
        request.process_cgroup = cgroup.is_some();
        (options.change)(&mut request);
        let (mut fds, lifeline) = zygote.descriptors().split();
        fds.extend(
            cgroup
                .as_ref()
                .map(|cgroup| OwnedFd::from(File::open(&cgroup.0).unwrap())),
        );
        fds.push(File::open(&counter).unwrap().into());
        let address = Address(zygote.path("sock-1"));
        let sandbox = zygote
            .create_with(&request, &encoded(&request), fds, lifeline)
            .unwrap_or_else(|(step, errno)| {
                panic!(
                    "failed to {step}: {}",
                    std::io::Error::from_raw_os_error(errno)
                )
            });
        let oom_counter = File::options().write(true).open(&counter).unwrap();
        Self {
            sandbox,
            address,
            cgroup,
            oom_counter,
            _zygote: zygote,
        }
    }

    /// Pretends that the kernel has ended a process because memory was used up.
    pub(crate) fn count_oom_kill(&mut self) {
        self.oom_counter.write_all(b"oom_kill 1\n").unwrap();
    }
}

impl Cgroup {
    /// Makes one below the root of the machine's cgroup2 tree that the user `owner` may divide.
    fn new(owner: u32) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let root = root
            .filter(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| fields[1])
            .next();
        let root = root
            .expect("this test needs a cgroup2 file system: mount -t cgroup2 none /sys/fs/cgroup");
        let name = format!("sandbox-pid1-test-{}-{}", std::process::id(), next());
        let path = Path::new(root).join(name);
        fs::create_dir(&path).expect("this test needs to make cgroups");
        chown(&path, Some(owner), Some(owner)).unwrap();
        chown(path.join("cgroup.procs"), Some(owner), Some(owner)).unwrap();
        Self(path)
    }

    /// The cgroups of commands.
    pub(crate) fn commands(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("commands"))
            .unwrap()
            .map(|entry| entry.unwrap());
        let groups = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        let mut names: Vec<_> = groups
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Whether all commands have stopped.
    pub(crate) fn is_frozen(&self) -> bool {
        let events = fs::read_to_string(self.0.join("commands/cgroup.events")).unwrap();
        events.lines().any(|line| line == "frozen 1")
    }

    /// How many processes all commands have. One that waits to become a command has none of their names yet.
    pub(crate) fn population(&self) -> usize {
        let procs = |name: String| {
            fs::read_to_string(self.0.join("commands").join(name).join("cgroup.procs"))
        };
        let lists = self.commands().into_iter().flat_map(procs);
        let runs = |pid: &str| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() != "sandbox-init")
        };
        lists
            .map(|list| list.lines().filter(|pid| runs(pid)).count())
            .sum()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        eventually(|| {
            let commands = self.0.join("commands");
            if commands.exists() {
                self.commands()
                    .iter()
                    .for_each(|name| drop(fs::remove_dir(commands.join(name))));
            }
            let _ = fs::remove_dir(commands);
            fs::remove_dir(&self.0).is_ok()
        });
    }
}

/// A number that no other test of this process has.
fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) % 1000 + 1
}

/// Puts users, homes and something to fail on into the sandbox's file tree.
fn furnish(template: &Path) {
    let put = |path: &str, text: &str, mode: u32| {
        let path = template.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    put(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nann:x:1500:1501::/home/ann:/bin/bash\n",
        0o644,
    );
    put(
        "etc/group",
        "root:x:0:\nann:x:1501:\nstaff:x:1600:ann\n",
        0o644,
    );
    // Without it every program looks for its libraries in many places.
    fs::copy("/etc/ld.so.cache", template.join("etc/ld.so.cache")).unwrap();
    put("data/plain", "not a program", 0o644);
    put("data/orphan", "#!/no/such/interpreter\n", 0o755);
    put("data/bare", "echo from bare \"$@\"\n", 0o755);
    put("secret/file", "", 0o600);
    for (directory, mode, owner) in [
        ("home/user", 0o755, 1000),
        ("home/ann", 0o755, 1500),
        ("secret", 0o700, 0),
        ("tmp", 0o1777, 0),
    ] {
        let path = template.join(directory);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
    }
}
