//! Snapshots: the state of a sandbox, kept to start others from.

use crate::{Result, SnapshotId, options::options};
use async_trait::async_trait;
use serde::Serialize;
use std::time::SystemTime;

options! {
    /// How to take a snapshot.
    pub struct SnapshotOptions {
        /// A name for people, unique among the provider's templates; it serves as the snapshot's id as well.
        pub name: String,
    }
}

/// A snapshot that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name; start from it with [`Source::Snapshot`](crate::Source::Snapshot).
    pub id: SnapshotId,
    /// Its name for people.
    pub name: Option<String>,
    /// When it was taken, if known.
    pub created_at: Option<SystemTime>,
    /// Bytes that it takes besides what it shares with others, if known.
    pub bytes: Option<u64>,
    /// Whether what ran in the sandbox goes on in those that start from it; else only its files do.
    pub processes: bool,
}

impl SnapshotInfo {
    /// A snapshot of files of which only the name is known.
    #[must_use]
    pub fn new(id: SnapshotId) -> Self {
        Self {
            id,
            name: None,
            created_at: None,
            bytes: None,
            processes: false,
        }
    }
}

/// Takes snapshots of one sandbox.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Keeps the present state, of a paused sandbox as well. The sandbox runs on as before; its commands may have to stop
    /// for a moment.
    ///
    /// # Errors
    /// `AlreadyExists` for the name; `QuotaExceeded` if there is too much to keep; `StorageFull`; `InvalidState` if commands
    /// run and the provider, one without [`Pause`](crate::Pause), cannot stop them for it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no snapshot behind, or one that is whole and listed.
    async fn snapshot(&self, options: SnapshotOptions) -> Result<SnapshotInfo>;
}
