//! `LocalProvider`: makes, finds and ends sandboxes on this machine.

use super::{
    create::{self, SetExpiry},
    doctor::{self, Diagnosis},
    enforcement,
    host::Host,
    made::{self, Made, Unclaimed},
    network::{self, Networks, Serving},
    pool::{Pool, PoolStatus},
    reap::{self, Pruned},
    record::{self, Record},
    sandbox::{self, LocalSandbox},
    site::Site,
    snapshot,
    template::{self, Template},
};
use crate::{LocalBuilder, sys};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use sandbox_agent::protocol::agent::Request;
use sandbox_core::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Error, ErrorKind,
    Limits, ListOptions, NetworkPolicy, Ownership, Result, Sandbox, SandboxId, SandboxInfo,
    SandboxProvider, Source, TemplateId, TemplateInfo, Templates,
};
use std::{
    collections::HashMap,
    env,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::io::Interest;

pub(crate) const NAME: &str = "local";

/// How many sandboxes are asked at a time for a list, and how long each may take to answer.
const INFOS_AT_ONCE: usize = 16;
const INFO_WITHIN: Duration = Duration::from_secs(5);

/// Sandboxes on this machine.
///
/// Clones share everything. Owned sandboxes end when the last clone or handle of theirs is dropped, and with the program at
/// the latest.
///
/// # Behavior
/// - That last drop waits until all owned sandboxes have ended at once and nothing is left of them: some milliseconds for
///   each, and at worst ten seconds for one that the kernel does not end. Where no task may wait for that, `kill` them first,
///   or drop in `spawn_blocking`.
/// - A list goes on after a sandbox that does not answer in five seconds, or whose record cannot be read; for that one it
///   yields an error with the context `id`.
#[derive(Debug, Clone)]
pub struct LocalProvider {
    pub(crate) shared: Arc<Shared>,
}

/// What a provider and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) site: Arc<Site>,
    pub(crate) default_limits: Limits,
    owned: Mutex<HashMap<SandboxId, Made>>,
    pub(crate) pool: Option<Pool>,
    /// Folders of the host that sandboxes may share.
    pub(crate) host_folders: Vec<PathBuf>,
    pub(crate) networks: Networks,
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
            pool,
            host_folders,
            terms,
            relay_program,
            weaken,
        } = builder;
        network::check(&terms)?;
        let processes = default_limits.processes;
        let site = Site::open(host, &state, keep_leftovers, weaken, processes)?;
        let site = Arc::new(site);
        if let Some(program) = &relay_program {
            network::detached::revive(&site.state, program);
        }
        let pool = (pool > 0).then(|| Pool::start(&site, pool)).transpose()?;
        Ok(Self {
            shared: Arc::new(Shared {
                site,
                default_limits,
                owned: Mutex::default(),
                pool,
                host_folders,
                networks: Networks::new(terms, relay_program),
            }),
        })
    }

    /// Looks at what this machine offers and lacks for sandboxes, and what would help.
    #[must_use]
    pub fn doctor(&self) -> Diagnosis {
        doctor::examine(&self.shared)
    }

    /// How the pool does that [`LocalBuilder::pool`] has asked for; all zero if there is none.
    #[must_use]
    pub fn pool_status(&self) -> PoolStatus {
        let pool = self.shared.pool.as_ref();
        pool.map_or_else(PoolStatus::default, Pool::status)
    }

    /// What [`LocalProvider::prune`] would remove now.
    ///
    /// # Errors
    /// `Internal` if the state directory cannot be read.
    pub fn leftovers(&self) -> Result<Pruned> {
        let failed = |error| record::storage_error(error, "the state directory could not be read");
        let records = &self.shared.site.records;
        let mut sandboxes = records.ids().map_err(failed)?;
        // What cannot be looked at is not removed either.
        sandboxes.retain(|id| records.is_alive(id).is_ok_and(|is_alive| !is_alive));
        let (state, used) = (&self.shared.site.state, self.shared.site.templates_in_use());
        let mut templates = template::outdated(state, &used);
        templates.extend(snapshot::unneeded(state, &used));
        Ok(Pruned {
            sandboxes,
            templates,
        })
    }

    /// Removes what sandboxes that are over have left behind, and templates that are out of date.
    ///
    /// # Errors
    /// `Internal` if the state directory cannot be read.
    pub fn prune(&self) -> Result<Pruned> {
        let failed =
            |error| record::storage_error(error, "the state directory could not be cleaned");
        let records = &self.shared.site.records;
        if let Some(pool) = &self.shared.pool {
            pool.discard_unfit(&self.shared.site);
        }
        let site = &self.shared.site;
        let (state, used) = (&site.state, || site.templates_in_use());
        let sandboxes = reap::reap_all(records).map_err(failed)?;
        let mut templates = snapshot::collect(state, &used);
        templates.extend(template::prune(state, &used));
        snapshot::tidy_disk(records);
        Ok(Pruned {
            sandboxes,
            templates,
        })
    }

    /// Hands a new sandbox to the caller of `create`, who is there to take it; dropping this future ends the sandbox.
    async fn claim(
        &self,
        new: Unclaimed,
        expiry: Option<SetExpiry>,
        captured: bool,
    ) -> Result<Arc<dyn Sandbox>> {
        let lost = || Error::new(ErrorKind::Internal, "the new sandbox was lost");
        let made = new.made().ok_or_else(lost)?;
        let (sandbox, ownership) = (self.handle(&made.id), made.ownership);
        if let Some(expiry) = expiry {
            let request = expiry.request();
            sandbox.link.tell(&request).await.map_err(made::mute)?;
        }
        if ownership == Ownership::Detached {
            let agreed = sandbox.link.tell(&Request::Detach {});
            agreed.await.map_err(made::mute)?;
        }
        let serving = match captured {
            true => self.serve(made).await?,
            false => None,
        };
        // Nothing is awaited any more: either the caller gets it now, or it has ended.
        let mut made = new.claim().ok_or_else(lost)?;
        made.serving = serving;
        match ownership {
            Ownership::Detached => made.let_go(),
            _ => self.shared.own(made),
        }
        Ok(sandbox)
    }

    /// Has the connections of a new sandbox carried, as long as what is returned lives or by somebody else.
    async fn serve(&self, made: &Made) -> Result<Option<Serving>> {
        let (id, ownership) = (made.id.clone(), made.ownership);
        let shared = Arc::clone(&self.shared);
        let records = move || shared.networks.serve(&shared.site.records, &id, ownership);
        blocking(records).await
    }

    /// What a request for a fork starts from.
    async fn fork_of(&self, request: &create::Request) -> Result<Option<Template>> {
        let Some(id) = &request.fork else {
            return Ok(None);
        };
        let taken = self.handle(id).keep(None, false).await?;
        Ok(Some(taken.template))
    }

    fn handle(&self, id: &SandboxId) -> Arc<LocalSandbox> {
        let shared = Arc::clone(&self.shared);
        Arc::new(LocalSandbox::new(shared, id.clone(), None))
    }

    /// What a listed sandbox says of itself; `None` if it has ended while we were looking.
    async fn listed(self, id: SandboxId, record: Result<Record>) -> Option<Result<SandboxInfo>> {
        let info = async {
            let shared = Arc::clone(&self.shared);
            let sandbox = LocalSandbox::new(shared, id.clone(), Some(record?));
            let silent = || Error::new(ErrorKind::Unavailable, "the sandbox does not answer");
            let info = tokio::time::timeout(INFO_WITHIN, sandbox.info());
            info.await.unwrap_or_else(|_| Err(silent()))
        };
        match info.await {
            Err(error) if error.kind() == ErrorKind::SandboxNotFound => None,
            info => Some(info.map_err(|error| {
                let error = error.with_provider(NAME).with_operation("list");
                error.with_context("id", id)
            })),
        }
    }
}

#[async_trait]
impl SandboxProvider for LocalProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        sandbox::capabilities(&self.shared.site.host)
    }

    fn enforcement(&self, options: &CreateOptions) -> EnforcementReport {
        let limits = create::limits(&self.shared.default_limits, options);
        let site = &self.shared.site;
        let mut report = enforcement::report(&site.host, &limits, site.weaken);
        if !matches!(options.network, None | Some(NetworkPolicy::Off)) {
            report = enforcement::with_network(report);
        }
        match &options.source {
            Some(Source::Snapshot(_)) => report
                .walls
                .push(enforcement::files_alone(&site.host, None)),
            Some(Source::Fork(id)) => {
                let record = site.records.read(id).ok().flatten();
                let store = record.map(|record| record.store);
                report
                    .walls
                    .push(enforcement::files_alone(&site.host, store));
            }
            _ => {}
        }
        report
    }

    async fn create(&self, options: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        let request = create::Request::check(&self.shared, options)?;
        let (shared, expiry) = (Arc::clone(&self.shared), request.expiry);
        let captured = request.captured;
        let create = async {
            let forked = self.fork_of(&request).await?;
            let make = move || shared.make(request, forked).map(Unclaimed::new);
            self.claim(blocking(make).await?, expiry, captured).await
        };
        create
            .await
            .map_err(|error| error.with_provider(NAME).with_operation("create"))
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
        let fits = move |record: &Record| {
            wanted
                .iter()
                .all(|(key, value)| record.metadata.get(key) == Some(value))
        };
        stream::once(async move {
            let shared = Arc::clone(&provider.shared);
            let living = blocking(move || shared.living()).await?;
            let listed = living
                .into_iter()
                .filter(move |(_, record)| record.as_ref().map_or(true, &fits))
                .map(move |(id, record)| provider.clone().listed(id, record));
            Ok(stream::iter(listed)
                .buffered(INFOS_AT_ONCE)
                .filter_map(|listed| async { listed }))
        })
        .try_flatten()
        .boxed()
    }

    async fn kill(&self, id: &SandboxId) -> Result<bool> {
        self.handle(id).kill().await
    }

    fn templates(&self) -> Option<&dyn Templates> {
        Some(self)
    }
}

#[async_trait]
impl Templates for LocalProvider {
    fn list(&self) -> BoxStream<'static, Result<TemplateInfo>> {
        let shared = Arc::clone(&self.shared);
        let all = async move {
            let all = blocking(move || template::all(&shared.site.state)).await?;
            Ok(stream::iter(all.into_iter().map(Ok)))
        };
        stream::once(all).try_flatten().boxed()
    }

    async fn remove(&self, id: &TemplateId) -> Result<bool> {
        if template::is_own(id) {
            let message = format!("removing the provider's own template `{id}`");
            let error = Error::unsupported(message).with_provider(NAME);
            return Err(error.with_operation("templates.remove"));
        }
        match self.remove_template(id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            removed => removed.map(|_| true),
        }
    }
}

impl Shared {
    /// Living sandboxes with their records, oldest first. Those whose record cannot be read come last.
    pub(crate) fn living(&self) -> Result<Vec<(SandboxId, Result<Record>)>> {
        let failed = |error| record::storage_error(error, "the sandbox's record could not be read");
        let ids = self.site.records.ids().map_err(|error| {
            record::storage_error(error, "the state directory could not be read")
        })?;
        let mut living = Vec::new();
        for id in ids {
            let record = match self.site.records.is_alive(&id) {
                Ok(false) => continue,
                Ok(true) => self.site.records.read(&id),
                Err(error) => Err(error),
            };
            match record.map_err(failed).transpose() {
                Some(Ok(record)) if record.pooled => {}
                Some(record) => living.push((id, record)),
                None => {}
            }
        }
        living.sort_by_key(|(id, record)| {
            let created = record.as_ref().map_or(u64::MAX, |record| record.created_ms);
            (created, id.clone())
        });
        Ok(living)
    }

    /// Takes a sandbox that waits, or makes one.
    fn make(&self, request: create::Request, forked: Option<Template>) -> Result<Made> {
        if let Some(template) = forked {
            return create::make_from(&self.site, request, template);
        }
        // What waits has no volumes, and cannot get any.
        let pool = self.pool.as_ref().filter(|_| request.volumes.is_empty());
        let taken = pool.map(|pool| pool.take(&self.site, &request));
        match taken.transpose()?.flatten() {
            Some(made) => Ok(made),
            None => create::make(&self.site, request),
        }
    }

    /// Takes an owned sandbox out of our hands; to drop it is to end it.
    pub(crate) fn disown(&self, id: &SandboxId) -> Option<Made> {
        self.owned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id)
    }

    /// Keeps an owned sandbox until it is killed or dropped, and cleans up as soon as it ends by itself.
    fn own(self: &Arc<Self>, made: Made) {
        let (id, ended) = (made.id.clone(), made.pidfd.try_clone());
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.insert(id.clone(), made);
        drop(owned);
        let Ok(ended) = ended.and_then(|pidfd| sys::watch(pidfd, Interest::READABLE)) else {
            return;
        };
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            let _ = ended.readable().await;
            let Some(made) = shared.upgrade().and_then(|shared| shared.disown(&id)) else {
                return;
            };
            let _ = tokio::task::spawn_blocking(move || drop(made)).await;
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let owned = self.owned.get_mut();
        let owned = std::mem::take(owned.unwrap_or_else(PoisonError::into_inner));
        let waiting = self.pool.as_mut().map(Pool::stop).unwrap_or_default();
        made::end_all(owned.into_values().chain(waiting));
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
mod tests;
