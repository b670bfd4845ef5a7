//! The emulated machine, and what its console says of the checks.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{context::Context, report};

/// Lines of a failed check that are shown, from its end; the console's file has all.
const SHOWN: usize = 120;

/// Longest console that is kept, in bytes.
const CONSOLE: usize = 16 * 1024 * 1024;

/// What the machine is made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initial: &'a Path,
    pub(super) disk: &'a Path,
    /// Where the console is written to.
    pub(super) console: &'a Path,
}

/// Runs the machine until it turns itself off; returns how many checks have passed.
pub(super) fn run(context: &Context, parts: &Parts<'_>, within: Duration) -> Result<usize> {
    let drive = format!(
        "file={},if=virtio,format=raw,cache=unsafe",
        parts.disk.display()
    );
    let machine = context
        .command("timeout")
        .args(["--kill-after=10", &within.as_secs().to_string()])
        .args([
            "qemu-system-x86_64",
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
        ])
        // QEMU 7.2 spoils a register that CMPXCHG16B leaves alone, and the kernel can do without.
        .args(["-cpu", "max,cx16=off", "-smp", "2", "-m", "3072"])
        .args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-nic",
            "none",
        ])
        .args(["-serial", "stdio", "-drive", &drive, "-kernel"])
        .arg(parts.kernel)
        .arg("-initrd")
        .arg(parts.initial)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    let mut console = File::create(parts.console)?;
    let mut checks = Checks::default();
    let mut kept = 0;
    let ended = machine.lines(|line| {
        if kept < CONSOLE {
            kept += line.len();
            // A full disk spoils the file, not the verdict.
            let _ = writeln!(console, "{line}");
        }
        checks.line(line);
    });
    if let Err(error) = &ended {
        report::note(&format!("{error:#}"));
    }
    checks.verdict()
}

/// What the guest has said so far.
#[derive(Debug, Default)]
struct Checks {
    passed: usize,
    failed: Vec<String>,
    running: Option<Check>,
    is_done: bool,
    /// Lines outside any check: the kernel's.
    other: String,
}

#[derive(Debug)]
struct Check {
    name: String,
    start: Instant,
    lines: Vec<String>,
}

impl Checks {
    fn line(&mut self, line: &str) {
        let line = line.trim_end_matches('\r');
        if let Some(name) = line.strip_prefix("@begin ") {
            self.running = Some(Check {
                name: name.to_owned(),
                start: Instant::now(),
                lines: Vec::new(),
            });
        } else if let Some(end) = line.strip_prefix("@end ") {
            self.end(end.ends_with(" 0"));
        } else if line == "@done" {
            self.is_done = true;
        } else if let Some(check) = &mut self.running {
            check.lines.push(line.to_owned());
        } else if self.other.len() < CONSOLE {
            let _ = writeln!(self.other, "{line}");
        }
    }

    /// Prints the line of the check that has just ended.
    fn end(&mut self, passed: bool) {
        let Some(check) = self.running.take() else {
            return;
        };
        let word = if passed { "ok" } else { "FAILED" };
        let seconds = check.start.elapsed().as_secs_f64();
        report::note(&format!(
            "  {:<12}{seconds:>7.1} s  {word} {}",
            check.name,
            check.summary()
        ));
        if passed {
            self.passed += 1;
        } else {
            let from = check.lines.len().saturating_sub(SHOWN);
            report::note(&check.lines[from..].join("\n"));
            self.failed.push(check.name);
        }
    }

    fn verdict(self) -> Result<usize> {
        if let Some(check) = self.running {
            let from = check.lines.len().saturating_sub(SHOWN);
            bail!(
                "{}\nthe guest ended during `{}`",
                check.lines[from..].join("\n"),
                check.name
            );
        }
        if !self.is_done {
            bail!("{}\nthe guest did not come to its end", self.other);
        }
        if !self.failed.is_empty() {
            bail!("failed in the guest: {}", self.failed.join(", "));
        }
        Ok(self.passed)
    }
}

impl Check {
    /// What a test program says of itself in its last lines.
    fn summary(&self) -> String {
        let mut lines = self.lines.iter().rev();
        let result = lines.find_map(|line| line.strip_prefix("test result: "));
        let counts = result.map(|text| text.split("; finished").next().unwrap_or(text));
        counts.map(|text| format!("({text})")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(lines: &[&str]) -> Result<usize> {
        let mut checks = Checks::default();
        lines.iter().for_each(|line| checks.line(line));
        checks.verdict()
    }

    #[test]
    fn all_checks_must_pass() {
        let passed = [
            "booting",
            "@begin a\r",
            "x",
            "@end a 0\r",
            "@begin b",
            "@end b 0",
            "@done",
        ];
        assert_eq!(verdict(&passed).unwrap(), 2);
        let failed = [
            "@begin a",
            "why",
            "@end a 101",
            "@begin b",
            "@end b 0",
            "@done",
        ];
        assert!(
            verdict(&failed)
                .unwrap_err()
                .to_string()
                .contains("guest: a")
        );
    }

    #[test]
    fn a_guest_that_stops_has_failed() {
        assert!(verdict(&[]).is_err());
        assert!(
            verdict(&["Kernel panic"])
                .unwrap_err()
                .to_string()
                .contains("panic")
        );
        let error = verdict(&["@begin a", "Oops"]).unwrap_err().to_string();
        assert!(error.contains("Oops") && error.contains("during `a`"));
        assert!(verdict(&["@begin a", "@end a 0"]).is_err());
    }

    #[test]
    fn a_test_program_is_summed_up() {
        let mut check = Check {
            name: "a".to_owned(),
            start: Instant::now(),
            lines: vec!["test result: ok. 3 passed; 0 failed; finished in 1.00s".to_owned()],
        };
        assert_eq!(check.summary(), "(ok. 3 passed; 0 failed)");
        check.lines.clear();
        assert_eq!(check.summary(), "");
    }
}
