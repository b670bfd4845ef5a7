//! What was called, and what goes wrong on purpose.

use crate::{Command, Error, ErrorKind, Result, SandboxId, SandboxPath};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// The calls that a fake records and that a [`Fault`] can hit, by the names that errors and layers use.
pub const OPERATIONS: &[&str] = &[
    "create",
    "connect",
    "list",
    "kill",
    "info",
    "spawn",
    "pty.spawn",
    "files.read",
    "files.write",
    "files.stat",
    "files.list",
    "files.glob",
    "files.mkdir",
    "files.rename",
    "files.symlink",
    "files.remove",
    "files.set_permissions",
    "attach.attach",
    "attach.processes",
    "process.write_stdin",
    "process.close_stdin",
    "process.signal",
    "process.resize",
    "lifecycle.set_lifetime",
    "pause.pause",
    "pause.resume",
    "snapshots.snapshot",
    "ports.connect",
    "previews.url",
    "network.policy",
    "network.set_policy",
    "network.events",
    "metrics.usage",
    "templates.list",
    "templates.remove",
];

/// A call that a fake has got.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Which one, of [`OPERATIONS`].
    pub operation: &'static str,
    /// Of which sandbox, if of one.
    pub sandbox: Option<SandboxId>,
    /// The command, of `spawn` and `pty.spawn`.
    pub command: Option<Command>,
    /// The path, of `files`.
    pub path: Option<SandboxPath>,
}

impl Call {
    pub(super) fn new(operation: &'static str) -> Self {
        Self {
            operation,
            sandbox: None,
            command: None,
            path: None,
        }
    }

    pub(super) fn of(operation: &'static str, sandbox: &SandboxId) -> Self {
        let sandbox = Some(sandbox.clone());
        Self {
            sandbox,
            ..Self::new(operation)
        }
    }

    pub(super) fn path(mut self, path: &SandboxPath) -> Self {
        self.path = Some(path.clone());
        self
    }

    pub(super) fn command(mut self, command: &Command) -> Self {
        self.command = Some(command.clone());
        self
    }
}

/// Something that a test lets happen when it likes. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A gate that is shut.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets everybody pass from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        let mut open = self.0.subscribe();
        // The sender is ours, so that waiting cannot fail.
        let _open = open.wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// It fails.
    Error(ErrorKind, String),
    /// It takes this much longer.
    Delay(Duration),
    /// It waits for the gate; for one that is never opened it hangs.
    Gate(Gate),
}

/// The record of calls, and the faults that wait for theirs.
#[derive(Debug, Default)]
pub(super) struct Calls {
    made: Mutex<Vec<Call>>,
    faults: Mutex<VecDeque<(&'static str, Fault)>>,
}

impl Calls {
    pub(super) fn made(&self) -> Vec<Call> {
        lock(&self.made).clone()
    }

    pub(super) fn add_fault(&self, operation: &'static str, fault: Fault) {
        lock(&self.faults).push_back((operation, fault));
    }

    pub(super) fn faults_left(&self) -> usize {
        lock(&self.faults).len()
    }

    /// Records a call, and lets happen what was planned for it.
    pub(super) async fn enter(&self, call: Call) -> Result<()> {
        let operation = call.operation;
        lock(&self.made).push(call);
        let fault = {
            let mut faults = lock(&self.faults);
            let at = faults.iter().position(|(name, _)| *name == operation);
            at.and_then(|at| faults.remove(at))
        };
        match fault {
            Some((_, Fault::Error(kind, message))) => {
                Err(Error::new(kind, message).with_operation(operation))
            }
            Some((_, Fault::Delay(time))) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Some((_, Fault::Gate(gate))) => {
                gate.pass().await;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What a panic of another test thread left behind is as good as before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
