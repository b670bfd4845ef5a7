//! What this machine offers: read once, so that everything that depends on it can be tested with another machine's facts.

use super::{
    disk,
    subordinate::{self, Lack, Subordinate},
};
use rustix::fs::Access;
use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// A mounted cgroup hierarchy and the group of it in which ours are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Directory below which groups are made.
    pub(crate) path: PathBuf,
    /// Of version 2: which of our controllers it has.
    pub(crate) controllers: Vec<String>,
    /// Of version 2: groups that this process is in, that have limits, and in which ours cannot be made.
    pub(crate) bypassed: Vec<PathBuf>,
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
    /// The sysctl that forbids ordinary users to make any.
    pub(crate) forbids_namespaces: Option<&'static str>,
    /// The subordinate ids of the user, or why there are none; root needs none.
    pub(crate) subordinate: Option<Result<Subordinate, Lack>>,
    /// How many groups this process has beside its own.
    pub(crate) other_groups: usize,
    pub(crate) overlay: bool,
    /// Whether a btrfs of our own can be made.
    pub(crate) btrfs: bool,
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
        let text = |path: &str| {
            // Names of mounts may be of any bytes.
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
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
            forbids_namespaces: forbids_namespaces(&text),
            subordinate: (!rustix::process::geteuid().is_root())
                .then(|| subordinate::own().clone()),
            other_groups: other_groups(),
            btrfs: disk::is_possible(
                text("/proc/sys/kernel/osrelease").trim(),
                &text("/proc/filesystems"),
            ),
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
                    let find = |controller: &str| {
                        let mut options = mount.options.split(',');
                        options.find(|option| *option == controller)?;
                        let path = below(&mount, own_group(own, controller));
                        is_writable(&path).then(|| Hierarchy {
                            path,
                            ..Hierarchy::default()
                        })
                    };
                    self.v1_memory = self.v1_memory.take().or_else(|| find("memory"));
                    self.v1_cpu = self.v1_cpu.take().or_else(|| find("cpu"));
                    self.v1_pids = self.v1_pids.take().or_else(|| find("pids"));
                }
                "cgroup2" if self.v2.is_none() => {
                    let own = below(&mount, own_group(own, ""));
                    self.v2 = find_v2(&own, Path::new(&mount.point));
                }
                _ => {}
            }
        }
    }

    /// Whether sandboxes have a root and other users.
    pub(crate) fn has_users(&self) -> bool {
        self.is_root || matches!(self.subordinate, Some(Ok(_)))
    }

    /// Whether a cgroup carries a limit on processes.
    pub(crate) fn has_pids(&self) -> bool {
        self.v1_pids.is_some() || self.v2_has("pids")
    }

    /// Whether a user's limit on processes holds for each user namespace by itself, as in Linux from 5.14 on, and so for
    /// each sandbox. It is not for root, whom the kernel spares.
    pub(crate) fn counts_processes_by_user(&self) -> bool {
        !self.is_root && self.kernel >= (5, 14)
    }

    /// Whether version 2 carries limits of `controller`.
    pub(crate) fn v2_has(&self, controller: &str) -> bool {
        self.v2
            .as_ref()
            .is_some_and(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }
}

/// The sysctl by which a distribution forbids user namespaces to ordinary users, if it does.
fn forbids_namespaces(text: &impl Fn(&str) -> String) -> Option<&'static str> {
    let is = |path: &str, value: &str| text(path).trim() == value;
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some("kernel.unprivileged_userns_clone=1");
    }
    // Programs with a profile of their own may be allowed to.
    let restricted = is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    );
    (restricted && is("/proc/self/attr/current", "unconfined"))
        .then_some("kernel.apparmor_restrict_unprivileged_userns=0")
}

fn other_groups() -> usize {
    let own = rustix::process::getegid();
    let groups = rustix::process::getgroups().unwrap_or_default();
    groups.iter().filter(|group| **group != own).count()
}

/// Whether groups can be made below `path`: a container often sees its hierarchies read-only.
fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, Access::WRITE_OK).is_ok()
}

/// This process's group in the hierarchy of a version 1 controller, or of version 2 where that is empty, from
/// `/proc/self/cgroup`.
fn own_group<'a>(own: &'a str, controller: &str) -> &'a str {
    let fields = own.lines().map(|line| line.splitn(3, ':').skip(1));
    let mut groups = fields.filter_map(|mut fields| Some((fields.next()?, fields.next()?)));
    groups
        .find(|(controllers, _)| controllers.split(',').any(|name| name == controller))
        .map_or("/", |(_, group)| group)
}

/// Where groups of version 2 are made: as near above this process as possible, so that as many limits as possible hold for
/// them too, but where most of our controllers can be handed down.
///
/// Below its own group there are none as a rule, for a group with processes may hand nothing down.
fn find_v2(own: &Path, top: &Path) -> Option<Hierarchy> {
    let mut best: Option<Hierarchy> = None;
    let mut passed = Vec::new();
    for group in own.ancestors().take_while(|group| group.starts_with(top)) {
        let controllers = controllers(group);
        let is_better = |best: &Hierarchy| controllers.len() > best.controllers.len();
        if can_have_groups(group) && best.as_ref().is_none_or(is_better) {
            best = Some(Hierarchy {
                path: group.to_owned(),
                controllers,
                bypassed: passed.clone(),
            });
        }
        if is_limited(group) {
            passed.push(group.to_owned());
        }
    }
    best
}

/// Whether groups with processes can be made in this one of version 2.
fn can_have_groups(group: &Path) -> bool {
    let kind = fs::read_to_string(group.join("cgroup.type"));
    // The top of the whole hierarchy has no type.
    // Processes can be started in a group of ours only by who may move them about in the one above all.
    let may_move = is_writable(&group.join("cgroup.procs"));
    is_writable(group) && may_move && kind.map_or(true, |kind| kind.trim() == "domain")
}

/// Whether a group of version 2 has a limit of the kinds that we set.
fn is_limited(group: &Path) -> bool {
    ["memory.max", "memory.high", "cpu.max", "pids.max"]
        .iter()
        .filter_map(|name| fs::read_to_string(group.join(name)).ok())
        .any(|limit| !limit.starts_with("max"))
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
    let top = Path::new(&mount.point);
    let relative = Path::new(own).strip_prefix(&mount.root);
    // A group outside of our cgroup namespace has a name that leads up, and cannot be seen.
    let inside = relative.ok().filter(|path| {
        let mut components = path.components();
        components.all(|component| matches!(component, Component::Normal(_)))
    });
    inside
        .map(|relative| top.join(relative))
        .filter(|path| path.is_dir())
        .unwrap_or_else(|| top.to_owned())
}

struct Mount<'a> {
    root: String,
    point: String,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// Reads a line of `/proc/self/mountinfo`.
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (unescaped(left.next()?), unescaped(left.next()?));
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

/// A path as it was before the kernel wrote blanks and the like as `\040`.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                path.push(char::from(byte));
                path.push_str(&part[3..]);
            }
            None => {
                path.push('\\');
                path.push_str(part);
            }
        }
    }
    path
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
        fs::write(directory.path().join("unified/cgroup.procs"), "").unwrap();
        let mut host = Host::default();
        host.find_cgroups(&mountinfo, "4:memory:/outer\n0::/\n");
        let path = |name| directory.path().join(name);
        assert_eq!(host.v1_memory.unwrap().path, path("memory/outer"));
        assert_eq!(host.v1_cpu.unwrap().path, path("cpu"));
        assert_eq!(host.v1_pids, None);
        assert_eq!(host.v2.unwrap().controllers, Vec::<String>::new());
    }

    #[test]
    fn paths_of_mounts_are_unescaped() {
        assert_eq!(unescaped(r"/a\040b\134c\011"), "/a b\\c\t");
        assert_eq!(unescaped(r"/a\04\x\"), r"/a\04\x\");
        let directory = tempfile::tempdir().unwrap();
        let point = directory.path().join("a b");
        fs::create_dir(&point).unwrap();
        let escaped = point.to_str().unwrap().replace(' ', r"\040");
        let mut host = Host::default();
        host.find_cgroups(
            &format!("1 2 0:3 / {escaped} rw - cgroup cgroup rw,pids\n"),
            "",
        );
        assert_eq!(host.v1_pids.unwrap().path, point);
    }

    #[test]
    fn only_a_group_below_the_mounts_root_is_below_it() {
        let directory = tempfile::tempdir().unwrap();
        let point = directory.path().to_str().unwrap();
        let mount = |root: &str| Mount {
            root: root.into(),
            point: point.into(),
            kind: "cgroup2",
            options: "",
        };
        for name in ["own", "etc", "def"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let own = directory.path().join("own");
        assert_eq!(below(&mount("/"), "/own"), own);
        assert_eq!(below(&mount("/docker/abc"), "/docker/abc/own"), own);
        for (root, own) in [
            ("/", "/"),
            ("/", "/../etc"),
            ("/", "/gone"),
            ("/docker/abc", "/docker/abcdef"),
            ("/docker/abc", "/own"),
        ] {
            assert_eq!(below(&mount(root), own), directory.path(), "{root} {own}");
        }
    }

    /// A tree of version 2 groups of plain files.
    struct Tree(tempfile::TempDir);

    impl Tree {
        /// Groups with their types, controllers, controllers handed down, and processes.
        fn new(groups: &[(&str, &str, &str, &str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (group, kind, controllers, handed_down, processes) in groups {
                fs::create_dir_all(tree.path(group)).unwrap();
                if !kind.is_empty() {
                    tree.write(group, "cgroup.type", kind);
                }
                tree.write(group, "cgroup.controllers", controllers);
                tree.write(group, "cgroup.subtree_control", handed_down);
                tree.write(group, "cgroup.procs", processes);
            }
            tree
        }

        fn path(&self, group: &str) -> PathBuf {
            self.0.path().join(group)
        }

        fn write(&self, group: &str, file: &str, text: &str) {
            fs::write(self.path(group).join(file), text).unwrap();
        }

        /// Where groups are made by a process of the group `own`, and whose limits do not hold for them.
        fn found(&self, own: &str) -> (PathBuf, Vec<PathBuf>) {
            let point = self.0.path().display();
            let mount = format!("1 2 0:3 / {point} rw - cgroup2 cgroup2 rw\n");
            let mut host = Host::default();
            host.find_cgroups(&mount, &format!("4:memory:/other\n0::/{own}\n"));
            let found = host.v2.unwrap();
            (found.path, found.bypassed)
        }
    }

    const ALL: &str = "cpuset cpu io memory pids\n";

    #[test]
    fn groups_are_made_as_near_as_controllers_reach() {
        let session = "user.slice/user-0.slice/session-1.scope";
        let tree = Tree::new(&[
            ("", "", ALL, ALL, "2\n"),
            ("user.slice", "domain\n", ALL, ALL, ""),
            ("user.slice/user-0.slice", "domain\n", ALL, "", ""),
            (session, "domain\n", "cpu memory pids\n", "", "7\n"),
        ]);
        let slice = tree.path("user.slice/user-0.slice");
        assert_eq!(tree.found(session), (slice.clone(), vec![]));
        tree.write(session, "memory.max", "max\n");
        tree.write(session, "cpu.max", "max 100000\n");
        assert_eq!(tree.found(session), (slice.clone(), vec![]));
        // What the session itself is limited to cannot be passed on, and that is known.
        tree.write(session, "pids.max", "100\n");
        assert_eq!(tree.found(session), (slice, vec![tree.path(session)]));
        // Fewer controllers are worse than a group further up.
        tree.write("user.slice/user-0.slice", "cgroup.controllers", "pids\n");
        assert_eq!(tree.found(session).0, tree.path("user.slice"));
    }

    #[test]
    fn limits_of_a_delegated_group_hold() {
        let tree = Tree::new(&[
            ("", "", ALL, ALL, "2\n"),
            ("svc", "domain\n", ALL, "", ""),
            ("svc/main", "domain\n", "", "", "7\n"),
            ("svc/threaded", "threaded\n", "", "", "8\n"),
        ]);
        tree.write("svc", "memory.max", "1000000000\n");
        for own in ["svc/main", "svc/threaded"] {
            assert_eq!(tree.found(own), (tree.path("svc"), vec![]));
        }
    }

    #[test]
    fn without_any_controller_the_own_group_is_as_good_as_any() {
        let tree = Tree::new(&[("", "", "", "", "2\n"), ("own", "domain\n", "", "", "7\n")]);
        assert_eq!(tree.found("own"), (tree.path("own"), vec![]));
        assert_eq!(tree.found("").0, tree.path(""));
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
