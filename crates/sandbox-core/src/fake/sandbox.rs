//! A sandbox of a fake: its state, and a handle to it.

use super::{Call, call::lock, process::FakeProcess, provider::Shared, tree::Tree};
use crate::{
    Attach, BoxStream, Capabilities, Command, Error, ErrorKind, Existing, Files, Lifecycle,
    Metrics, Network, NetworkEvent, NetworkPolicy, Pause, Ports, Position, Previews, Process,
    ProcessId, ProcessInfo, Pty, PtySize, Result, Sandbox, SandboxId, SandboxInfo, SandboxState,
    SnapshotId, SnapshotInfo, SnapshotOptions, Snapshots, Stdin, Usage,
};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// What is inside of one sandbox.
#[derive(Debug)]
pub(super) struct Inside {
    id: SandboxId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    info: SandboxInfo,
    expires: Option<Instant>,
    /// What it lives for after a pause at its end.
    again: Option<Duration>,
    tree: Tree,
    network: NetworkPolicy,
    processes: Vec<Arc<FakeProcess>>,
}

impl Inside {
    pub(super) fn new(info: SandboxInfo, tree: Tree, network: NetworkPolicy) -> Self {
        let id = info.id.clone();
        let (expires, again, processes) = (None, None, Vec::new());
        let state = State {
            info,
            expires,
            again,
            tree,
            network,
            processes,
        };
        Self {
            id,
            state: Mutex::new(state),
        }
    }

    pub(super) fn id(&self) -> &SandboxId {
        &self.id
    }

    pub(super) fn info(&self) -> SandboxInfo {
        lock(&self.state).info.clone()
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        lock(&self.state).expires
    }

    pub(super) fn tree(&self) -> Tree {
        lock(&self.state).tree.clone()
    }

    /// Looks at the files or changes them.
    pub(super) fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> T {
        work(&mut lock(&self.state).tree)
    }

    pub(super) fn set_state(&self, state: SandboxState) {
        lock(&self.state).info.state = state;
    }

    /// When it ends: by the clock, and as it is shown.
    pub(super) fn set_end(&self, clock: Option<Instant>, shown: Option<SystemTime>) {
        let mut state = lock(&self.state);
        state.expires = clock;
        state.info.expires_at = shown;
    }

    /// Has the end of its lifetime be a pause, after which it lives for that time again.
    pub(super) fn pause_at_end(&self, lifetime: Option<Duration>) {
        lock(&self.state).again = lifetime;
    }

    /// Its lifetime is over. Returns whether it is, too.
    pub(super) fn expire(&self) -> bool {
        let mut state = lock(&self.state);
        if state.again.is_some() {
            (state.expires, state.info.expires_at) = (None, None);
            state.info.state = SandboxState::Paused;
        }
        state.again.is_none()
    }

    /// Lets it go on. Returns for how long, if that begins anew.
    pub(super) fn resume(&self) -> Option<Duration> {
        let mut state = lock(&self.state);
        state.info.state = SandboxState::Running;
        state.again.filter(|_| state.expires.is_none())
    }

    fn network(&self) -> NetworkPolicy {
        lock(&self.state).network.clone()
    }

    fn set_network(&self, policy: NetworkPolicy) {
        lock(&self.state).network = policy;
    }

    /// Ends all that runs in it.
    pub(super) fn end(&self) {
        for process in &lock(&self.state).processes {
            process.abandon();
        }
    }

    fn processes(&self) -> Vec<Arc<FakeProcess>> {
        lock(&self.state).processes.clone()
    }
}

/// A handle.
#[derive(Debug)]
pub(super) struct FakeSandbox {
    pub(super) shared: Arc<Shared>,
    pub(super) id: SandboxId,
}

impl FakeSandbox {
    pub(super) fn new(shared: Arc<Shared>, id: SandboxId) -> Self {
        Self { shared, id }
    }

    /// Records a call, lets its fault happen, and finds the sandbox.
    pub(super) async fn enter(&self, operation: &'static str) -> Result<Arc<Inside>> {
        let call = Call::of(operation, &self.id);
        self.shared.calls.enter(call).await?;
        self.shared.find(&self.id)
    }

    async fn start(&self, operation: &'static str, command: Command) -> Result<Process> {
        let call = Call::of(operation, &self.id).command(&command);
        self.shared.calls.enter(call).await?;
        let inside = self.shared.find(&self.id)?;
        command.validate()?;
        check_length(&command)?;
        if inside.info().state == SandboxState::Paused {
            let message = "the sandbox is paused, resume it first";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        if command.user.is_some() {
            return Err(Error::unsupported("another user"));
        }
        if command.stdin == Stdin::Open && !self.shared.capabilities.stdin {
            return Err(Error::unsupported("open standard input"));
        }
        let script = self.shared.answer(&command)?;
        let mut state = lock(&inside.state);
        let number = u32::try_from(state.processes.len() + 1).unwrap_or(u32::MAX);
        let pty = operation == "pty.spawn";
        let process =
            FakeProcess::start(&self.id, number, command, pty, script, &self.shared.calls);
        state.processes.push(Arc::clone(&process));
        Ok(process.follow(0))
    }
}

/// As Linux would refuse it.
fn check_length(command: &Command) -> Result<()> {
    const MOST: usize = 2 * 1024 * 1024;
    let (crate::Program::Path(program) | crate::Program::Shell(program)) = &command.program;
    let variables = command
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len());
    let arguments = command.args.iter().map(String::len);
    let all = variables.chain(arguments).sum::<usize>() + program.len();
    let cwd = command.cwd.as_ref().map_or(0, String::len);
    if all > MOST || cwd > crate::SandboxPath::MAX {
        let message = "the command is too long, put what is long into a file";
        return Err(Error::invalid(message));
    }
    Ok(())
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities.clone()
    }

    async fn info(&self) -> Result<SandboxInfo> {
        Ok(self.enter("info").await?.info())
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let started = self.start("spawn", command).await;
        started.map_err(|error| error.with_operation("spawn"))
    }

    fn files(&self) -> &dyn Files {
        self
    }

    async fn kill(&self) -> Result<bool> {
        let call = Call::of("kill", &self.id);
        self.shared.calls.enter(call).await?;
        Ok(self.shared.kill(&self.id))
    }

    fn pty(&self) -> Option<&dyn Pty> {
        self.shared.capabilities.pty.then_some(self)
    }

    fn attach(&self) -> Option<&dyn Attach> {
        self.shared.capabilities.attach.then_some(self)
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        self.shared.capabilities.lifecycle.then_some(self)
    }

    fn pause(&self) -> Option<&dyn Pause> {
        self.shared.capabilities.pause.then_some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        self.shared.capabilities.snapshots.then_some(self)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        self.shared.capabilities.ports.then_some(self)
    }

    fn previews(&self) -> Option<&dyn Previews> {
        self.shared.capabilities.previews.then_some(self)
    }

    fn network(&self) -> Option<&dyn Network> {
        self.shared.capabilities.network.then_some(self)
    }

    fn metrics(&self) -> Option<&dyn Metrics> {
        self.shared.capabilities.metrics.then_some(self)
    }
}

#[async_trait]
impl Pty for FakeSandbox {
    async fn spawn(&self, command: Command, _: PtySize) -> Result<Process> {
        let started = self.start("pty.spawn", command).await;
        started.map_err(|error| error.with_operation("pty.spawn"))
    }
}

#[async_trait]
impl Attach for FakeSandbox {
    async fn attach(&self, id: &ProcessId, from: Position) -> Result<Process> {
        let processes = self.enter("attach.attach").await?.processes();
        let missing = || Error::new(ErrorKind::NotFound, "there is no such process");
        let process = processes.iter().find(|process| process.id() == id);
        let process = process.ok_or_else(missing)?;
        Ok(match from {
            Position::Now => process.follow(process.cursor()),
            Position::Cursor(at) => process.follow(at),
        })
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let processes = self.enter("attach.processes").await?.processes();
        Ok(processes.iter().map(|process| process.info()).collect())
    }
}

#[async_trait]
impl Lifecycle for FakeSandbox {
    async fn set_lifetime(&self, remaining: Duration) -> Result<()> {
        let inside = self.enter("lifecycle.set_lifetime").await?;
        let most = self.shared.capabilities.max_lifetime;
        if remaining.is_zero() || most.is_some_and(|most| remaining > most) {
            return Err(Error::invalid(
                "a lifetime must be above zero and within the longest",
            ));
        }
        self.shared.set_lifetime(&inside, remaining);
        Ok(())
    }
}

#[async_trait]
impl Pause for FakeSandbox {
    async fn pause(&self) -> Result<()> {
        self.enter("pause.pause")
            .await?
            .set_state(SandboxState::Paused);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        let inside = self.enter("pause.resume").await?;
        if let Some(lifetime) = inside.resume() {
            self.shared.set_lifetime(&inside, lifetime);
        }
        Ok(())
    }
}

#[async_trait]
impl Snapshots for FakeSandbox {
    async fn snapshot(&self, options: SnapshotOptions) -> Result<SnapshotInfo> {
        let tree = self.enter("snapshots.snapshot").await?.tree();
        let mut sandboxes = lock(&self.shared.sandboxes);
        sandboxes.kept += 1;
        let numbered = format!("snapshot-{}", sandboxes.kept);
        let id = SnapshotId::new(options.name.clone().unwrap_or(numbered));
        if sandboxes.snapshots.contains_key(&id) {
            let message = "a snapshot of this name exists";
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        sandboxes.snapshots.insert(id.clone(), tree);
        let mut info = SnapshotInfo::new(id);
        info.name = options.name;
        info.created_at = Some(self.shared.now());
        Ok(info)
    }
}

/// It keeps its policy, and reaches for nothing.
#[async_trait]
impl Network for FakeSandbox {
    async fn policy(&self) -> Result<NetworkPolicy> {
        Ok(self.enter("network.policy").await?.network())
    }

    async fn set_policy(&self, policy: NetworkPolicy, _: Existing) -> Result<()> {
        self.enter("network.set_policy").await?.set_network(policy);
        Ok(())
    }

    async fn events(&self, _: bool) -> Result<BoxStream<'static, Result<NetworkEvent>>> {
        self.enter("network.events").await?;
        Ok(stream::empty().boxed())
    }
}

#[async_trait]
impl Metrics for FakeSandbox {
    /// How many of its processes have not ended. Nothing else is used.
    async fn usage(&self) -> Result<Usage> {
        let processes = self.enter("metrics.usage").await?.processes();
        let running = processes.iter().filter(|one| one.info().exit.is_none());
        let mut usage = Usage::new();
        usage.processes = Some(running.count() as u64);
        Ok(usage)
    }
}
