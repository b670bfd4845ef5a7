//! `sandbox doctor`: whether this machine can isolate, and how to fix what it lacks.

use crate::{
    args::DoctorArgs,
    output::{self, BAD, DOUBTFUL, FAINT, GOOD},
    provider,
};
use anstyle::Style;
use anyhow::Result;
use sandbox::{
    CreateOptions, Enforcement, EnforcementReport, SandboxProvider, Wall,
    local::{Check, Diagnosis, Verdict},
};
use serde::Serialize;
use std::path::Path;

/// The code to end with if no sandbox can be made.
const NOT_READY: u8 = 1;

/// The diagnosis for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Whether sandboxes can be made.
    ready: bool,
    checks: &'a [Check],
    /// What would hold of a sandbox with default options.
    enforcement: &'a [Wall],
}

pub(crate) fn doctor(state_dir: Option<&Path>, args: &DoctorArgs) -> Result<u8> {
    let diagnosis = provider::local(state_dir).doctor();
    let ready = diagnosis.is_ready();
    // Where no sandbox can be made there is nothing to hold.
    let provider = provider::local(state_dir).keep_leftovers().build().ok();
    let report = provider
        .filter(|_| ready)
        .map(|provider| provider.enforcement(&CreateOptions::new()))
        .unwrap_or_default();
    if args.json {
        output::print_json(&Report {
            ready,
            checks: &diagnosis.checks,
            enforcement: &report.walls,
        })?;
    } else {
        output::print(text(&diagnosis, &report))?;
    }
    Ok(if ready { 0 } else { NOT_READY })
}

/// A line a check, the fix below it, a line for each limit that does not hold, and the upshot.
fn text(diagnosis: &Diagnosis, report: &EnforcementReport) -> String {
    let open = report.walls.iter();
    let open: Vec<_> = open
        .filter(|wall| wall.enforcement != Enforcement::Enforced)
        .collect();
    let checks = diagnosis.checks.iter().map(|check| check.name.len());
    let width = checks.chain(open.iter().map(|wall| wall.name.len())).max();
    let width = width.unwrap_or(0);
    let mut lines = Vec::new();
    for check in &diagnosis.checks {
        let (mark, style) = mark(check.verdict);
        let detail = output::printable(&check.detail);
        lines.push(format!(
            "{style}{mark}{style:#} {:width$}  {detail}",
            check.name
        ));
        if let Some(fix) = &check.fix {
            let fix = output::printable(fix);
            lines.push(format!("  {:width$}  {FAINT}fix:{FAINT:#} {fix}", ""));
        }
    }
    if !open.is_empty() {
        lines.push(String::new());
        lines.push("Not or not fully enforced:".to_owned());
    }
    for wall in open {
        let detail = output::printable(&wall.detail);
        lines.push(format!("{FAINT}-{FAINT:#} {:width$}  {detail}", wall.name));
    }
    let count = |verdict| {
        let checks = diagnosis.checks.iter();
        checks.filter(|check| check.verdict == verdict).count()
    };
    lines.push(String::new());
    lines.push(match (count(Verdict::Fail), count(Verdict::Warn)) {
        (0, 0) => "Sandboxes can be made here.".to_owned(),
        (0, _) => {
            "Sandboxes can be made here, but not everything holds: see the fixes above.".to_owned()
        }
        _ => "No sandbox can be made here: see the fixes above.".to_owned(),
    });
    lines.join("\n")
}

fn mark(verdict: Verdict) -> (&'static str, Style) {
    match verdict {
        Verdict::Ok => ("✓", GOOD),
        Verdict::Fail => ("✗", BAD),
        _ => ("!", DOUBTFUL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::local::LocalProvider;

    fn plain(diagnosis: &Diagnosis, report: &EnforcementReport) -> String {
        anstream::adapter::strip_str(&text(diagnosis, report)).to_string()
    }

    #[test]
    fn what_is_not_enforced_has_a_line() {
        let diagnosis = LocalProvider::builder().state_dir("/proc/none").doctor();
        let report = EnforcementReport::new(vec![
            Wall::new("memory", Enforcement::Enforced, "2 GiB"),
            Wall::new("disk", Enforcement::NotEnforced, "no\u{1b} quota"),
        ]);
        let text = plain(&diagnosis, &report);
        assert!(!text.contains("2 GiB"), "{text}");
        let mut lines = text.lines();
        assert!(lines.any(|line| line.starts_with("- disk ") && line.ends_with("no\\u{1b} quota")));
    }

    #[test]
    fn each_check_has_a_line_and_each_fix_another() {
        // A state directory that cannot be used fails on every machine.
        let diagnosis = LocalProvider::builder().state_dir("/proc/none").doctor();
        let text = plain(&diagnosis, &EnforcementReport::default());
        let fixes = diagnosis.checks.iter().filter(|check| check.fix.is_some());
        assert_eq!(
            text.lines().count(),
            diagnosis.checks.len() + fixes.count() + 2
        );
        assert!(text.contains("✗ "), "{text}");
        assert!(
            text.ends_with("No sandbox can be made here: see the fixes above."),
            "{text}"
        );
    }
}
