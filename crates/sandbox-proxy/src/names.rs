//! Finds the sandbox that is meant: by its id, else by its name.

use crate::{forward::connect, host::Target, refusal::Refusal};
use futures_util::TryStreamExt;
use sandbox_core::{
    Error, ErrorKind, ListOptions, PortStream, Result, Sandbox, SandboxId, SandboxProvider,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most sandboxes that are remembered.
const MOST: usize = 1024;

/// A provider's sandboxes by id and by name.
#[derive(Debug)]
pub(crate) struct Names {
    provider: Arc<dyn SandboxProvider>,
    /// Handles by what was asked for. A living sandbox keeps its name, so that one is out of date only if it has ended.
    known: Mutex<HashMap<String, Arc<dyn Sandbox>>>,
}

impl Names {
    pub(crate) fn new(provider: Arc<dyn SandboxProvider>) -> Self {
        let known = Mutex::default();
        Self { provider, known }
    }

    /// Connects to the server that is meant.
    pub(crate) async fn connect(&self, target: &Target) -> Result<PortStream, Refusal> {
        let unreached = |error: &Error| Refusal::unreached(target, error);
        let known = self.lock().get(&target.sandbox).cloned();
        let by_id = || self.provider.sandbox(&SandboxId::new(&*target.sandbox));
        match self.reach(known.unwrap_or_else(by_id), target).await {
            Err(error) if error.kind() == ErrorKind::SandboxNotFound => {}
            other => return other.map_err(|error| unreached(&error)),
        }
        self.lock().remove(&target.sandbox);
        let named = self.named(&target.sandbox).await;
        let sandbox = match named.map_err(|error| unreached(&error))?.as_slice() {
            [] => {
                let gone = Error::new(ErrorKind::SandboxNotFound, "there is no such sandbox");
                return Err(unreached(&gone));
            }
            [id] => self.provider.sandbox(id),
            _ => return Err(Refusal::ambiguous(target)),
        };
        let stream = self.reach(sandbox, target).await;
        stream.map_err(|error| unreached(&error))
    }

    /// Connects, and remembers the sandbox if that works.
    async fn reach(&self, sandbox: Arc<dyn Sandbox>, target: &Target) -> Result<PortStream> {
        let stream = connect(&*sandbox, target.port).await?;
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(target.sandbox.clone(), sandbox);
        Ok(stream)
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

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<dyn Sandbox>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
