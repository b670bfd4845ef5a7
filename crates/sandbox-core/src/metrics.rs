//! What a sandbox uses.

use crate::Result;
use async_trait::async_trait;
use std::time::Duration;

/// What a sandbox uses, as far as the provider can tell. What grows is counted from the sandbox's creation on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time that its processes have used so far, on all processors together, those included that have ended.
    pub cpu_time: Option<Duration>,
    /// Memory in bytes now, as [`Limits::memory`](crate::Limits::memory) counts it.
    pub memory: Option<u64>,
    /// The most memory in bytes so far.
    pub memory_peak: Option<u64>,
    /// Processes of its commands now. Threads are not counted.
    pub processes: Option<u64>,
    /// Bytes on disk of files that differ from the template, now.
    pub disk: Option<u64>,
    /// How many files differ from the template now, directories included.
    pub inodes: Option<u64>,
    /// Bytes read from disks so far. What is in memory already is not read.
    pub read: Option<u64>,
    /// Bytes written to disks so far.
    pub written: Option<u64>,
    /// Bytes that have left by connections since somebody carries them, without those that were refused.
    pub sent: Option<u64>,
    /// Bytes that have come in by connections.
    pub received: Option<u64>,
    /// Connections that are open now.
    pub connections: Option<u64>,
    /// Connections that were refused so far.
    pub refused: Option<u64>,
}

impl Usage {
    /// Nothing is known. Set it field by field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Measures a sandbox.
#[async_trait]
pub trait Metrics: Send + Sync {
    /// What the sandbox uses at this moment, roughly: the numbers are not of one instant. Looking is no traffic, and it
    /// works while the sandbox is paused.
    async fn usage(&self) -> Result<Usage>;
}
