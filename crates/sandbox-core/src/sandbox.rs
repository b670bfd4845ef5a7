//! The sandbox itself: what implementors write and what callers use.

use crate::{
    Attach, Capabilities, Command, Error, Files, Lifecycle, Metrics, Network, Output, Pause, Ports,
    Previews, Process, Pty, Result, SandboxId, SandboxInfo, Snapshots, Watch,
};
use async_trait::async_trait;
use std::fmt;

/// A handle to a sandbox. Dropping it does nothing to the sandbox.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync + 'static {
    /// Its name at the provider.
    fn id(&self) -> &SandboxId;

    /// What can be done with it.
    fn capabilities(&self) -> Capabilities;

    /// Asks the provider what it knows. Neither resumes nor extends.
    ///
    /// # Errors
    /// `SandboxNotFound` if it is gone.
    async fn info(&self) -> Result<SandboxInfo>;

    /// Starts `command` and returns a handle to its events.
    ///
    /// # Behavior
    /// - Returns once the process exists, not when it ends.
    /// - Fails only for working directory, user, sandbox or transport; a missing program is exit 127.
    ///
    /// # Errors
    /// `Unsupported` if the command asks for something [`Capabilities`] lacks; `InvalidArgument` for one that no
    /// system can run (see [`Command::validate`]) or that is too long for this one; `NotFound` for the working directory
    /// or the user; `QuotaExceeded` if no process can be made; `InvalidState` if the sandbox is paused; `SandboxNotFound`
    /// if it is gone.
    async fn spawn(&self, command: Command) -> Result<Process>;

    /// Its file tree.
    fn files(&self) -> &dyn Files;

    /// Ends it with all that runs in it; `false` if it was gone already.
    async fn kill(&self) -> Result<bool>;

    /// Commands on a terminal.
    fn pty(&self) -> Option<&dyn Pty> {
        None
    }

    /// Processes that another reader has started.
    fn attach(&self) -> Option<&dyn Attach> {
        None
    }

    /// Its clock.
    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        None
    }

    /// Pause and resume.
    fn pause(&self) -> Option<&dyn Pause> {
        None
    }

    /// Snapshots of it.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Connections to its servers.
    fn ports(&self) -> Option<&dyn Ports> {
        None
    }

    /// Addresses of its servers.
    fn previews(&self) -> Option<&dyn Previews> {
        None
    }

    /// What it may reach.
    fn network(&self) -> Option<&dyn Network> {
        None
    }

    /// Changes of its files.
    fn watch(&self) -> Option<&dyn Watch> {
        None
    }

    /// What it uses.
    fn metrics(&self) -> Option<&dyn Metrics> {
        None
    }
}

macro_rules! require {
    ($($(#[$meta:meta])* $require:ident, $accessor:ident, $ty:ident;)*) => {$(
        $(#[$meta])*
        ///
        /// # Errors
        /// `Unsupported` if the sandbox has no such capability.
        fn $require(&self) -> Result<&dyn $ty> {
            self.$accessor().ok_or_else(|| Error::unsupported(stringify!($accessor)))
        }
    )*};
}

/// What callers use besides. Imported by the prelude.
pub trait SandboxExt: Sandbox {
    /// Runs a command to its end and collects its output.
    fn exec(&self, command: Command) -> impl Future<Output = Result<Output>> + Send {
        async move { self.spawn(command).await?.output().await }
    }

    require! {
        /// Commands on a terminal.
        require_pty, pty, Pty;
        /// Processes that another reader has started.
        require_attach, attach, Attach;
        /// The sandbox's clock.
        require_lifecycle, lifecycle, Lifecycle;
        /// Pause and resume.
        require_pause, pause, Pause;
        /// Snapshots.
        require_snapshots, snapshots, Snapshots;
        /// Connections to servers inside.
        require_ports, ports, Ports;
        /// Addresses of servers inside.
        require_previews, previews, Previews;
        /// What the sandbox may reach.
        require_network, network, Network;
        /// Changes of files.
        require_watch, watch, Watch;
        /// What the sandbox uses.
        require_metrics, metrics, Metrics;
    }
}

impl<S: Sandbox + ?Sized> SandboxExt for S {}
