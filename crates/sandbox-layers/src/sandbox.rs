//! Forwards a sandbox's calls, and those of its capabilities but files.

use crate::{Arguments, Around, Call, Kind, control::wrap_process};
use async_trait::async_trait;
use sandbox_core::{
    Attach, BoxStream, Capabilities, Command, Existing, FileEvent, Files, Lifecycle, Metrics,
    Network, NetworkEvent, NetworkPolicy, Pause, PortStream, Ports, Position, Previews, Process,
    ProcessId, ProcessInfo, Pty, PtySize, Result, Sandbox, SandboxExt, SandboxId, SandboxInfo,
    SandboxPath, SnapshotInfo, SnapshotOptions, Snapshots, Usage, Watch, WatchOptions,
};
use std::{sync::Arc, time::Duration};

/// A sandbox with something around all its calls.
#[derive(Debug)]
pub(crate) struct WrappedSandbox<A> {
    pub(crate) inner: Arc<dyn Sandbox>,
    pub(crate) around: A,
}

impl<A: Around> WrappedSandbox<A> {
    pub(crate) fn call(&self, kind: Kind, operation: &'static str) -> Call<'_> {
        Call::of(kind, operation, self.inner.id())
    }

    /// Goes around a call of kind [`Kind::Create`].
    async fn create<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        operation: &'static str,
        arguments: Arguments<'_>,
        run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let call = self.call(Kind::Create, operation).with(arguments);
        self.around.call(call, run).await
    }

    /// Goes around a call of kind [`Kind::Control`].
    async fn control<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        operation: &'static str,
        arguments: Arguments<'_>,
        run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let call = self.call(Kind::Control, operation).with(arguments);
        self.around.call(call, run).await
    }

    /// Goes around a call that gives a process, and around that.
    async fn start<F: Future<Output = Result<Process>> + Send>(
        &self,
        operation: &'static str,
        arguments: Arguments<'_>,
        run: impl FnMut() -> F + Send,
    ) -> Result<Process> {
        let call = self.call(Kind::Spawn, operation).with(arguments);
        let process = self.around.spawn(call, run).await?;
        Ok(wrap_process(process, self.inner.id(), &self.around))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Sandbox for WrappedSandbox<A> {
    fn id(&self) -> &SandboxId {
        self.inner.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn info(&self) -> Result<SandboxInfo> {
        self.control("info", Arguments::None, || self.inner.info())
            .await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let run = || self.inner.spawn(command.clone());
        self.start("spawn", Arguments::Spawn(&command, None), run)
            .await
    }

    fn files(&self) -> &dyn Files {
        self
    }

    async fn kill(&self) -> Result<bool> {
        self.control("kill", Arguments::None, || self.inner.kill())
            .await
    }

    fn pty(&self) -> Option<&dyn Pty> {
        self.inner.pty().map(|_| self as &dyn Pty)
    }

    fn attach(&self) -> Option<&dyn Attach> {
        self.inner.attach().map(|_| self as &dyn Attach)
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        self.inner.lifecycle().map(|_| self as &dyn Lifecycle)
    }

    fn pause(&self) -> Option<&dyn Pause> {
        self.inner.pause().map(|_| self as &dyn Pause)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        self.inner.snapshots().map(|_| self as &dyn Snapshots)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        self.inner.ports().map(|_| self as &dyn Ports)
    }

    fn previews(&self) -> Option<&dyn Previews> {
        self.inner.previews().map(|_| self as &dyn Previews)
    }

    fn network(&self) -> Option<&dyn Network> {
        self.inner.network().map(|_| self as &dyn Network)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.inner.watch().map(|_| self as &dyn Watch)
    }

    fn metrics(&self) -> Option<&dyn Metrics> {
        self.inner.metrics().map(|_| self as &dyn Metrics)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Pty for WrappedSandbox<A> {
    async fn spawn(&self, command: Command, size: PtySize) -> Result<Process> {
        let pty = self.inner.require_pty()?;
        let run = || pty.spawn(command.clone(), size);
        let arguments = Arguments::Spawn(&command, Some(size));
        self.start("pty.spawn", arguments, run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Attach for WrappedSandbox<A> {
    async fn attach(&self, id: &ProcessId, from: Position) -> Result<Process> {
        let attach = self.inner.require_attach()?;
        let run = || attach.attach(id, from);
        self.start("attach.attach", Arguments::Attach(id, from), run)
            .await
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let attach = self.inner.require_attach()?;
        let run = || attach.processes();
        self.control("attach.processes", Arguments::None, run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Lifecycle for WrappedSandbox<A> {
    async fn set_lifetime(&self, remaining: Duration) -> Result<()> {
        let lifecycle = self.inner.require_lifecycle()?;
        let run = || lifecycle.set_lifetime(remaining);
        let arguments = Arguments::Lifetime(remaining);
        self.control("lifecycle.set_lifetime", arguments, run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Pause for WrappedSandbox<A> {
    async fn pause(&self) -> Result<()> {
        let pause = self.inner.require_pause()?;
        self.create("pause.pause", Arguments::None, || pause.pause())
            .await
    }

    async fn resume(&self) -> Result<()> {
        let pause = self.inner.require_pause()?;
        self.create("pause.resume", Arguments::None, || pause.resume())
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Snapshots for WrappedSandbox<A> {
    async fn snapshot(&self, options: SnapshotOptions) -> Result<SnapshotInfo> {
        let snapshots = self.inner.require_snapshots()?;
        let run = || snapshots.snapshot(options.clone());
        let arguments = Arguments::Snapshot(&options);
        self.create("snapshots.snapshot", arguments, run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Ports for WrappedSandbox<A> {
    async fn connect(&self, port: u16) -> Result<PortStream> {
        let ports = self.inner.require_ports()?;
        let run = || ports.connect(port);
        self.control("ports.connect", Arguments::Port(port), run)
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Previews for WrappedSandbox<A> {
    async fn url(&self, port: u16) -> Result<String> {
        let previews = self.inner.require_previews()?;
        let run = || previews.url(port);
        self.control("previews.url", Arguments::Port(port), run)
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Network for WrappedSandbox<A> {
    async fn policy(&self) -> Result<NetworkPolicy> {
        let network = self.inner.require_network()?;
        self.control("network.policy", Arguments::None, || network.policy())
            .await
    }

    async fn set_policy(&self, policy: NetworkPolicy, existing: Existing) -> Result<()> {
        let network = self.inner.require_network()?;
        let run = || network.set_policy(policy.clone(), existing);
        let arguments = Arguments::Network(&policy, existing);
        self.control("network.set_policy", arguments, run).await
    }

    async fn events(&self, follow: bool) -> Result<BoxStream<'static, Result<NetworkEvent>>> {
        let network = self.inner.require_network()?;
        let run = || network.events(follow);
        self.control("network.events", Arguments::NetworkEvents(follow), run)
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Watch for WrappedSandbox<A> {
    async fn watch(
        &self,
        path: &SandboxPath,
        options: WatchOptions,
    ) -> Result<BoxStream<'static, Result<FileEvent>>> {
        let watch = self.inner.require_watch()?;
        let call = self.call(Kind::Files, "watch.watch");
        let run = || watch.watch(path, options.clone());
        self.around
            .call(call.with(Arguments::Watch(path, &options)), run)
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Metrics for WrappedSandbox<A> {
    async fn usage(&self) -> Result<Usage> {
        let metrics = self.inner.require_metrics()?;
        self.control("metrics.usage", Arguments::None, || metrics.usage())
            .await
    }
}
