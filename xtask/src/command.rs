//! Runs a program so that its output is shown when it matters: always, or only when it fails.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
    process::{self, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// A program to run, with nothing on standard input.
#[derive(Debug)]
pub(crate) struct Command {
    inner: process::Command,
    shown: Vec<OsString>,
}

impl Command {
    pub(crate) fn new(program: &OsStr, directory: &Path) -> Self {
        let mut inner = process::Command::new(program);
        inner.current_dir(directory).stdin(Stdio::null());
        Self {
            inner,
            shown: vec![program.to_owned()],
        }
    }

    /// Names the program by this word in messages.
    pub(crate) fn shown_as(mut self, name: &str) -> Self {
        self.shown[0] = name.into();
        self
    }

    pub(crate) fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    pub(crate) fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        for arg in args {
            self.shown.push(arg.as_ref().to_owned());
            self.inner.arg(arg);
        }
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// Hides a variable of our own environment from it.
    pub(crate) fn without_env(mut self, key: &str) -> Self {
        self.inner.env_remove(key);
        self
    }

    /// Runs it in another directory.
    pub(crate) fn within(mut self, directory: &Path) -> Self {
        self.inner.current_dir(directory);
        self
    }

    /// Runs it and hands over each line that it writes, as it comes; the lines need not be text.
    ///
    /// # Errors
    /// If it fails. Its lines have been handed over all the same.
    pub(crate) fn lines(mut self, mut each: impl FnMut(&str)) -> Result<()> {
        let (reader, writer) = io::pipe()?;
        self.inner.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.spawn()?;
        let shown = self.shown();
        drop(self);
        for line in BufReader::new(reader).split(b'\n') {
            each(&String::from_utf8_lossy(&line?));
        }
        let status = child.wait()?;
        if status.success() {
            return Ok(());
        }
        bail!("`{shown}` failed: {status}");
    }

    /// Runs it silently.
    ///
    /// # Errors
    /// All that it wrote, in order, if it fails.
    pub(crate) fn run(self) -> Result<()> {
        self.read_all().map(drop)
    }

    /// Runs it and returns all that it wrote, in order.
    ///
    /// # Errors
    /// The same, if it fails.
    pub(crate) fn read_all(mut self) -> Result<String> {
        let (mut reader, writer) = io::pipe()?;
        self.inner.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.spawn()?;
        let shown = self.shown();
        // Closes our copies of the pipe's end, so that reading ends when the program does.
        drop(self);
        let mut output = Vec::new();
        reader.read_to_end(&mut output)?;
        let status = child.wait()?;
        let output = String::from_utf8_lossy(&output);
        if status.success() {
            return Ok(output.into_owned());
        }
        bail!("{output}\n`{shown}` failed: {status}");
    }

    /// Runs it with its output going straight to ours.
    pub(crate) fn stream(mut self) -> Result<()> {
        let status = self.spawn()?.wait()?;
        if status.success() {
            return Ok(());
        }
        bail!("`{}` failed: {status}", self.shown());
    }

    /// Runs it with its output going straight to ours, and says whether it succeeded.
    pub(crate) fn succeeds_aloud(mut self) -> Result<bool> {
        Ok(self.spawn()?.wait()?.success())
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// What it wrote to standard error, if it fails.
    pub(crate) fn read(mut self) -> Result<String> {
        self.inner.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.spawn()?.wait_with_output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{stderr}\n`{}` failed: {}", self.shown(), output.status);
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("`{}` printed something else than text", self.shown()))
    }

    /// Whether it can be run and succeeds.
    pub(crate) fn succeeds(mut self) -> bool {
        self.inner.stdout(Stdio::null()).stderr(Stdio::null());
        self.inner.status().is_ok_and(|status| status.success())
    }

    fn spawn(&mut self) -> Result<process::Child> {
        let child = self.inner.spawn();
        child.with_context(|| format!("`{}` cannot be started", self.shown()))
    }

    fn shown(&self) -> String {
        let words: Vec<_> = self
            .shown
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        words.join(" ")
    }
}
