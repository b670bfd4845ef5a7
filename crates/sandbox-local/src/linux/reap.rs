//! Removes what a sandbox has left behind: processes, cgroups, files, its range of uids.

use super::{
    disk, ranges,
    record::{Locked, Records, STORE},
    remove::remove_tree,
    snapshot, store,
};
use sandbox_core::SandboxId;
use serde::Serialize;
use std::io;

/// What a cleaning has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Sandboxes that were over and had left something.
    pub sandboxes: Vec<SandboxId>,
    /// Templates that were out of date.
    pub templates: Vec<String>,
}

/// Removes all that exists because of the record, and the record last.
pub(crate) fn reap(locked: &Locked) -> io::Result<()> {
    let record = match locked.read() {
        // Half-written when the machine stopped: nothing but files can be left of it.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        record => record?,
    };
    match &record {
        Some(record) => {
            record.groups.remove(&locked.name())?;
            if let Some(range) = record.range {
                ranges::give_back(range, &locked.path);
            }
        }
        // Its maker came no further than to take a range.
        None => ranges::give_back_all(&locked.path),
    }
    // The record goes last: what it names could not be found without it.
    let store = locked.path.join(STORE);
    store::detach(&store)?;
    remove_tree(&store)?;
    disk::remove(&locked.state(), &locked.name())?;
    remove_tree(&locked.path)?;
    if let Some(record) = record {
        snapshot::let_go(&Records::around(locked), &record);
    }
    Ok(())
}

/// Removes what sandboxes that are over have left; those that live or are being made are not touched. What cannot be
/// removed is said and stays.
pub(crate) fn reap_all(records: &Records) -> io::Result<Vec<SandboxId>> {
    let mut reaped = Vec::new();
    for id in records.ids()? {
        let removed = match records.try_lock(&id) {
            Ok(Some(locked)) => reap(&locked).map(|()| true),
            other => other.map(|_| false),
        };
        match removed {
            Ok(true) => reaped.push(id),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%id, %error, "what this sandbox left behind could not be removed");
            }
        }
    }
    Ok(reaped)
}
