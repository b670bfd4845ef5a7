//! Which walls and limits hold on this machine.

use super::{
    create,
    doctor::{self, Verdict},
    host::Host,
    store::Store,
};
use sandbox_agent::protocol::zygote::weaken;
use sandbox_core::{Enforcement, EnforcementReport, Error, ErrorKind, Limits, Result, Wall};

/// Walls that every sandbox has, by what, and the bit with which a test build takes them away.
const WALLS: &[(&str, &str, u32)] = &[
    (
        "files",
        "mount namespace with an overlay root; the host's root is detached",
        weaken::ROOT,
    ),
    (
        "devices",
        "a /dev of its own with null, zero, full, random, urandom and tty",
        weaken::DEVICES,
    ),
    ("process_ids", "PID namespace", weaken::PROCESSES),
    (
        "network",
        "network namespace with loopback only",
        weaken::NETWORK,
    ),
    ("ipc", "IPC namespace", weaken::IPC),
    ("host_name", "UTS namespace", weaken::HOST_NAME),
    (
        "user_namespaces",
        "none can be made inside",
        weaken::USER_NAMESPACES,
    ),
    (
        "capabilities",
        "none for user code; root has nine, over its own namespace only",
        weaken::CAPABILITIES,
    ),
    (
        "no_new_privileges",
        "no program gains privileges by being executed",
        weaken::NO_NEW_PRIVS,
    ),
    (
        "system_calls",
        "seccomp allow-list",
        // Where privileges can be gained, a filter takes a capability to install that PID 1 does not have.
        weaken::SECCOMP | weaken::NO_NEW_PRIVS,
    ),
    (
        "proc",
        "/proc is masked and partly read-only",
        weaken::PROC_MASKS,
    ),
    (
        "agent",
        "PID 1 cannot be traced or read from inside",
        weaken::DUMPABLE,
    ),
];

/// What would hold of a sandbox with these limits.
pub(crate) fn report(host: &Host, limits: &Limits, weakened: u32) -> EnforcementReport {
    let failure = require_walls(host, weakened).err();
    let mut walls = vec![user_ids(host, failure.is_none())];
    for (name, detail, bit) in WALLS {
        walls.push(wall(name, failure.is_none() && weakened & bit == 0, detail));
    }
    if let Some(error) = &failure {
        for wall in &mut walls {
            wall.detail = format!("no sandbox can be made here: {}", error.message());
        }
    }
    walls.extend(limit_walls(host, limits));
    EnforcementReport::new(walls)
}

fn user_ids(host: &Host, holds: bool) -> Wall {
    if host.is_root || !holds {
        let detail = "user namespace with a range of ids of its own";
        return wall("user_ids", holds, detail);
    }
    if let Some(Ok(_)) = host.subordinate {
        let detail = "user namespace with the subordinate ids of the user that made the sandbox, which all sandboxes of \
                      this user share; they are apart by their other namespaces";
        return Wall::new("user_ids", Enforcement::Partial, detail);
    }
    let why = match &host.subordinate {
        Some(Err(lack)) => format!("; for more users: {}: {}", lack.found, lack.fix),
        _ => String::new(),
    };
    let groups = match host.other_groups {
        0 => String::new(),
        count => format!(", with {count} other groups of theirs"),
    };
    let detail = format!(
        "user namespace with one user, who for the host is the user that made the sandbox{groups}{why}"
    );
    Wall::new("user_ids", Enforcement::Partial, detail)
}

/// What holds for a sandbox that may reach something.
pub(crate) fn with_network(mut report: EnforcementReport) -> EnforcementReport {
    let mut walls = report.walls.iter_mut();
    let wall =
        walls.find(|wall| wall.name == "network" && wall.enforcement == Enforcement::Enforced);
    if let Some(wall) = wall {
        wall.detail = "network namespace of which TCP connections and questions for names are carried as far as the policy \
                       lets them; UDP but for DNS, and ICMP, are refused"
            .to_owned();
    }
    report
}

/// What is not carried over from a sandbox to those that start from it, and how the rest is, if that has this store.
pub(crate) fn files_alone(host: &Host, store: Option<Store>) -> Wall {
    let how = match store {
        None => "",
        Some(Store::Directory) if host.v2.is_none() => {
            ", without a copy, as long as nothing runs in that"
        }
        Some(Store::Directory) => ", without a copy if nothing runs in that",
        Some(Store::Memory) => ", as a copy",
        Some(Store::Subvolume) => ", by a snapshot of its file system",
    };
    let detail = format!(
        "a sandbox starts from the files of another one{how}; what runs in that, and its memory, is not carried over"
    );
    Wall::new("memory_of_source", Enforcement::NotEnforced, detail)
}

fn wall(name: &'static str, holds: bool, detail: &str) -> Wall {
    let enforcement = if holds {
        Enforcement::Enforced
    } else {
        Enforcement::NotEnforced
    };
    let detail = if holds {
        detail.to_owned()
    } else {
        format!("taken away: {detail}")
    };
    Wall::new(name, enforcement, detail)
}

fn limit_walls(host: &Host, limits: &Limits) -> Vec<Wall> {
    let carried = |v1: bool, controller: &str| match (v1, host.v2_has(controller)) {
        (true, _) => Some("cgroup version 1"),
        (false, true) => Some("cgroup version 2"),
        (false, false) => None,
    };
    let limit = |name: &'static str, value: Option<String>, carrier: Option<&str>| {
        let (enforcement, detail) = match (value, carrier) {
            (None, _) => (Enforcement::NotEnforced, "no limit is set".to_owned()),
            (Some(value), Some(carrier)) => {
                (Enforcement::Enforced, format!("{value}, by {carrier}"))
            }
            (Some(value), None) => {
                let fix = if host.is_root {
                    "mount the controller, or delegate it where this runs in a container"
                } else {
                    "run as root, or in a cgroup that is delegated to this user"
                };
                (
                    Enforcement::NotEnforced,
                    format!("{value}, but no cgroup controller carries it: {fix}"),
                )
            }
        };
        Wall::new(name, enforcement, detail)
    };
    let kill = match &host.v2 {
        Some(_) => Wall::new(
            "kill_tree",
            Enforcement::Enforced,
            "a cgroup for each command",
        ),
        None => {
            let detail = "no cgroup version 2 can be used: what leaves its process group outlives a killed command, \
                          though not the sandbox";
            Wall::new("kill_tree", Enforcement::Partial, detail)
        }
    };
    let stored = |name: &'static str, value: Option<String>| {
        let (enforcement, detail) = match (
            value,
            Store::choose(host, &create::enforceable(host, *limits)),
        ) {
            (None, store) => {
                let carrier = store.unwrap_or_default().carrier();
                let detail = format!("no limit is set; files are kept in {carrier}");
                (Enforcement::NotEnforced, detail)
            }
            (Some(value), Ok(store)) => (
                Enforcement::Enforced,
                format!("{value}, by {}", store.carrier()),
            ),
            (Some(value), Err(reason)) => {
                let carrier = Store::Directory.carrier();
                let detail = format!("{value}, but files are kept in {carrier}: {reason}");
                (Enforcement::NotEnforced, detail)
            }
        };
        Wall::new(name, enforcement, detail)
    };
    vec![
        limit(
            "memory",
            limits.memory.map(|bytes| format!("{bytes} bytes")),
            carried(host.v1_memory.is_some(), "memory"),
        ),
        limit(
            "cpus",
            limits.cpus.map(|cpus| cpus.to_string()),
            carried(host.v1_cpu.is_some(), "cpu"),
        ),
        limit(
            "processes",
            limits.processes.map(|count| count.to_string()),
            carried(host.v1_pids.is_some(), "pids").or_else(|| {
                let counted = host.counts_processes_by_user();
                counted.then_some("the kernel's count of the sandbox's users")
            }),
        ),
        stored("disk", limits.disk.map(|bytes| format!("{bytes} bytes"))),
        stored(
            "inodes",
            limits.inodes.map(|count| format!("{count} files")),
        ),
        kill,
    ]
}

/// Fails, with the words of the doctor, where a wall cannot be built: nothing ever runs unconfined.
pub(crate) fn require_walls(host: &Host, weakened: u32) -> Result<()> {
    if weakened != 0 && !cfg!(feature = "weaken") {
        return Err(Error::unsupported("taking walls away"));
    }
    match doctor::preflight(host)
        .into_iter()
        .find(|check| check.verdict == Verdict::Fail)
    {
        Some(check) => Err(Error::new(ErrorKind::Unsupported, check.problem())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_that_is_missing_shows_in_the_report_and_refuses_creation() {
        let host = Host {
            is_root: true,
            capabilities: u64::MAX,
            kernel: (6, 18),
            user_namespaces: Some(1000),
            overlay: true,
            seccomp: true,
            ..Host::default()
        };
        assert!(require_walls(&host, 0).is_ok());
        assert_eq!(
            report(&host, &Limits::new(), 0)
                .wall("files")
                .unwrap()
                .enforcement,
            Enforcement::Enforced
        );
        let without: [fn(&mut Host); 5] = [
            |host| (host.is_root, host.forbids_namespaces) = (false, Some("x.y=1")),
            |host| host.capabilities = 0,
            |host| host.kernel = (5, 10),
            |host| host.user_namespaces = Some(0),
            |host| host.seccomp = false,
        ];
        for take in without {
            let mut weaker = host.clone();
            take(&mut weaker);
            let error = require_walls(&weaker, 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let report = report(&weaker, &Limits::new(), 0);
            assert_eq!(
                report.wall("user_ids").unwrap().enforcement,
                Enforcement::NotEnforced
            );
            assert!(
                report
                    .wall("user_ids")
                    .unwrap()
                    .detail
                    .contains(error.message())
            );
        }
    }

    #[test]
    fn limits_without_a_controller_are_reported() {
        let limits = Limits::new().memory(1 << 30).cpus(1.0).processes(64);
        let walls = limit_walls(&Host::default(), &limits);
        for name in ["memory", "cpus", "processes", "disk", "inodes"] {
            let wall = walls.iter().find(|wall| wall.name == name).unwrap();
            assert_eq!(wall.enforcement, Enforcement::NotEnforced, "{name}");
        }
        assert_eq!(walls.last().unwrap().enforcement, Enforcement::Partial);
    }
}
