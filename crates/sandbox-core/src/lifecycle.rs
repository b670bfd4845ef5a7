//! A sandbox's clock, and its rest.

use crate::Result;
use async_trait::async_trait;
use std::time::Duration;

/// The clock of a sandbox.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// Lets the sandbox live for `remaining` from now on, longer or shorter than before.
    ///
    /// # Errors
    /// `InvalidArgument` if it is zero or beyond [`Capabilities::max_lifetime`](crate::Capabilities::max_lifetime).
    async fn set_lifetime(&self, remaining: Duration) -> Result<()>;
}

/// Rest without loss.
///
/// # Behavior
/// - A paused sandbox still answers: `info` says [`Paused`](crate::SandboxState::Paused), `kill` ends it, processes can be
///   listed, attached to and killed. Files can be looked at and changed where the provider need not wake it for that, and
///   else are `InvalidState`.
/// - To start a command is `InvalidState`. Other signals than KILL, and standard input, wait for the end of the pause.
/// - The time of a pause does not count for [`Command::timeout`](crate::Command::timeout). It does count for the lifetime,
///   unless the pause is what [`Expiry::Pause`](crate::Expiry::Pause) asked for. Whoever resumes a sandbox after that gives
///   it what was left of its lifetime, or if that was over its lifetime anew.
#[async_trait]
pub trait Pause: Send + Sync {
    /// Stops everything in the sandbox; it keeps its files, and its memory where the provider can. One that is paused
    /// stays so.
    ///
    /// # Errors
    /// `InvalidState` if somebody resumes it meanwhile; `Internal` if a process cannot be stopped in time: then all go on.
    ///
    /// # Cancel safety
    /// It may be paused or not.
    async fn pause(&self) -> Result<()>;

    /// Lets it go on. One that is not paused goes on as it does.
    async fn resume(&self) -> Result<()>;
}
