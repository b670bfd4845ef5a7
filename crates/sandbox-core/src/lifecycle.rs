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
#[async_trait]
pub trait Pause: Send + Sync {
    /// Stops everything in the sandbox; it keeps its files, and its memory where the provider can.
    async fn pause(&self) -> Result<()>;

    /// Lets it go on.
    async fn resume(&self) -> Result<()>;
}
