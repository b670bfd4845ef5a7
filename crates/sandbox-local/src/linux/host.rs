//! What this machine offers: read once, so that everything that depends on it can be tested with another machine's facts.

use rustix::fs::Access;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A mounted cgroup hierarchy and the group of it in which ours are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Directory below which groups are made.
    pub(crate) path: PathBuf,
    /// Of version 2: which of our controllers it has.
    pub(crate) controllers: Vec<String>,
}

/// Facts about the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) is_root: bool,
    /// Effective capabilities of this process.
    pub(crate) capabilities: u64,
    /// `(major, minor)` of the kernel.
    pub(crate) kernel: (u32, u32),
    /// How many user namespaces may exist; `None` if the kernel has none.
    pub(crate) user_namespaces: Option<u64>,
    pub(crate) overlay: bool,
    pub(crate) seccomp: bool,
    pub(crate) v1_memory: Option<Hierarchy>,
    pub(crate) v1_cpu: Option<Hierarchy>,
    pub(crate) v1_pids: Option<Hierarchy>,
    pub(crate) v2: Option<Hierarchy>,
}

/// Controllers that carry our limits on version 2.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

impl Host {
    /// Reads the facts of this machine.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let mut host = Self {
            is_root: rustix::process::geteuid().is_root(),
            capabilities: field("CapEff:")
                .and_then(|hex| u64::from_str_radix(hex, 16).ok())
                .unwrap_or(0),
            kernel: kernel_version(&text("/proc/sys/kernel/osrelease")),
            user_namespaces: text("/proc/sys/user/max_user_namespaces")
                .trim()
                .parse()
                .ok(),
            overlay: text("/proc/filesystems")
                .lines()
                .any(|line| line.trim_end().ends_with("\toverlay")),
            seccomp: field("Seccomp:").is_some()
                && Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            ..Self::default()
        };
        host.find_cgroups(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"));
        host
    }

    fn find_cgroups(&mut self, mountinfo: &str, own: &str) {
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            match mount.kind {
                "cgroup" => {
                    let own_group = |controller: &str| {
                        let has = |line: &&str| {
                            line.split(':')
                                .nth(1)
                                .is_some_and(|all| all.split(',').any(|c| c == controller))
                        };
                        own.lines()
                            .find(has)
                            .and_then(|line| line.splitn(3, ':').nth(2))
                            .unwrap_or("/")
                    };
                    let find = |controller: &str| {
                        let mut options = mount.options.split(',');
                        options.find(|option| *option == controller)?;
                        let path = below(&mount, own_group(controller));
                        is_writable(&path).then(|| Hierarchy {
                            path,
                            controllers: Vec::new(),
                        })
                    };
                    self.v1_memory = self.v1_memory.take().or_else(|| find("memory"));
                    self.v1_cpu = self.v1_cpu.take().or_else(|| find("cpu"));
                    self.v1_pids = self.v1_pids.take().or_else(|| find("pids"));
                }
                "cgroup2" if self.v2.is_none() && is_writable(Path::new(mount.point)) => {
                    let path = PathBuf::from(mount.point);
                    self.v2 = Some(Hierarchy {
                        controllers: controllers(&path),
                        path,
                    });
                }
                _ => {}
            }
        }
    }

    /// Whether version 2 carries limits of `controller`.
    pub(crate) fn v2_has(&self, controller: &str) -> bool {
        self.v2
            .as_ref()
            .is_some_and(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }
}

/// Whether groups can be made below `path`: a container often sees its hierarchies read-only.
fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, Access::WRITE_OK).is_ok()
}

/// Those of our controllers that groups below this one of version 2 can have.
///
/// Only the top of the whole hierarchy may have processes and hand controllers down at once. Where a container has been
/// given a group as its top, they must have been handed down already, or its processes have moved below.
fn controllers(group: &Path) -> Vec<String> {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    let is_top = !group.join("cgroup.type").exists();
    let all = if is_top || read("cgroup.procs").is_empty() {
        read("cgroup.controllers")
    } else {
        read("cgroup.subtree_control")
    };
    let ours = all
        .split_whitespace()
        .filter(|name| CONTROLLERS.contains(name));
    ours.map(str::to_owned).collect()
}

/// Our own group as seen through the mount, so that limits above us keep holding.
fn below(mount: &Mount<'_>, own: &str) -> PathBuf {
    let relative = own
        .strip_prefix(mount.root.trim_end_matches('/'))
        .unwrap_or("")
        .trim_start_matches('/');
    let path = Path::new(mount.point).join(relative);
    if path.is_dir() {
        path
    } else {
        mount.point.into()
    }
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// Reads a line of `/proc/self/mountinfo`.
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let kind = right.next()?;
        Some(Self {
            root,
            point,
            kind,
            options: right.nth(1).unwrap_or(""),
        })
    }
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kernel_versions() {
        assert_eq!(kernel_version("6.18.44-fc"), (6, 18));
        assert_eq!(kernel_version("5.4"), (5, 4));
        assert_eq!(kernel_version("x"), (0, 0));
    }

    fn mounted(directory: &Path, name: &str, kind: &str, options: &str) -> String {
        let point = directory.join(name);
        fs::create_dir_all(&point).unwrap();
        format!(
            "30 25 0:26 / {} rw,relatime - {kind} {kind} {options}\n",
            point.display()
        )
    }

    #[test]
    fn finds_hierarchies_in_mountinfo() {
        let directory = tempfile::tempdir().unwrap();
        let mount = |name, kind, options| mounted(directory.path(), name, kind, options);
        let mountinfo = mount("memory", "cgroup", "rw,memory")
            + &mount("cpu", "cgroup", "rw,cpu,cpuacct")
            + &mount("unified", "cgroup2", "rw")
            + "33 25 0:29 / /proc/self/gone rw - cgroup cgroup rw,pids\n";
        fs::create_dir(directory.path().join("memory/outer")).unwrap();
        let mut host = Host::default();
        host.find_cgroups(&mountinfo, "4:memory:/outer\n0::/\n");
        let path = |name| directory.path().join(name);
        assert_eq!(host.v1_memory.unwrap().path, path("memory/outer"));
        assert_eq!(host.v1_cpu.unwrap().path, path("cpu"));
        assert_eq!(host.v1_pids, None);
        assert_eq!(host.v2.unwrap().controllers, Vec::<String>::new());
    }

    #[test]
    fn a_containers_top_group_hands_down_what_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let mountinfo = mounted(directory.path(), "unified", "cgroup2", "rw");
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join("unified").join(name), text).unwrap();
        };
        let found = || {
            let mut host = Host::default();
            host.find_cgroups(&mountinfo, "0::/\n");
            host.v2.unwrap().controllers
        };
        write("cgroup.controllers", "cpuset cpu io memory pids\n");
        write("cgroup.subtree_control", "memory\n");
        write("cgroup.procs", "1\n7\n");
        // The top of the whole hierarchy.
        assert_eq!(found(), ["cpu", "memory", "pids"]);
        write("cgroup.type", "domain\n");
        assert_eq!(found(), ["memory"]);
        write("cgroup.procs", "");
        assert_eq!(found(), ["cpu", "memory", "pids"]);
    }
}
