//! `sandbox doctor`: whether this machine can isolate, and how to fix what it lacks.

use crate::{
    args::DoctorArgs,
    output::{self, BAD, DOUBTFUL, FAINT, GOOD},
    provider,
};
use anstyle::Style;
use anyhow::Result;
use sandbox::local::{Check, Diagnosis, Verdict};
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
}

pub(crate) fn doctor(state_dir: Option<&Path>, args: &DoctorArgs) -> Result<u8> {
    let diagnosis = provider::local(state_dir).doctor();
    let ready = diagnosis.is_ready();
    if args.json {
        let checks = &diagnosis.checks;
        output::print_json(&Report { ready, checks })?;
    } else {
        output::print(text(&diagnosis))?;
    }
    Ok(if ready { 0 } else { NOT_READY })
}

/// A line a check, the fix below it, and the upshot.
fn text(diagnosis: &Diagnosis) -> String {
    let width = diagnosis.checks.iter().map(|check| check.name.len()).max();
    let width = width.unwrap_or(0);
    let mut lines = Vec::new();
    for check in &diagnosis.checks {
        let (mark, style) = mark(check.verdict);
        let detail = output::printable(&check.detail);
        lines.push(format!(
            "{style}{mark}{style:#} {:width$}  {detail}",
            check.name
        ));
        if let Some(fix) = check.fix {
            lines.push(format!("  {:width$}  {FAINT}fix:{FAINT:#} {fix}", ""));
        }
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

    #[test]
    fn each_check_has_a_line_and_each_fix_another() {
        // A state directory that cannot be used fails on every machine.
        let diagnosis = LocalProvider::builder().state_dir("/proc/none").doctor();
        let text = anstream::adapter::strip_str(&text(&diagnosis)).to_string();
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
