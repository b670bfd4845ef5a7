//! What this machine offers and lacks for sandboxes, and what would help.

mod facts;
mod storage;

use super::{
    create,
    host::Host,
    provider::{LocalProvider, Shared},
    template,
};
use crate::LocalBuilder;
pub(crate) use facts::preflight;
use rustix::io::Errno;
use sandbox_core::{CreateOptions, Error, ErrorKind, Limits, TemplateId};
use serde::Serialize;
use std::{borrow::Cow, error::Error as _, io, path::Path};

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
    pub fix: Option<Cow<'static, str>>,
}

impl Check {
    /// Detail and fix in one line.
    pub(crate) fn problem(&self) -> String {
        match &self.fix {
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
                fix: Some(
                    "make it root's alone (chown root, chmod 700), or name another by SANDBOX_STATE_DIR, on a file \
                     system with room"
                        .into(),
                ),
            });
            Diagnosis { checks }
        }
    }
}

/// Looks at the facts, and if they are good makes a sandbox and ends it.
pub(crate) fn examine(shared: &Shared) -> Diagnosis {
    let mut checks = preflight(&shared.site.host);
    if checks.iter().all(|check| check.verdict != Verdict::Fail) {
        let mut tried = |name, detail, error: Option<Error>| {
            checks.push(tried(name, detail, error.as_ref(), &shared.site.state));
        };
        let template = template::open(&TemplateId::new(template::DEFAULT), &shared.site.state);
        tried(
            "template host",
            "made from this machine's own programs",
            template.err(),
        );
        let make = |captured| {
            let options = CreateOptions::new().limits(Limits::new());
            let mut request = create::Request::check(shared, options)?;
            request.captured = captured;
            create::make(&shared.site, request).map(drop)
        };
        let made = make(false).err();
        let is_made = made.is_none();
        tried("a sandbox", "made and ended", made);
        if is_made {
            checks.push(network(make(true).err()));
        }
    }
    Diagnosis { checks }
}

/// Whether sandboxes can have a network, after one with it was tried.
fn network(error: Option<Error>) -> Check {
    let name = "a network";
    let Some(error) = error else {
        return Check {
            name,
            verdict: Verdict::Ok,
            detail: "what leaves a sandbox can be caught".to_owned(),
            fix: None,
        };
    };
    Check {
        name,
        verdict: Verdict::Warn,
        detail: format!("sandboxes have no network: {error}"),
        fix: Some("as root, run: modprobe -a nf_tables nft_tproxy".into()),
    }
}

/// How a step came out that was tried.
fn tried(name: &'static str, detail: &str, error: Option<&Error>, state: &Path) -> Check {
    let Some(error) = error else {
        return Check {
            name,
            verdict: Verdict::Ok,
            detail: detail.to_owned(),
            fix: None,
        };
    };
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    Check {
        name,
        verdict: Verdict::Fail,
        detail: format!("{error}{cause}"),
        fix: Some(fix(error, state)),
    }
}

/// What helps against a failure to make a template or a sandbox.
fn fix(error: &Error, state: &Path) -> Cow<'static, str> {
    let on = || {
        let system = storage::file_system(state);
        format!("{} is on {system}", state.display())
    };
    match error.kind() {
        ErrorKind::StorageFull => format!(
            "make room, or name another state directory by SANDBOX_STATE_DIR: {}",
            on()
        )
        .into(),
        ErrorKind::QuotaExceeded => "kill sandboxes that are not needed, or run `sandbox prune`".into(),
        ErrorKind::Unsupported => "use a machine on which /bin and /lib are links into /usr, as Debian installs it".into(),
        _ if is_of_storage(error) => format!(
            "name a state directory on ext4, xfs or btrfs by SANDBOX_STATE_DIR: {}, which may not serve for overlays \
             with mapped owners",
            on()
        )
        .into(),
        _ => "an outer container may forbid it: allow mounts and namespaces (docker: --privileged, or \
              --security-opt seccomp=unconfined --security-opt apparmor=unconfined with CAP_SYS_ADMIN)"
            .into(),
    }
}

/// Whether a file system has refused what only some of them can.
fn is_of_storage(error: &Error) -> bool {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    let errno = source
        .and_then(io::Error::raw_os_error)
        .map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::STALE)
    )
}
