//! `LocalProvider`: makes, finds and ends sandboxes on this machine.

use super::{
    create::{self, Made},
    doctor::{self, Diagnosis},
    enforcement,
    host::Host,
    ranges,
    reap::{self, Pruned},
    record::{self, Record, Records},
    sandbox::{self, LocalSandbox},
    template,
    zygote::Zygote,
};
use crate::{LocalBuilder, sys};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use sandbox_core::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Error, ErrorKind,
    Limits, ListOptions, Ownership, Result, Sandbox, SandboxId, SandboxInfo, SandboxProvider,
    TemplateInfo, Templates,
};
use std::{
    collections::HashMap,
    env,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::io::Interest;

pub(crate) const NAME: &str = "local";

/// Sandboxes on this machine.
///
/// Clones share everything. Owned sandboxes end when the last clone is dropped, and with the program at the latest.
#[derive(Debug, Clone)]
pub struct LocalProvider {
    pub(crate) shared: Arc<Shared>,
}

/// What a provider and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: PathBuf,
    pub(crate) host: Host,
    pub(crate) records: Records,
    pub(crate) zygote: Zygote,
    pub(crate) default_limits: Limits,
    pub(crate) weaken: u32,
    owned: Mutex<HashMap<SandboxId, Made>>,
}

impl LocalProvider {
    /// Opens the default state directory, or the one that `SANDBOX_STATE_DIR` names.
    ///
    /// # Errors
    /// As [`LocalBuilder::build`].
    pub fn new() -> Result<Self> {
        let builder = Self::builder();
        match env::var_os("SANDBOX_STATE_DIR").filter(|path| !path.is_empty()) {
            Some(path) => builder.state_dir(PathBuf::from(path)).build(),
            None => builder.build(),
        }
    }

    /// Sets a provider up.
    #[must_use]
    pub fn builder() -> LocalBuilder {
        LocalBuilder::new()
    }

    pub(crate) fn open(builder: LocalBuilder) -> Result<Self> {
        Self::open_on(Host::read(), builder)
    }

    /// Opens it as if the machine were `host`.
    pub(crate) fn open_on(host: Host, builder: LocalBuilder) -> Result<Self> {
        let LocalBuilder {
            state_dir: state,
            default_limits,
            keep_leftovers,
            weaken,
        } = builder;
        let open = || {
            record::make_private(&state)?;
            let state = state.canonicalize()?;
            record::make_private(&state.join("staging"))?;
            let records = Records::open(&state)?;
            if !keep_leftovers {
                reap::reap_all(&records)?;
            }
            Ok((state, records))
        };
        let (state, records) = open().map_err(|error| {
            record::storage_error(
                error,
                "the state directory cannot be used, name another by SANDBOX_STATE_DIR",
            )
            .with_context("directory", state.display())
        })?;
        let zygote = Zygote::new(ranges::STORAGE_BASE, &state.join("staging"));
        let owned = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared {
                state,
                host,
                records,
                zygote,
                default_limits,
                weaken,
                owned,
            }),
        })
    }

    /// Looks at what this machine offers and lacks for sandboxes, and what would help.
    #[must_use]
    pub fn doctor(&self) -> Diagnosis {
        doctor::examine(&self.shared)
    }

    /// What [`LocalProvider::prune`] would remove now.
    ///
    /// # Errors
    /// `Internal` if the state directory cannot be read.
    pub fn leftovers(&self) -> Result<Pruned> {
        let failed = |error| record::storage_error(error, "the state directory could not be read");
        let (living, sandboxes): (Vec<_>, Vec<_>) = self
            .shared
            .records
            .ids()
            .map_err(failed)?
            .into_iter()
            .partition(|id| self.shared.records.is_alive(id));
        Ok(Pruned {
            sandboxes,
            templates: template::outdated(&self.shared.state, !living.is_empty()),
        })
    }

    /// Removes what sandboxes that are over have left behind, and templates that are out of date.
    ///
    /// # Errors
    /// `Internal` if the state directory cannot be read.
    pub fn prune(&self) -> Result<Pruned> {
        let failed =
            |error| record::storage_error(error, "the state directory could not be cleaned");
        let mut pruned = Pruned {
            sandboxes: reap::reap_all(&self.shared.records).map_err(failed)?,
            ..Pruned::default()
        };
        let in_use = !self.shared.records.ids().map_err(failed)?.is_empty();
        pruned.templates = template::prune(&self.shared.state, in_use);
        Ok(pruned)
    }

    fn handle(&self, id: &SandboxId) -> Arc<LocalSandbox> {
        Arc::new(LocalSandbox::new(Arc::clone(&self.shared), id.clone()))
    }
}

#[async_trait]
impl SandboxProvider for LocalProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        sandbox::capabilities()
    }

    fn enforcement(&self, options: &CreateOptions) -> EnforcementReport {
        let limits = create::limits(&self.shared.default_limits, options);
        enforcement::report(&self.shared.host, &limits, self.shared.weaken)
    }

    async fn create(&self, options: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        let request = create::Request::check(&self.shared, options)?;
        let shared = Arc::clone(&self.shared);
        let id = blocking(move || {
            let made = create::make(&shared, request)?;
            let id = made.id.clone();
            if made.ownership == Ownership::Owned {
                shared
                    .owned
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(id.clone(), made);
            }
            Ok(id)
        })
        .await
        .map_err(|error| error.with_provider(NAME).with_operation("create"))?;
        self.shared.watch(&id);
        Ok(self.handle(&id))
    }

    async fn connect(&self, id: &SandboxId, options: ConnectOptions) -> Result<Arc<dyn Sandbox>> {
        let sandbox = self.handle(id);
        sandbox
            .info()
            .await
            .map_err(|error| error.with_operation("connect"))?;
        if let Some(lifetime) = options.lifetime {
            sandbox.set_remaining(lifetime).await?;
        }
        Ok(sandbox)
    }

    fn sandbox(&self, id: &SandboxId) -> Arc<dyn Sandbox> {
        self.handle(id)
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<SandboxInfo>> {
        let provider = self.clone();
        let wanted = options.metadata.unwrap_or_default();
        stream::once(async move {
            let records = provider.shared.living();
            let fits = move |record: &Record| {
                wanted
                    .iter()
                    .all(|(key, value)| record.metadata.get(key) == Some(value))
            };
            let ids = records
                .into_iter()
                .filter(move |record| fits(record))
                .map(|record| record.id);
            stream::iter(ids).filter_map(move |id| {
                let sandbox = provider.handle(&id);
                async move {
                    match sandbox.info().await {
                        // It ended while we were looking.
                        Err(error) if error.kind() == ErrorKind::SandboxNotFound => None,
                        info => Some(info),
                    }
                }
            })
        })
        .flatten()
        .boxed()
    }

    async fn kill(&self, id: &SandboxId) -> Result<bool> {
        self.handle(id).kill().await
    }

    fn templates(&self) -> Option<&dyn Templates> {
        Some(self)
    }
}

impl Templates for LocalProvider {
    fn list(&self) -> BoxStream<'static, Result<TemplateInfo>> {
        stream::iter(template::all().map(Ok)).boxed()
    }
}

impl Shared {
    /// Records of living sandboxes, oldest first.
    pub(crate) fn living(&self) -> Vec<Record> {
        let ids = self.records.ids().unwrap_or_default();
        let alive = ids.iter().filter(|id| self.records.is_alive(id));
        let mut records: Vec<Record> = alive.filter_map(|id| self.records.read(id)).collect();
        records.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        records
    }

    /// Takes an owned sandbox out of our hands; to drop it is to end it.
    pub(crate) fn disown(&self, id: &SandboxId) -> Option<Made> {
        self.owned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id)
    }

    /// Cleans up after an owned sandbox as soon as it ends by itself.
    fn watch(self: &Arc<Self>, id: &SandboxId) {
        let ended = {
            let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
            owned.get(id).and_then(|made| made.pidfd.try_clone().ok())
        };
        let Some(ended) = ended.and_then(|pidfd| sys::watch(pidfd, Interest::READABLE).ok()) else {
            return;
        };
        let (shared, id) = (Arc::downgrade(self), id.clone());
        tokio::spawn(async move {
            let _ = ended.readable().await;
            let Some(made) = shared.upgrade().and_then(|shared| shared.disown(&id)) else {
                return;
            };
            let _ = tokio::task::spawn_blocking(move || drop(made)).await;
        });
    }
}

/// Runs what blocks for some milliseconds where it disturbs no other task.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "a task of the provider failed").with_source(error))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn leftovers_are_shown_before_they_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let left = state.path().join("sandboxes/sleft");
        let builder = LocalProvider::builder().state_dir(state.path());
        let provider = builder.clone().keep_leftovers().build().unwrap();
        fs::create_dir(&left).unwrap();
        let (living, _lock) = provider.shared.records.add().unwrap();
        let ids = vec![SandboxId::new("sleft")];
        assert_eq!(provider.leftovers().unwrap().sandboxes, ids);
        assert!(left.exists());
        assert_eq!(provider.prune().unwrap().sandboxes, ids);
        assert_eq!(provider.leftovers().unwrap(), Pruned::default());
        assert!(!left.exists() && provider.shared.records.is_alive(&living));
    }

    #[test]
    fn opening_removes_leftovers_unless_told_to_keep_them() {
        let state = tempfile::tempdir().unwrap();
        let left = state.path().join("sandboxes/sleft");
        fs::create_dir_all(&left).unwrap();
        let builder = LocalProvider::builder().state_dir(state.path());
        builder.clone().keep_leftovers().build().unwrap();
        assert!(left.exists());
        builder.build().unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_state_directory_that_cannot_be_used_is_a_failed_check() {
        let builder = LocalProvider::builder().state_dir("/proc/sandbox");
        let diagnosis = builder.doctor();
        assert!(!diagnosis.is_ready());
        let failed = diagnosis
            .checks
            .iter()
            .rfind(|check| check.verdict == doctor::Verdict::Fail)
            .unwrap();
        assert!(failed.fix.is_some());
    }
}
