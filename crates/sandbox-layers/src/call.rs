//! Which call of the contract a layer is around, and what it is called with.

use sandbox_core::{
    Command, ConnectOptions, CreateOptions, Existing, GlobOptions, ListFilesOptions, ListOptions,
    MkdirOptions, NetworkPolicy, PermissionOptions, Position, ProcessId, PtySize, ReadOptions,
    RemoveOptions, RenameOptions, SandboxId, SandboxPath, Signal, SnapshotOptions, StatOptions,
    SymlinkOptions, TemplateId, WatchOptions, WriteOptions,
};
use std::{fmt, time::Duration};

/// The names of all calls.
pub(crate) const OPERATIONS: &[&str] = &[
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
    "watch.watch",
    "metrics.usage",
    "templates.list",
    "templates.remove",
];

/// A call of the contract. Its `Debug` tells what is called, never with what.
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
    /// What it is called with.
    pub arguments: Arguments<'a>,
}

/// Calls that take their time for similar reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// What makes, wakes, stops or copies a sandbox: create, connect, pause, resume, snapshot.
    Create,
    /// What asks or tells something small: info, list, kill, lifetime, ports, network, processes, signals, templates,
    /// metrics.
    Control,
    /// What starts or finds a process: spawn, also on a terminal, and attach. Not the life of the process.
    Spawn,
    /// Everything about files; of a watch its start.
    Files,
    /// Writing to a process, which waits for as long as the program does not read.
    Stdin,
}

/// What a call is made with, as far as layers care: of bytes that go in only their number. It may hold secrets, so that
/// its `Debug` shows nothing.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Arguments<'a> {
    /// Nothing but what the call is about.
    None,
    /// `create`.
    Create(&'a CreateOptions),
    /// `connect`.
    Connect(&'a ConnectOptions),
    /// `list`.
    List(&'a ListOptions),
    /// `spawn`, and `pty.spawn` with the size of the terminal.
    Spawn(&'a Command, Option<PtySize>),
    /// `attach.attach`.
    Attach(&'a ProcessId, Position),
    /// `lifecycle.set_lifetime`.
    Lifetime(Duration),
    /// `snapshots.snapshot`.
    Snapshot(&'a SnapshotOptions),
    /// `templates.remove`.
    Template(&'a TemplateId),
    /// `network.set_policy`.
    Network(&'a NetworkPolicy, Existing),
    /// `network.events`, and whether they are followed.
    NetworkEvents(bool),
    /// `ports.connect` and `previews.url`.
    Port(u16),
    /// `process.write_stdin`, the number of bytes.
    Stdin(usize),
    /// `process.signal`.
    Signal(Signal),
    /// `process.resize`.
    Resize(PtySize),
    /// `files.read`.
    Read(&'a SandboxPath, &'a ReadOptions),
    /// `files.write`, with the number of bytes if it is known.
    Write(&'a SandboxPath, Option<u64>, &'a WriteOptions),
    /// `files.stat`.
    Stat(&'a SandboxPath, &'a StatOptions),
    /// `files.list`.
    ListFiles(&'a SandboxPath, &'a ListFilesOptions),
    /// `files.glob`.
    Glob(&'a SandboxPath, &'a str, &'a GlobOptions),
    /// `files.mkdir`.
    Mkdir(&'a SandboxPath, &'a MkdirOptions),
    /// `files.rename`, from and to.
    Rename(&'a SandboxPath, &'a SandboxPath, &'a RenameOptions),
    /// `files.symlink`, the link and its target.
    Symlink(&'a SandboxPath, &'a SandboxPath, &'a SymlinkOptions),
    /// `files.remove`.
    Remove(&'a SandboxPath, &'a RemoveOptions),
    /// `watch.watch`.
    Watch(&'a SandboxPath, &'a WatchOptions),
    /// `files.set_permissions`.
    SetPermissions(&'a SandboxPath, &'a PermissionOptions),
}

impl fmt::Debug for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl<'a> Call<'a> {
    /// A call of the provider's own.
    pub(crate) fn new(kind: Kind, operation: &'static str) -> Self {
        Self {
            operation,
            kind,
            sandbox: None,
            process: None,
            arguments: Arguments::None,
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

    /// A call with arguments.
    pub(crate) fn with(mut self, arguments: Arguments<'a>) -> Self {
        self.arguments = arguments;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::OPERATIONS;

    #[test]
    fn all_names_are_known() {
        let mut fake = sandbox_core::fake::OPERATIONS.to_vec();
        // A fake tells of no changes.
        fake.push("watch.watch");
        let mut known = OPERATIONS.to_vec();
        fake.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, fake);
    }
}
