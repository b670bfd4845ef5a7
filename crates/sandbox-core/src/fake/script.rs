//! What a command does, as a test writes it down.

use super::Gate;
use crate::{Bytes, Command, ErrorKind, ExitStatus, Program, Signal};
use std::{fmt, sync::Arc, time::Duration};

/// Which commands it answers, and what they do, step by step.
///
/// # Behavior
/// - The first script that matches answers, in the order in which they were given to
///   [`FakeProvider::script`](super::FakeProvider::script); with [`Script::once`] it answers one command and is gone.
/// - Without an exit at its end the command returns 0. A step after the exit is never taken.
/// - KILL ends a command wherever it is. Other signals are recorded, and do what the script says.
#[derive(Clone)]
pub struct Script {
    matches: Arc<dyn Fn(&Command) -> bool + Send + Sync>,
    pub(super) steps: Vec<Step>,
    pub(super) once: bool,
}

/// One step of a command.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Stdout(Bytes),
    Stderr(Bytes),
    Pty(Bytes),
    Lost(u64),
    Delay(Duration),
    Gate(Gate),
    UntilStdin(Bytes),
    UntilStdinClosed,
    UntilSignal(Signal),
    Fail(ErrorKind, String),
    Exit(ExitStatus),
}

impl Script {
    /// Answers commands for which `matches` is true.
    pub fn when(matches: impl Fn(&Command) -> bool + Send + Sync + 'static) -> Self {
        Self {
            matches: Arc::new(matches),
            steps: Vec::new(),
            once: false,
        }
    }

    /// Answers every command.
    #[must_use]
    pub fn any() -> Self {
        Self::when(|_| true)
    }

    /// Answers [`Command::new`] of this name, whatever its arguments.
    pub fn program(name: impl Into<String>) -> Self {
        let wanted = Program::Path(name.into());
        Self::when(move |command| command.program == wanted)
    }

    /// Answers [`Command::shell`] of this text.
    pub fn shell(text: impl Into<String>) -> Self {
        let wanted = Program::Shell(text.into());
        Self::when(move |command| command.program == wanted)
    }

    /// Answers one command only.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Says something on standard output.
    #[must_use]
    pub fn stdout(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Stdout(bytes.into()))
    }

    /// Says something on standard error.
    #[must_use]
    pub fn stderr(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Stderr(bytes.into()))
    }

    /// Says something on the terminal.
    #[must_use]
    pub fn pty(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Pty(bytes.into()))
    }

    /// Says that bytes were lost.
    #[must_use]
    pub fn lost(self, bytes: u64) -> Self {
        self.step(Step::Lost(bytes))
    }

    /// Does nothing for a while, by tokio's clock.
    #[must_use]
    pub fn delay(self, time: Duration) -> Self {
        self.step(Step::Delay(time))
    }

    /// Waits for the test to open `gate`.
    #[must_use]
    pub fn gate(self, gate: &Gate) -> Self {
        self.step(Step::Gate(gate.clone()))
    }

    /// Waits until standard input, as far as no step before has read it, holds `text`, and reads up to its end.
    #[must_use]
    pub fn until_stdin(self, text: impl Into<Bytes>) -> Self {
        self.step(Step::UntilStdin(text.into()))
    }

    /// Waits until standard input is closed.
    #[must_use]
    pub fn until_stdin_closed(self) -> Self {
        self.step(Step::UntilStdinClosed)
    }

    /// Waits for a signal.
    #[must_use]
    pub fn until_signal(self, signal: Signal) -> Self {
        self.step(Step::UntilSignal(signal))
    }

    /// Breaks the stream of events with an error.
    #[must_use]
    pub fn fail(self, kind: ErrorKind, message: impl Into<String>) -> Self {
        self.step(Step::Fail(kind, message.into()))
    }

    /// Returns a code.
    #[must_use]
    pub fn exit(self, code: i32) -> Self {
        self.exit_with(ExitStatus::Code(code))
    }

    /// Ends in some other way.
    #[must_use]
    pub fn exit_with(self, status: ExitStatus) -> Self {
        self.step(Step::Exit(status))
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(super) fn answers(&self, command: &Command) -> bool {
        (self.matches)(command)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("steps", &self.steps)
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}
