//! Finds the sandbox that is meant: by its id, else by its name.

use crate::{forward::connect, host::Target, refusal::Refusal};
use futures_util::TryStreamExt;
use sandbox_core::{Error, ErrorKind, ListOptions, PortStream, Result, SandboxId, SandboxProvider};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most names that are remembered.
const MOST: usize = 1024;

/// A provider's sandboxes by id and by name.
#[derive(Debug)]
pub(crate) struct Names {
    provider: Arc<dyn SandboxProvider>,
    /// Ids by names in lower case. A living sandbox keeps its name, so that an id is out of date only if nobody has it.
    known: Mutex<HashMap<String, SandboxId>>,
}

impl Names {
    pub(crate) fn new(provider: Arc<dyn SandboxProvider>) -> Self {
        let known = Mutex::default();
        Self { provider, known }
    }

    /// Connects to the server that is meant.
    pub(crate) async fn connect(&self, target: &Target) -> Result<PortStream, Refusal> {
        let known = self.lock().get(&target.sandbox).cloned();
        let tried = known.unwrap_or_else(|| SandboxId::new(target.sandbox.as_str()));
        match self.reach(&tried, target.port).await {
            Err(error) if error.kind() == ErrorKind::SandboxNotFound => {}
            other => return other.map_err(|error| Refusal::unreached(target, &error)),
        }
        self.lock().remove(&target.sandbox);
        let unreached = |error: &Error| Refusal::unreached(target, error);
        let named = self.named(&target.sandbox).await;
        let id = match named.map_err(|error| unreached(&error))?.as_slice() {
            [] => {
                let gone = Error::new(ErrorKind::SandboxNotFound, "there is no such sandbox");
                return Err(unreached(&gone));
            }
            [id] => id.clone(),
            _ => return Err(Refusal::ambiguous(target)),
        };
        let stream = self.reach(&id, target.port).await;
        if stream.is_ok() {
            let mut known = self.lock();
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(target.sandbox.clone(), id);
        }
        stream.map_err(|error| unreached(&error))
    }

    async fn reach(&self, id: &SandboxId, port: u16) -> Result<PortStream> {
        connect(&*self.provider.sandbox(id), port).await
    }

    /// All sandboxes of this name, which was made lower case by the client.
    async fn named(&self, name: &str) -> Result<Vec<SandboxId>> {
        let all = self.provider.list(ListOptions::new());
        let named = all.try_filter_map(|info| {
            let own = info.name.as_deref();
            let same = own.is_some_and(|own| own.eq_ignore_ascii_case(name));
            std::future::ready(Ok(same.then_some(info.id)))
        });
        named.try_collect().await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, SandboxId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
