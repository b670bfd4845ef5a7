//! Copies files and directories between this machine and a sandbox.

pub(crate) mod directory;
pub(crate) mod download;
#[cfg(test)]
mod hostile;
pub(crate) mod spec;
pub(crate) mod upload;

use crate::output;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use serde::Serialize;
use std::borrow::Cow;

/// Files that are on their way at a time. More gain nothing on this machine, and hosted sandboxes dislike it.
const AT_A_TIME: usize = 8;

/// How many left-out files people are told of one by one.
const MOST_NOTES: usize = 20;

/// What was copied.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Number of files.
    pub(crate) files: u64,
    /// Bytes of their contents.
    pub(crate) bytes: u64,
    /// What was left out.
    pub(crate) skipped: Vec<Skipped>,
    /// Whether something was left out that should have been copied.
    pub(crate) incomplete: bool,
}

/// Something that was left out, and why.
#[derive(Debug, Serialize)]
pub(crate) struct Skipped {
    pub(crate) path: String,
    pub(crate) reason: Cow<'static, str>,
}

impl Report {
    fn skip(&mut self, path: &[u8], reason: impl Into<Cow<'static, str>>) {
        let path = String::from_utf8_lossy(path).into_owned();
        let reason = reason.into();
        self.skipped.push(Skipped { path, reason });
    }

    /// Leaves out something that cannot be copied.
    fn fail(&mut self, path: &[u8], error: &sandbox::Error) {
        self.skip(path, error.message().to_owned());
        self.incomplete = true;
    }

    /// Tells people what was left out.
    pub(crate) fn note_skipped(&self) {
        for skipped in self.skipped.iter().take(MOST_NOTES) {
            let path = output::printable(&skipped.path);
            let reason = output::printable(&skipped.reason);
            output::note(format!("left out {path}: {reason}"));
        }
        if let Some(more @ 1..) = self.skipped.len().checked_sub(MOST_NOTES) {
            output::note(format!("left out {more} more"));
        }
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let files = if self.files == 1 { "file" } else { "files" };
        format!("copied {} {files}, {}", self.files, HumanBytes(self.bytes))
    }
}

/// Shows how far a copy is, where somebody looks.
#[derive(Debug, Clone)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Draws on standard error if that is a terminal, and leaves nothing there.
    pub(crate) fn shown() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self(bar.with_finish(ProgressFinish::AndClear))
    }

    /// Draws nothing.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// How much there will be.
    fn expect(&self, bytes: u64) {
        const BAR: &str =
            "{bar:30} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
        self.0.set_length(bytes);
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            self.0.set_style(style.progress_chars("━╸─"));
        }
    }

    fn add(&self, bytes: usize) {
        self.0.inc(bytes as u64);
    }
}
