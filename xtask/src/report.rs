//! All that is printed: one line per step, the output of one that failed, a table at the end.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this module is the program's output"
)]

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    time::{Duration, Instant},
};

use anyhow::Result;

/// How a step ended, unless it failed.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It found nothing wrong.
    Passed,
    /// Likewise, in so many cases as the text says.
    PassedOn(String),
    /// It could not be done on this machine, and why.
    Skipped(String),
}

#[derive(Debug)]
enum State {
    Passed(String),
    Skipped(String),
    Failed,
    NotRun,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    state: State,
    time: Duration,
}

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Runs a step and prints its line; false if it failed.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> Result<Outcome>,
    ) -> bool {
        announce(name);
        let start = Instant::now();
        let result = run();
        let time = start.elapsed();
        let (state, error) = match result {
            Ok(Outcome::Passed) => (State::Passed(String::new()), None),
            Ok(Outcome::PassedOn(what)) => (State::Passed(what), None),
            Ok(Outcome::Skipped(why)) => (State::Skipped(why), None),
            Err(error) => (State::Failed, Some(error)),
        };
        let row = Row { name, state, time };
        println!("{}", row.line());
        if let Some(error) = &error {
            println!("{error:#}\n");
        }
        self.rows.push(row);
        error.is_none()
    }

    /// Notes a step that was left out because an earlier one failed.
    pub(crate) fn not_run(&mut self, name: &'static str) {
        self.rows.push(Row {
            name,
            state: State::NotRun,
            time: Duration::ZERO,
        });
    }

    /// Prints the table of all steps.
    pub(crate) fn summary(&self) {
        let total: Duration = self.rows.iter().map(|row| row.time).sum();
        println!("\n--- summary ---");
        for row in &self.rows {
            println!("{}", row.line());
        }
        let failed = self
            .rows
            .iter()
            .filter(|row| matches!(row.state, State::Failed));
        let verdict = match failed.count() {
            0 => "all checks passed".to_owned(),
            1 => "1 check FAILED".to_owned(),
            more => format!("{more} checks FAILED"),
        };
        println!("{verdict} ({:.1} s)", total.as_secs_f64());
    }
}

impl Row {
    fn line(&self) -> String {
        let (word, text) = match &self.state {
            State::Passed(what) => ("ok", what.as_str()),
            State::Skipped(why) => ("skipped:", why.as_str()),
            State::Failed => ("FAILED", ""),
            State::NotRun => ("not run", ""),
        };
        let seconds = self.time.as_secs_f64();
        let line = format!("{:<14}{seconds:>7.1} s  {word} {text}", self.name);
        line.trim_end().to_owned()
    }
}

/// Says on a terminal which step runs; the step's line replaces it.
fn announce(name: &str) {
    let mut out = stdout();
    if out.is_terminal() {
        // A terminal that is gone is no reason to stop.
        let _ = write!(out, "{name} ...\r").and_then(|()| out.flush());
    }
}

/// Prints a line between those of the steps.
pub(crate) fn note(text: &str) {
    println!("{text}");
}

/// Prints why nothing could be done.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
