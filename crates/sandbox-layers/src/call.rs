//! Which call of the contract a layer is around.

use sandbox_core::{ProcessId, SandboxId};

/// A call of the contract. It tells what is called, not with what.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Call<'a> {
    /// Its name, as [`Error::operation`](sandbox_core::Error::operation) has it.
    pub operation: &'static str,
    /// What kind of call it is.
    pub kind: Kind,
    /// The sandbox, unless there is none yet or it is about all.
    pub sandbox: Option<&'a SandboxId>,
    /// The process, of a call to its controls.
    pub process: Option<&'a ProcessId>,
}

/// Calls that take their time for similar reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// What makes, wakes, stops or copies a sandbox: create, connect, pause, resume, snapshot.
    Create,
    /// What asks or tells something small: info, list, kill, lifetime, ports, processes, signals, templates.
    Control,
    /// What starts or finds a process: spawn, also on a terminal, and attach. Not the life of the process.
    Spawn,
    /// Everything about files.
    Files,
    /// Writing to a process, which waits for as long as the program does not read.
    Stdin,
}

impl<'a> Call<'a> {
    /// A call of the provider's own.
    pub(crate) fn new(kind: Kind, operation: &'static str) -> Self {
        Self {
            operation,
            kind,
            sandbox: None,
            process: None,
        }
    }

    /// A call about a sandbox.
    pub(crate) fn of(kind: Kind, operation: &'static str, sandbox: &'a SandboxId) -> Self {
        let sandbox = Some(sandbox);
        Self {
            sandbox,
            ..Self::new(kind, operation)
        }
    }

    /// A call about a process of its sandbox.
    pub(crate) fn process(mut self, process: &'a ProcessId) -> Self {
        self.process = Some(process);
        self
    }
}
