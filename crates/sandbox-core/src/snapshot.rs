//! Snapshots: the state of a sandbox, kept to start others from.

use crate::{Result, SnapshotId};
use async_trait::async_trait;
use std::time::SystemTime;

/// A snapshot that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name; start from it with [`Source::Snapshot`](crate::Source::Snapshot).
    pub id: SnapshotId,
    /// When it was taken, if known.
    pub created_at: Option<SystemTime>,
}

impl SnapshotInfo {
    /// A snapshot of which only the name is known.
    #[must_use]
    pub fn new(id: SnapshotId) -> Self {
        Self {
            id,
            created_at: None,
        }
    }
}

/// Takes snapshots of one sandbox.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Keeps the present state. The sandbox runs on.
    async fn snapshot(&self) -> Result<SnapshotInfo>;
}
