//! What can be told from the machine's facts, without trying anything.

use super::{Check, Verdict};
use crate::linux::host::Host;

/// Capabilities that the zygote needs, by number.
const NEEDED: [(u32, &str); 5] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (6, "SETGID"),
    (7, "SETUID"),
    (21, "SYS_ADMIN"),
];

/// All checks of facts, in the order in which they matter.
pub(crate) fn preflight(host: &Host) -> Vec<Check> {
    vec![
        root(host),
        subordinate_ids(host),
        groups(host),
        capabilities(host),
        kernel(host),
        user_namespaces(host),
        overlay(host),
        seccomp(host),
        limits(host),
        cgroup_v2(host),
        limits_above(host),
        disks(host),
    ]
}

/// Whether disks can be larger than memory allows.
fn disks(host: &Host) -> Check {
    let good = "a limit on disk may be larger than half of that on memory: then files go into a btrfs of our own";
    let lacks = "a limit on disk may be at most half of that on memory";
    let fix = "as root, run: apt-get install btrfs-progs; loop devices and the kernel's btrfs are needed as well";
    one_of(
        "large disks",
        (host.btrfs, good),
        (Verdict::Warn, lacks, fix),
    )
}

/// One of two findings, and what helps against the second.
fn one_of(
    name: &'static str,
    (ok, good): (bool, impl Into<String>),
    (otherwise, bad, fix): (Verdict, impl Into<String>, &'static str),
) -> Check {
    Check {
        name,
        verdict: if ok { Verdict::Ok } else { otherwise },
        detail: if ok { good.into() } else { bad.into() },
        fix: (!ok).then_some(fix.into()),
    }
}

fn root(host: &Host) -> Check {
    let fix = "run as root, for example by sudo, for all that sandboxes can do";
    let found = if host.has_users() {
        "runs as an ordinary user: of the machine's files sandboxes can replace and remove any, but change none in place"
    } else {
        "runs as an ordinary user: sandboxes have one user, no root, and what the machine has of programs cannot be \
         changed in them"
    };
    one_of(
        "root",
        (host.is_root, "runs as root"),
        (Verdict::Warn, found, fix),
    )
}

/// Whether an ordinary user's sandboxes have a root and other users.
fn subordinate_ids(host: &Host) -> Check {
    let (verdict, detail, fix) = match &host.subordinate {
        None => (Verdict::Ok, "root needs none".to_owned(), None),
        Some(Ok(ids)) => {
            let detail = format!(
                "sandboxes have a root and other users, of this user's ids from {} on",
                ids.uid
            );
            (Verdict::Ok, detail, None)
        }
        Some(Err(lack)) => {
            let detail = format!("sandboxes have one user and no root: {}", lack.found);
            (Verdict::Warn, detail, Some(lack.fix.clone().into()))
        }
    };
    Check {
        name: "subordinate ids",
        verdict,
        detail,
        fix,
    }
}

/// Whether processes of sandboxes keep rights on the host that they do not need.
fn groups(host: &Host) -> Check {
    let found = format!(
        "sandboxes keep this user's {} other groups, which ordinary users cannot give up",
        host.other_groups
    );
    let fix = "start the program without them, or run as root";
    one_of(
        "groups",
        (
            host.has_users() || host.other_groups == 0,
            "sandboxes have none of the host's",
        ),
        (Verdict::Warn, found, fix),
    )
}

fn capabilities(host: &Host) -> Check {
    let missing = NEEDED
        .iter()
        .filter(|(bit, _)| host.is_root && host.capabilities >> bit & 1 == 0);
    let missing: Vec<_> = missing.map(|(_, name)| *name).collect();
    let lacks = format!("lacks {}", missing.join(", "));
    let fix = "start the outer container with these capabilities (docker: --privileged, or --cap-add for each)";
    one_of(
        "capabilities",
        (missing.is_empty(), "all that is needed"),
        (Verdict::Fail, lacks, fix),
    )
}

fn kernel(host: &Host) -> Check {
    let (major, minor) = host.kernel;
    let detail = format!(
        "Linux {major}.{minor}, and 5.19 or later is needed for overlays of id-mapped mounts"
    );
    one_of(
        "kernel",
        (host.kernel >= (5, 19), detail.clone()),
        (Verdict::Fail, detail, "use a machine with a newer kernel"),
    )
}

fn user_namespaces(host: &Host) -> Check {
    if let Some(sysctl) = host.forbids_namespaces.filter(|_| !host.is_root) {
        return Check {
            name: "user namespaces",
            verdict: Verdict::Fail,
            detail: "this machine forbids them to ordinary users".to_owned(),
            fix: Some(format!("run as root, or allow them: sysctl -w {sysctl}").into()),
        };
    }
    let most = host.user_namespaces;
    let detail = most.map_or("the kernel has no user namespaces".into(), |most| {
        format!("at most {most} may exist")
    });
    let fix = "set the sysctl user.max_user_namespaces to 10000 or more (CONFIG_USER_NS must be set in the kernel)";
    one_of(
        "user namespaces",
        (most.is_some_and(|most| most > 0), detail.clone()),
        (Verdict::Fail, detail, fix),
    )
}

fn overlay(host: &Host) -> Check {
    let fix = "load it by `modprobe overlay`, if the first sandbox does not";
    one_of(
        "overlay",
        (host.overlay, "the kernel has overlayfs"),
        (Verdict::Warn, "overlayfs is not loaded", fix),
    )
}

fn seccomp(host: &Host) -> Check {
    let fix = "use a kernel with CONFIG_SECCOMP_FILTER";
    one_of(
        "seccomp",
        (host.seccomp, "filters can be installed"),
        (Verdict::Fail, "the kernel has no seccomp filters", fix),
    )
}

fn limits(host: &Host) -> Check {
    let carried = [
        ("memory", host.v1_memory.is_some() || host.v2_has("memory")),
        ("cpus", host.v1_cpu.is_some() || host.v2_has("cpu")),
        (
            "processes",
            host.has_pids() || host.counts_processes_by_user(),
        ),
    ];
    let missing = carried.iter().filter(|(_, carried)| !carried);
    let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
    let lacks = format!("cannot be limited: {}", missing.join(", "));
    let fix = if host.is_root {
        "mount the missing cgroup controllers; in a container, move its processes into a group below its top one, so \
         that this can hand controllers down"
    } else {
        "run as root, or in a cgroup of version 2 that is delegated to this user (systemd-run --user --scope \
         -p Delegate=yes)"
    };
    one_of(
        "limits",
        (
            missing.is_empty(),
            "memory, cpus and processes can be limited",
        ),
        (Verdict::Warn, lacks, fix),
    )
}

fn cgroup_v2(host: &Host) -> Check {
    let (found, fix) = if host.is_root {
        (
            "not mounted",
            "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    } else {
        (
            "no group of it is this user's: no pause, and what leaves its process group outlives a killed command",
            "run as root, or in a cgroup that is delegated to this user (systemd-run --user --scope -p Delegate=yes)",
        )
    };
    one_of(
        "cgroup version 2",
        (host.v2.is_some(), "mounted, each command has a group"),
        (Verdict::Warn, found, fix),
    )
}

/// Whether what this program itself is limited to also limits its sandboxes.
fn limits_above(host: &Host) -> Check {
    let bypassed = host.v2.as_ref().map_or(&[][..], |group| &group.bypassed);
    let names = bypassed.iter().map(|group| group.display().to_string());
    let names: Vec<_> = names.collect();
    let detail = format!(
        "limits of this program do not hold for its sandboxes: those of {}",
        names.join(", ")
    );
    let fix = "let this run in a group of its own below the limited one (systemd: Delegate=yes and \
               DelegateSubgroup=main)";
    one_of(
        "limits above",
        (
            bypassed.is_empty(),
            "limits of this program hold for its sandboxes",
        ),
        (Verdict::Warn, detail, fix),
    )
}
