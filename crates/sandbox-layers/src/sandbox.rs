//! Forwards a sandbox's calls, and those of its capabilities but files.

use crate::{Around, Call, Kind, control::wrap_process};
use async_trait::async_trait;
use sandbox_core::{
    Attach, Capabilities, Command, Files, Lifecycle, Pause, Ports, Position, Process, ProcessId,
    ProcessInfo, Pty, PtySize, Result, Sandbox, SandboxExt, SandboxId, SandboxInfo, SnapshotInfo,
    Snapshots,
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
    async fn create<T: Send>(
        &self,
        operation: &'static str,
        run: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let call = self.call(Kind::Create, operation);
        self.around.call(call, run).await
    }

    /// Goes around a call of kind [`Kind::Control`].
    async fn control<T: Send>(
        &self,
        operation: &'static str,
        run: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let call = self.call(Kind::Control, operation);
        self.around.call(call, run).await
    }

    /// Goes around a call that gives a process, and around that.
    async fn start(
        &self,
        operation: &'static str,
        run: impl Future<Output = Result<Process>> + Send,
    ) -> Result<Process> {
        let call = self.call(Kind::Spawn, operation);
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
        self.control("info", self.inner.info()).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        self.start("spawn", self.inner.spawn(command)).await
    }

    fn files(&self) -> &dyn Files {
        self
    }

    async fn kill(&self) -> Result<bool> {
        self.control("kill", self.inner.kill()).await
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
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Pty for WrappedSandbox<A> {
    async fn spawn(&self, command: Command, size: PtySize) -> Result<Process> {
        let run = self.inner.require_pty()?.spawn(command, size);
        self.start("pty.spawn", run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Attach for WrappedSandbox<A> {
    async fn attach(&self, id: &ProcessId, from: Position) -> Result<Process> {
        let run = self.inner.require_attach()?.attach(id, from);
        self.start("attach.attach", run).await
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let run = self.inner.require_attach()?.processes();
        self.control("attach.processes", run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Lifecycle for WrappedSandbox<A> {
    async fn set_lifetime(&self, remaining: Duration) -> Result<()> {
        let run = self.inner.require_lifecycle()?.set_lifetime(remaining);
        self.control("lifecycle.set_lifetime", run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Pause for WrappedSandbox<A> {
    async fn pause(&self) -> Result<()> {
        let run = self.inner.require_pause()?.pause();
        self.create("pause.pause", run).await
    }

    async fn resume(&self) -> Result<()> {
        let run = self.inner.require_pause()?.resume();
        self.create("pause.resume", run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Snapshots for WrappedSandbox<A> {
    async fn snapshot(&self) -> Result<SnapshotInfo> {
        let run = self.inner.require_snapshots()?.snapshot();
        self.create("snapshots.snapshot", run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Ports for WrappedSandbox<A> {
    async fn preview_url(&self, port: u16) -> Result<String> {
        let run = self.inner.require_ports()?.preview_url(port);
        self.control("ports.preview_url", run).await
    }
}
