//! `sandbox create`: a sandbox that stays; and what `create` and `run` have in common.

use super::{ls::Entry, net};
use crate::{
    args::{CreateArgs, LimitArgs, SandboxArgs},
    output::{self, Stop},
    provider,
    signals::Signals,
};
use anyhow::{Context, Result};
use sandbox::{
    CreateOptions, Enforcement, EnforcementReport, Expiry, Limits, Ownership, Sandbox,
    SandboxProvider, Wall,
};
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a sandbox lives unless it is said.
pub(crate) const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);

pub(crate) async fn create(state_dir: Option<&Path>, args: CreateArgs) -> Result<u8> {
    let mut options = options(&args.sandbox)?.ownership(Ownership::Detached);
    options.idle_timeout = args.idle_timeout;
    if args.pause_at_end {
        options = options.on_expiry(Expiry::Pause);
    }
    let started = Instant::now();
    let mut signals = Signals::new()?;
    let provider = provider::open_for(state_dir, &args.sandbox)?;
    let report = provider.enforcement(&options);
    let sandbox = tokio::select! {
        made = make(provider.as_ref(), options, args.sandbox.verbose, started) => made?,
        signal = signals.next() => return Err(Stop::Signal(signal).into()),
    };
    let announced = if args.json {
        describe(sandbox.as_ref(), report).await
    } else {
        output::print(sandbox.id())
    };
    if let Err(error) = announced {
        // Nobody would ever find it.
        if let Err(error) = sandbox.kill().await {
            let id = sandbox.id();
            output::note(format!("the sandbox {id} could not be killed: {error}"));
        }
        return Err(error);
    }
    Ok(0)
}

/// A new sandbox for programs.
#[derive(Debug, Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    entry: Entry<'a>,
    /// What of its walls and limits holds.
    enforcement: Vec<Wall>,
}

async fn describe(sandbox: &dyn Sandbox, report: EnforcementReport) -> Result<()> {
    let info = sandbox
        .info()
        .await
        .context("cannot look at the new sandbox")?;
    output::print_json(&Made {
        entry: Entry::of(&info),
        enforcement: report.walls,
    })
}

/// What the arguments ask for.
pub(crate) fn options(args: &SandboxArgs) -> Result<CreateOptions> {
    let mut options = CreateOptions::new().lifetime(args.lifetime.unwrap_or(DEFAULT_LIFETIME));
    if let Some(template) = &args.template {
        options = options.template(template.as_str());
    }
    options.name.clone_from(&args.name);
    for (name, value) in &args.env {
        options = options.env_var(name, value);
    }
    for (key, value) in &args.metadata {
        options = options.label(key, value);
    }
    options.limits = limits(&args.limits);
    options.network = net::policy(&args.network)?;
    for volume in &args.volumes {
        options = volume.clone().add_to(options);
    }
    Ok(options)
}

/// The ceilings that the arguments ask for.
pub(crate) fn limits(args: &LimitArgs) -> Option<Limits> {
    let mut limits = Limits::new();
    limits.memory = args.memory;
    limits.cpus = args.cpus;
    limits.processes = args.processes;
    (limits.disk, limits.inodes) = (args.disk, args.inodes);
    (limits != Limits::new()).then_some(limits)
}

/// Makes a sandbox and says how long that took.
pub(crate) async fn make(
    provider: &dyn SandboxProvider,
    options: CreateOptions,
    verbose: bool,
    started: Instant,
) -> Result<Arc<dyn Sandbox>> {
    let report = provider.enforcement(&options);
    let sandbox = provider
        .create(options)
        .await
        .context("cannot make the sandbox")?;
    if verbose || io::stderr().is_terminal() {
        output::faint(format!("sandbox ready in {}", brief(started.elapsed())));
        if let Some(text) = shortfall(&report) {
            output::note(text);
        }
    }
    Ok(sandbox)
}

/// What people may rely on unless they are told that it does not hold.
fn shortfall(report: &EnforcementReport) -> Option<String> {
    // No sandbox has such a limit unless it is asked for, and then it holds or creation fails.
    const UNLIMITED: [&str; 2] = ["disk", "inodes"];
    let walls = report.walls.iter().filter(|wall| {
        wall.enforcement != Enforcement::Enforced && !UNLIMITED.contains(&wall.name.as_ref())
    });
    let names: Vec<_> = walls.map(|wall| wall.name.as_ref()).collect();
    let text = || {
        let names = names.join(", ");
        format!("not enforced on this machine: {names}; `sandbox doctor` says why")
    };
    (!names.is_empty()).then(text)
}

/// A short time: `14 ms`, `1.2 s`.
fn brief(time: Duration) -> String {
    match time.as_millis() {
        0 => "less than 1 ms".to_owned(),
        milliseconds @ 1..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_short_of_the_defaults_is_told() {
        let wall = |name, enforcement| Wall::new(name, enforcement, "");
        let holding = vec![
            wall("memory", Enforcement::Enforced),
            wall("disk", Enforcement::NotEnforced),
        ];
        assert_eq!(shortfall(&EnforcementReport::new(holding.clone())), None);
        let lacking = [
            wall("cpus", Enforcement::NotEnforced),
            wall("kill_tree", Enforcement::Partial),
        ];
        let report = EnforcementReport::new([holding, lacking.to_vec()].concat());
        assert_eq!(
            shortfall(&report).unwrap(),
            "not enforced on this machine: cpus, kill_tree; `sandbox doctor` says why"
        );
    }

    #[test]
    fn short_times_are_milliseconds() {
        assert_eq!(brief(Duration::from_micros(14_900)), "14 ms");
        assert_eq!(brief(Duration::from_micros(900)), "less than 1 ms");
        assert_eq!(brief(Duration::from_millis(1234)), "1.2 s");
    }
}
