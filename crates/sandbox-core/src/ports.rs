//! Ports on which programs in a sandbox listen.

use crate::Result;
use async_trait::async_trait;

/// Reaches ports of a sandbox from outside.
#[async_trait]
pub trait Ports: Send + Sync {
    /// The preview URL of `port`: an address at which a browser reaches the program that listens there.
    async fn preview_url(&self, port: u16) -> Result<String>;
}
