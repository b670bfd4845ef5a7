//! What to run in a sandbox.

use crate::{Error, Result};
use std::{collections::BTreeMap, time::Duration};

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Program {
    /// A program, looked up in `PATH` unless its name holds a `/`.
    Path(String),
    /// A script for the template's shell: bash where there is one, else sh.
    Shell(String),
}

/// What a command reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// Nothing: it is at its end from the start.
    #[default]
    Closed,
    /// What [`ProcessControl::write_stdin`](crate::ProcessControl::write_stdin) sends, until it is closed.
    Open,
}

/// A command to run in a sandbox.
///
/// # Behavior
/// - A program that is missing or not executable is no error of `spawn`: it ends with 127 or 126 and its message on
///   standard error, whether it was asked for by [`Command::new`] or [`Command::shell`].
/// - The bytes of each stream come in order. Across standard output and standard error it is the order of arrival,
///   which can differ from the program's; [`Command::merge_stderr`] gives both one pipe and with it the exact order.
/// - [`Command::timeout`] ends the whole tree: TERM, a grace time, KILL. Output until then is kept.
///
/// ```
/// # use sandbox_core::Command;
/// # use std::time::Duration;
/// let test = Command::new("cargo").arg("test").cwd("/home/user/app").timeout(Duration::from_secs(120));
/// let count = Command::shell("ls | wc -l").merge_stderr();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// What follows the program's name; of a script `$1`, `$2` and so on.
    pub args: Vec<String>,
    /// Added to the sandbox's environment, in which nothing is of the caller's own.
    pub env: BTreeMap<String, String>,
    /// Working directory; `None` is the user's home.
    pub cwd: Option<String>,
    /// Name, `uid` or `uid:gid`; `None` is the sandbox's default user.
    pub user: Option<String>,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Between TERM and KILL when the timeout is over; `None` is two seconds.
    pub grace: Option<Duration>,
    /// What it reads.
    pub stdin: Stdin,
    /// Standard error goes where standard output goes.
    pub merge_stderr: bool,
    /// A label to find the process by.
    pub tag: Option<String>,
}

impl Command {
    /// Time between TERM and KILL unless the command says otherwise.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(2);

    /// A program, looked up in the sandbox's `PATH`. No shell is involved.
    pub fn new(program: impl Into<String>) -> Self {
        Self::of(Program::Path(program.into()))
    }

    /// A script for the sandbox's shell.
    pub fn shell(script: impl Into<String>) -> Self {
        Self::of(Program::Shell(script.into()))
    }

    fn of(program: Program) -> Self {
        Self {
            program,
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            timeout: None,
            grace: None,
            stdin: Stdin::default(),
            merge_stderr: false,
            tag: None,
        }
    }

    /// Adds an argument; of a script it is `$1`, `$2`, …
    #[must_use]
    pub fn arg(self, arg: impl Into<String>) -> Self {
        self.args([arg])
    }

    /// Adds arguments, each as it is.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory. One that is missing makes `spawn` fail with `NotFound`, whatever the program is.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Runs as another user of the sandbox.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Ends the command after `timeout`, which counts from its start.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time between TERM and KILL.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Keeps standard input open or not.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sends standard error where standard output goes, so that the program's own order is kept.
    #[must_use]
    pub fn merge_stderr(mut self) -> Self {
        self.merge_stderr = true;
        self
    }

    /// Labels the process.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Refuses what no system can run. Providers call it first, so that all of them refuse the same.
    ///
    /// # Errors
    /// `InvalidArgument` for a program without a name, a NUL character anywhere, the name of a variable that is empty or
    /// holds `=`, a working directory, user or tag without a name, and a timeout of zero.
    pub fn validate(&self) -> Result<()> {
        let (Program::Path(program) | Program::Shell(program)) = &self.program;
        if matches!(self.program, Program::Path(_)) && program.is_empty() {
            return Err(Error::invalid("a command must name a program"));
        }
        no_nul("the program", program)?;
        for arg in &self.args {
            no_nul("an argument", arg)?;
        }
        for (name, value) in &self.env {
            validate_variable(name, value)?;
        }
        let named = [
            ("the working directory", &self.cwd),
            ("the user", &self.user),
            ("the tag", &self.tag),
        ];
        for (what, text) in named {
            let Some(text) = text else { continue };
            no_nul(what, text)?;
            if text.is_empty() {
                return Err(Error::invalid(format!("{what} must not be empty")));
            }
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(Error::invalid("a timeout must be longer than zero"));
        }
        Ok(())
    }
}

/// Refuses an environment variable that no program could be given.
pub(crate) fn validate_variable(name: &str, value: &str) -> Result<()> {
    if name.is_empty() || name.contains(['=', '\0']) {
        let message = "the name of a variable must not be empty or hold `=` or NUL";
        return Err(Error::invalid(message).with_context("name", name.escape_debug()));
    }
    no_nul("a variable", value)
}

fn no_nul(what: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        let message = format!("{what} must not hold a NUL character");
        return Err(Error::invalid(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_no_system_can_run_is_invalid() {
        let command = || Command::new("true");
        let senseless = [
            Command::new(""),
            Command::new("tr\0ue"),
            Command::shell("true\0"),
            command().arg("\0"),
            command().env("", "x"),
            command().env("A=B", "x"),
            command().env("A", "\0"),
            command().cwd(""),
            command().cwd("/\0"),
            command().user(""),
            command().user("\0"),
            command().tag(""),
            command().tag("\0"),
            command().timeout(Duration::ZERO),
        ];
        for command in senseless {
            let error = command.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{command:?}");
        }
    }

    #[test]
    fn what_only_looks_odd_is_fine() {
        let odd = [
            Command::shell(""),
            Command::new(" ").arg("").arg("\n"),
            Command::new("x").env("a-b", "c=d").cwd(" ").user("-1"),
            Command::new("x")
                .timeout(Duration::MAX)
                .grace(Duration::ZERO),
        ];
        for command in odd {
            assert!(command.validate().is_ok(), "{command:?}");
        }
    }
}
