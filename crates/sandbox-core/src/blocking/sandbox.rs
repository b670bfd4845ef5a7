//! The sandbox itself, without a runtime.

use super::{BlockingFiles, BlockingPortStream, BlockingProcess, runtime::Shared};
use crate::{
    Capabilities, Command, Existing, NetworkPolicy, Output, Position, ProcessId, ProcessInfo,
    PtySize, Result, Sandbox, SandboxExt, SandboxId, SandboxInfo, SnapshotInfo, SnapshotOptions,
};
use std::{sync::Arc, time::Duration};

/// A [`Sandbox`] whose calls return when they are done. See the [module](super).
///
/// Calls of a capability that it lacks are `Unsupported`, and all that wait are `InvalidState` inside of an async runtime.
#[derive(Debug, Clone)]
pub struct BlockingSandbox {
    inner: Arc<dyn Sandbox>,
    runtime: Shared,
}

impl BlockingSandbox {
    pub(super) fn new(inner: Arc<dyn Sandbox>, runtime: Shared) -> Self {
        Self { inner, runtime }
    }

    /// Its name at the provider.
    #[must_use]
    pub fn id(&self) -> &SandboxId {
        self.inner.id()
    }

    /// What can be done with it.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    /// Its file tree.
    #[must_use]
    pub fn files(&self) -> BlockingFiles {
        BlockingFiles::new(Arc::clone(&self.inner), self.runtime.clone())
    }

    /// As [`Sandbox::info`].
    ///
    /// # Errors
    /// The same.
    pub fn info(&self) -> Result<SandboxInfo> {
        self.runtime.run(self.inner.info())
    }

    /// As [`SandboxExt::exec`].
    ///
    /// # Errors
    /// The same.
    pub fn exec(&self, command: Command) -> Result<Output> {
        self.runtime.run(self.inner.exec(command))
    }

    /// As [`Sandbox::spawn`]. Iterate over what it gives for the events.
    ///
    /// # Errors
    /// The same.
    pub fn spawn(&self, command: Command) -> Result<BlockingProcess> {
        let process = self.runtime.run(self.inner.spawn(command))?;
        Ok(BlockingProcess::new(process, self.runtime.clone()))
    }

    /// As [`Sandbox::kill`].
    ///
    /// # Errors
    /// The same.
    pub fn kill(&self) -> Result<bool> {
        self.runtime.run(self.inner.kill())
    }

    /// As [`Pty::spawn`](crate::Pty::spawn).
    ///
    /// # Errors
    /// The same.
    pub fn spawn_pty(&self, command: Command, size: PtySize) -> Result<BlockingProcess> {
        let spawn = async { self.inner.require_pty()?.spawn(command, size).await };
        let process = self.runtime.run(spawn)?;
        Ok(BlockingProcess::new(process, self.runtime.clone()))
    }

    /// As [`Attach::attach`](crate::Attach::attach).
    ///
    /// # Errors
    /// The same.
    pub fn attach(&self, id: &ProcessId, from: Position) -> Result<BlockingProcess> {
        let attach = async { self.inner.require_attach()?.attach(id, from).await };
        let process = self.runtime.run(attach)?;
        Ok(BlockingProcess::new(process, self.runtime.clone()))
    }

    /// As [`Attach::processes`](crate::Attach::processes).
    ///
    /// # Errors
    /// The same.
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        self.runtime
            .run(async { self.inner.require_attach()?.processes().await })
    }

    /// As [`Lifecycle::set_lifetime`](crate::Lifecycle::set_lifetime).
    ///
    /// # Errors
    /// The same.
    pub fn set_lifetime(&self, remaining: Duration) -> Result<()> {
        let set = async {
            let lifecycle = self.inner.require_lifecycle()?;
            lifecycle.set_lifetime(remaining).await
        };
        self.runtime.run(set)
    }

    /// As [`Pause::pause`](crate::Pause::pause).
    ///
    /// # Errors
    /// The same.
    pub fn pause(&self) -> Result<()> {
        self.runtime
            .run(async { self.inner.require_pause()?.pause().await })
    }

    /// As [`Pause::resume`](crate::Pause::resume).
    ///
    /// # Errors
    /// The same.
    pub fn resume(&self) -> Result<()> {
        self.runtime
            .run(async { self.inner.require_pause()?.resume().await })
    }

    /// As [`Snapshots::snapshot`](crate::Snapshots::snapshot).
    ///
    /// # Errors
    /// The same.
    pub fn snapshot(&self, options: SnapshotOptions) -> Result<SnapshotInfo> {
        self.runtime
            .run(async { self.inner.require_snapshots()?.snapshot(options).await })
    }

    /// As [`Ports::connect`](crate::Ports::connect).
    ///
    /// # Errors
    /// The same.
    pub fn connect_port(&self, port: u16) -> Result<BlockingPortStream> {
        let connect = async { self.inner.require_ports()?.connect(port).await };
        let stream = self.runtime.run(connect)?;
        Ok(BlockingPortStream::new(stream, self.runtime.clone()))
    }

    /// As [`Previews::url`](crate::Previews::url).
    ///
    /// # Errors
    /// The same.
    pub fn preview_url(&self, port: u16) -> Result<String> {
        self.runtime
            .run(async { self.inner.require_previews()?.url(port).await })
    }

    /// As [`Network::policy`](crate::Network::policy).
    ///
    /// # Errors
    /// The same.
    pub fn network_policy(&self) -> Result<NetworkPolicy> {
        self.runtime
            .run(async { self.inner.require_network()?.policy().await })
    }

    /// As [`Network::set_policy`](crate::Network::set_policy).
    ///
    /// # Errors
    /// The same.
    pub fn set_network_policy(&self, policy: NetworkPolicy, existing: Existing) -> Result<()> {
        let set = async {
            let network = self.inner.require_network()?;
            network.set_policy(policy, existing).await
        };
        self.runtime.run(set)
    }
}
