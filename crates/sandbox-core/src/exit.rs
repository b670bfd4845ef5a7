//! How a process ends, and the signals that can end it.

use crate::{Error, Result};
use serde::Serialize;
use std::fmt;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
    /// Its [`Command::timeout`](crate::Command::timeout) passed.
    TimedOut,
    /// The sandbox's memory was used up, and the kernel chose this process.
    ///
    /// Where the kernel counts its kills for the sandbox as a whole, a command that something else has killed can show
    /// this too: if, while it ran, the kernel had ended a process whose command went on.
    OutOfMemory,
}

impl ExitStatus {
    /// Whether it returned 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// One number as a shell would give it: the code, 128 and the signal, 124 for a timeout, 137 for lack of memory.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
            Self::TimedOut => 124,
            Self::OutOfMemory => 137,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

/// A signal, by its Linux number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// Hang-up.
    pub const HUP: Self = Self(1);
    /// Interrupt, as by Ctrl-C.
    pub const INT: Self = Self(2);
    /// Quit.
    pub const QUIT: Self = Self(3);
    /// The end that cannot be caught; it takes the whole tree of a command.
    pub const KILL: Self = Self(9);
    /// User-defined.
    pub const USR1: Self = Self(10);
    /// User-defined.
    pub const USR2: Self = Self(12);
    /// Please end.
    pub const TERM: Self = Self(15);

    /// A signal by its Linux number.
    ///
    /// # Errors
    /// `InvalidArgument` unless 1 to 64.
    pub fn new(number: i32) -> Result<Self> {
        if (1..=64).contains(&number) {
            Ok(Self(number))
        } else {
            Err(Error::invalid(format!(
                "signal {number} does not exist, use 1 to 64"
            )))
        }
    }

    /// Its Linux number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}
