//! The contract's calls about a sandbox's network.

use super::{events as events_of, set, stored};
use crate::linux::{
    provider::blocking,
    record::{Records, storage_error},
    sandbox::{Link, LocalSandbox},
};
use async_trait::async_trait;
use sandbox_core::{BoxStream, Existing, Network, NetworkEvent, NetworkPolicy, Result};
use std::sync::Arc;

#[async_trait]
impl Network for LocalSandbox {
    async fn policy(&self) -> Result<NetworkPolicy> {
        let policy = self.with_records(|records, link| {
            let stored = stored(records, &link.id)?;
            Ok(stored.map_or(NetworkPolicy::Off, |stored| stored.policy))
        });
        policy
            .await
            .map_err(|error| error.with_operation("network.policy"))
    }

    async fn set_policy(&self, policy: NetworkPolicy, existing: Existing) -> Result<()> {
        let set = self.with_records(move |records, link| set(records, &link.id, policy, existing));
        set.await
            .map_err(|error| error.with_operation("network.set_policy"))
    }

    async fn events(&self, follow: bool) -> Result<BoxStream<'static, Result<NetworkEvent>>> {
        let events = self.with_records(move |records, link| Ok(records.path(&link.id)));
        let record = events
            .await
            .map_err(|error| error.with_operation("network.events"))?;
        Ok(events_of(&record, follow))
    }
}

impl LocalSandbox {
    /// Looks at what is kept of a sandbox that lives.
    async fn with_records<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Records, &Link) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (shared, link) = (Arc::clone(&self.shared), Arc::clone(&self.link));
        blocking(move || {
            let records = &shared.site.records;
            // One that is nobody's yet is not shown.
            link.record()?;
            let is_alive = records.is_alive(&link.id);
            let is_alive = is_alive
                .map_err(|error| storage_error(error, "the sandbox's record could not be read"))?;
            match is_alive {
                true => look(records, &link),
                false => Err(link.gone()),
            }
        })
        .await
    }
}
