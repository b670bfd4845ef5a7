//! What this machine offers and lacks for sandboxes, and what would help.

use super::{
    create,
    host::Host,
    provider::{LocalProvider, Shared},
    template,
};
use crate::LocalBuilder;
use sandbox_core::{CreateOptions, Error, Limits, TemplateId};
use serde::Serialize;
use std::error::Error as _;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Fine.
    Ok,
    /// Sandboxes can be made, but something does not hold.
    Warn,
    /// No sandbox can be made.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What would help.
    pub fix: Option<&'static str>,
}

impl Check {
    /// Detail and fix in one line.
    pub(crate) fn problem(&self) -> String {
        match self.fix {
            Some(fix) => format!("{}: {fix}", self.detail),
            None => self.detail.clone(),
        }
    }
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// In the order in which they matter.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Whether sandboxes can be made.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.verdict != Verdict::Fail)
    }
}

/// Capabilities that the zygote needs, by number.
const NEEDED: [(u32, &str); 5] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (6, "SETGID"),
    (7, "SETUID"),
    (21, "SYS_ADMIN"),
];

fn check(
    name: &'static str,
    ok: bool,
    otherwise: Verdict,
    detail: String,
    fix: &'static str,
) -> Check {
    let verdict = if ok { Verdict::Ok } else { otherwise };
    Check {
        name,
        verdict,
        detail,
        fix: (!ok).then_some(fix),
    }
}

/// What can be told from the machine's facts, without trying anything.
pub(crate) fn preflight(host: &Host) -> Vec<Check> {
    let (major, minor) = host.kernel;
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(bit, _)| host.capabilities >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect();
    let namespaces = host.user_namespaces;
    vec![
        check(
            "root",
            host.is_root,
            Verdict::Fail,
            if host.is_root {
                "runs as root".into()
            } else {
                "does not run as root".into()
            },
            "run as root, for example by sudo; ordinary users are not supported yet",
        ),
        check(
            "capabilities",
            missing.is_empty(),
            Verdict::Fail,
            if missing.is_empty() {
                "all that is needed".into()
            } else {
                format!("lacks {}", missing.join(", "))
            },
            "start the outer container with these capabilities (docker: --privileged, or --cap-add for each)",
        ),
        check(
            "kernel",
            host.kernel >= (5, 19),
            Verdict::Fail,
            format!(
                "Linux {major}.{minor}, and 5.19 or later is needed for overlays of id-mapped mounts"
            ),
            "use a machine with a newer kernel",
        ),
        check(
            "user namespaces",
            namespaces.is_some_and(|most| most > 0),
            Verdict::Fail,
            namespaces.map_or("the kernel has no user namespaces".into(), |most| {
                format!("at most {most} may exist")
            }),
            "set the sysctl user.max_user_namespaces to 10000 or more (CONFIG_USER_NS must be set in the kernel)",
        ),
        check(
            "overlay",
            host.overlay,
            Verdict::Warn,
            if host.overlay {
                "the kernel has overlayfs".into()
            } else {
                "overlayfs is not loaded".into()
            },
            "load it by `modprobe overlay`, if the first sandbox does not",
        ),
        check(
            "seccomp",
            host.seccomp,
            Verdict::Fail,
            if host.seccomp {
                "filters can be installed".into()
            } else {
                "the kernel has no seccomp filters".into()
            },
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
        check(
            "limits",
            carried(host).iter().all(|(_, carried)| *carried),
            Verdict::Warn,
            limits_detail(host),
            "mount the missing cgroup controllers; in a container, move its processes into a group below its top one, \
             so that this can hand controllers down",
        ),
        check(
            "cgroup version 2",
            host.v2.is_some(),
            Verdict::Warn,
            if host.v2.is_some() {
                "mounted, each command has a group".into()
            } else {
                "not mounted".into()
            },
            "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
        limits_above(host),
    ]
}

/// Whether what this program itself is limited to also limits its sandboxes.
fn limits_above(host: &Host) -> Check {
    let bypassed = host.v2.as_ref().map_or(&[][..], |group| &group.bypassed);
    let names: Vec<_> = bypassed
        .iter()
        .map(|group| group.display().to_string())
        .collect();
    check(
        "limits above",
        bypassed.is_empty(),
        Verdict::Warn,
        if bypassed.is_empty() {
            "limits of this program hold for its sandboxes".into()
        } else {
            let names = names.join(", ");
            format!("limits of this program do not hold for its sandboxes: those of {names}")
        },
        "let this run in a group of its own below the limited one (systemd: Delegate=yes and DelegateSubgroup=main)",
    )
}

fn carried(host: &Host) -> [(&'static str, bool); 3] {
    [
        ("memory", host.v1_memory.is_some() || host.v2_has("memory")),
        ("cpus", host.v1_cpu.is_some() || host.v2_has("cpu")),
        ("processes", host.v1_pids.is_some() || host.v2_has("pids")),
    ]
}

fn limits_detail(host: &Host) -> String {
    let missing: Vec<_> = carried(host)
        .iter()
        .filter(|(_, carried)| !carried)
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        "memory, cpus and processes can be limited".into()
    } else {
        format!("cannot be limited: {}", missing.join(", "))
    }
}

/// As [`examine`], from before there is a provider: the facts count even if its directory cannot be used.
pub(crate) fn diagnose(builder: LocalBuilder) -> Diagnosis {
    let host = Host::read();
    let mut checks = preflight(&host);
    if checks.iter().any(|check| check.verdict == Verdict::Fail) {
        return Diagnosis { checks };
    }
    match LocalProvider::open_on(host, builder) {
        Ok(provider) => provider.doctor(),
        Err(error) => {
            checks.push(Check {
                name: "state directory",
                verdict: Verdict::Fail,
                detail: error.to_string(),
                fix: Some("name another by SANDBOX_STATE_DIR, on a file system with room"),
            });
            Diagnosis { checks }
        }
    }
}

/// Looks at the facts, and if they are good makes a sandbox and ends it.
pub(crate) fn examine(shared: &Shared) -> Diagnosis {
    let mut checks = preflight(&shared.host);
    if checks.iter().all(|check| check.verdict != Verdict::Fail) {
        let template = template::open(&TemplateId::new(template::DEFAULT), &shared.state);
        checks.push(tried(
            "template host",
            "made from this machine's own programs".into(),
            template.err(),
        ));
        let options = CreateOptions::new().limits(Limits::new());
        let made = create::Request::check(shared, options)
            .and_then(|request| create::make(shared, request));
        checks.push(tried("a sandbox", "made and ended".into(), made.err()));
    }
    Diagnosis { checks }
}

fn tried(name: &'static str, detail: String, error: Option<Error>) -> Check {
    let Some(error) = error else {
        return Check {
            name,
            verdict: Verdict::Ok,
            detail,
            fix: None,
        };
    };
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    let fix = "an outer container may forbid it: allow mounts and namespaces (docker: --privileged, or \
               --security-opt seccomp=unconfined --security-opt apparmor=unconfined with CAP_SYS_ADMIN)";
    Check {
        name,
        verdict: Verdict::Fail,
        detail: format!("{error}{cause}"),
        fix: Some(fix),
    }
}
