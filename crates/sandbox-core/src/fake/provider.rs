//! The fake provider: its sandboxes, the test's scripts and faults, and what was called.

use super::{
    Call, Fault, OPERATIONS, Script,
    call::{Calls, lock},
    ports::Servers,
    sandbox::{FakeSandbox, Inside},
    tree::Tree,
};
use crate::{
    BoxStream, Capabilities, Command, ConnectOptions, CreateOptions, Enforcement,
    EnforcementReport, Error, ErrorKind, Expiry, ListOptions, NetworkPolicy, Ownership, Result,
    Sandbox, SandboxId, SandboxInfo, SandboxProvider, SandboxState, SnapshotId, Source, TemplateId,
    TemplateInfo, Templates, Wall,
};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// The only template it has.
const TEMPLATE: &str = "base";

/// A provider that knows what a test told it. Clones are the same provider. See the [module](super).
#[derive(Debug, Clone)]
pub struct FakeProvider {
    pub(super) shared: Arc<Shared>,
}

/// What the provider and its sandboxes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) capabilities: Capabilities,
    pub(super) calls: Arc<Calls>,
    started: Instant,
    scripts: Mutex<Vec<Script>>,
    pub(super) servers: Servers,
    pub(super) sandboxes: Mutex<Sandboxes>,
}

#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    living: BTreeMap<u64, Arc<Inside>>,
    made: u64,
    pub(super) snapshots: BTreeMap<SnapshotId, Tree>,
    /// How many snapshots were ever taken.
    pub(super) kept: u64,
}

impl FakeProvider {
    /// A provider with every capability but a shell, users and watches.
    #[must_use]
    pub fn new() -> Self {
        let mut capabilities = Capabilities::new();
        capabilities.pty = true;
        capabilities.attach = true;
        capabilities.lifecycle = true;
        capabilities.pause = true;
        capabilities.snapshots = true;
        capabilities.ports = true;
        capabilities.previews = true;
        capabilities.network = true;
        capabilities.metrics = true;
        capabilities.templates = true;
        capabilities.stdin = true;
        capabilities.split_stderr = true;
        capabilities.signals = true;
        capabilities.range_read = true;
        capabilities.symlinks = true;
        capabilities.detached = true;
        Self::with_capabilities(capabilities)
    }

    /// A provider with these capabilities; what they lack is `None` or `Unsupported`. A shell, users and watches it never has.
    #[must_use]
    pub fn with_capabilities(mut capabilities: Capabilities) -> Self {
        capabilities.shell = false;
        capabilities.users = false;
        capabilities.watch = false;
        let shared = Shared {
            capabilities,
            calls: Arc::default(),
            started: Instant::now(),
            scripts: Mutex::default(),
            servers: Servers::default(),
            sandboxes: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Adds a script, after those that are there.
    pub fn script(&self, script: Script) {
        lock(&self.shared.scripts).push(script);
    }

    /// Hits the next call of `operation` with `fault`. Several faults for one operation hit one call each, in order.
    ///
    /// # Panics
    /// If `operation` is none of [`OPERATIONS`], since it would never be hit.
    pub fn fault(&self, operation: &'static str, fault: Fault) {
        let known = OPERATIONS.contains(&operation);
        assert!(known, "there is no operation {operation:?}");
        self.shared.calls.add_fault(operation, fault);
    }

    /// How many faults have not hit yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.shared.calls.faults_left()
    }

    /// All calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.made()
    }
}

impl Default for FakeProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    /// The time by tokio's clock, counted from a fixed moment.
    pub(super) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000) + self.started.elapsed()
    }

    /// The script that answers `command`.
    pub(super) fn answer(&self, command: &Command) -> Result<Script> {
        let mut scripts = lock(&self.scripts);
        let unknown = || {
            let message = "no script answers this command, add one with `FakeProvider::script`";
            Error::new(ErrorKind::Internal, message)
                .with_context("program", format!("{:?}", command.program))
        };
        let answers = |script: &Script| script.answers(command);
        let at = scripts.iter().position(answers).ok_or_else(unknown)?;
        let script = scripts[at].clone();
        if script.once {
            scripts.remove(at);
        }
        Ok(script)
    }

    /// A living sandbox.
    pub(super) fn find(&self, id: &SandboxId) -> Result<Arc<Inside>> {
        let living = self.living();
        living
            .into_iter()
            .find(|inside| inside.id() == id)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::SandboxNotFound,
                    "the sandbox does not exist, or has ended",
                )
                .with_context("id", id.as_str().escape_debug())
            })
    }

    /// Those that live, oldest first. What has expired ends now.
    pub(super) fn living(&self) -> Vec<Arc<Inside>> {
        let now = Instant::now();
        let mut sandboxes = lock(&self.sandboxes);
        sandboxes.living.retain(|_, inside| {
            let lives = inside.expires().is_none_or(|expires| now < expires);
            if !lives && inside.expire() {
                inside.end();
                return false;
            }
            true
        });
        sandboxes.living.values().map(Arc::clone).collect()
    }

    /// Ends a sandbox; `false` if there is none.
    pub(super) fn kill(&self, id: &SandboxId) -> bool {
        self.living();
        let mut sandboxes = lock(&self.sandboxes);
        let mut numbered = sandboxes.living.iter();
        let number = numbered.find_map(|(number, inside)| (inside.id() == id).then_some(*number));
        let ended = number.and_then(|number| sandboxes.living.remove(&number));
        if let Some(inside) = &ended {
            inside.end();
        }
        ended.is_some()
    }

    /// Lets a sandbox live for `lifetime` from now on; one beyond the clock's end is endless.
    pub(super) fn set_lifetime(self: &Arc<Self>, inside: &Inside, lifetime: Duration) {
        let end = Instant::now().checked_add(lifetime);
        inside.set_end(end, self.now().checked_add(lifetime));
        let (Some(end), shared) = (end, Arc::downgrade(self)) else {
            return;
        };
        // Those who follow its commands make no call that would notice the end.
        tokio::spawn(async move {
            tokio::time::sleep_until(end).await;
            if let Some(shared) = shared.upgrade() {
                shared.living();
            }
        });
    }

    /// Refuses what a fake cannot honour.
    fn check(&self, options: &CreateOptions) -> Result<()> {
        options.validate()?;
        let detached = options.ownership == Some(Ownership::Detached);
        let snapshot = matches!(options.source, Some(Source::Snapshot(_)));
        let refused = [
            (
                options.extensions.iter().flatten().next().is_some(),
                "the extension",
            ),
            (options.idle_timeout.is_some(), "an idle timeout"),
            (
                options.on_expiry == Some(Expiry::Pause) && !self.capabilities.pause,
                "a pause at the end",
            ),
            (
                detached && !self.capabilities.detached,
                "a detached sandbox",
            ),
            (snapshot && !self.capabilities.snapshots, "a snapshot"),
            (
                !matches!(options.network, None | Some(NetworkPolicy::Off))
                    && !self.capabilities.network,
                "a network policy other than off",
            ),
        ];
        match refused.iter().find(|(asked, _)| *asked) {
            Some((_, what)) => Err(Error::unsupported(what)),
            None => Ok(()),
        }
    }

    fn snapshot(&self, id: &SnapshotId) -> Option<Tree> {
        lock(&self.sandboxes).snapshots.get(id).cloned()
    }

    /// The tree that a new sandbox starts with.
    fn source(&self, source: Option<&Source>) -> Result<Tree> {
        let missing =
            |what: &str| Error::new(ErrorKind::NotFound, format!("there is no such {what}"));
        match source {
            None => Ok(Tree::new(self.now())),
            Some(Source::Template(id)) if id.as_str() == TEMPLATE => Ok(Tree::new(self.now())),
            Some(Source::Template(id)) => {
                let snapshot = self.snapshot(&SnapshotId::new(id.as_str()));
                snapshot.ok_or_else(|| missing("template"))
            }
            Some(Source::Snapshot(id)) => self.snapshot(id).ok_or_else(|| missing("snapshot")),
            Some(Source::Fork(id)) => Ok(self.find(id)?.tree()),
        }
    }

    fn make(self: &Arc<Self>, options: CreateOptions) -> Result<Arc<Inside>> {
        self.check(&options)?;
        let tree = self.source(options.source.as_ref())?;
        let named = |inside: &Arc<Inside>| inside.info().name == options.name;
        if options.name.is_some() && self.living().iter().any(named) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "a sandbox of this name lives",
            ));
        }
        let mut sandboxes = lock(&self.sandboxes);
        sandboxes.made += 1;
        let number = sandboxes.made;
        let mut info = SandboxInfo::new(
            SandboxId::new(format!("fake-{number}")),
            SandboxState::Running,
        );
        info.name = options.name;
        info.template = Some(TemplateId::new(TEMPLATE));
        info.created_at = Some(self.now());
        info.ownership = Some(options.ownership.unwrap_or(Ownership::Owned));
        info.limits = options.limits.unwrap_or_default();
        info.metadata = options.metadata.unwrap_or_default();
        let network = options.network.unwrap_or(NetworkPolicy::Off);
        let inside = Arc::new(Inside::new(info, tree, network));
        if let Some(lifetime) = options.lifetime {
            self.set_lifetime(&inside, lifetime);
        }
        if options.on_expiry == Some(Expiry::Pause) {
            inside.pause_at_end(options.lifetime);
        }
        sandboxes.living.insert(number, Arc::clone(&inside));
        Ok(inside)
    }
}

#[async_trait]
impl SandboxProvider for FakeProvider {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities.clone()
    }

    fn enforcement(&self, _: &CreateOptions) -> EnforcementReport {
        let detail = "nothing runs, so that nothing can get out";
        EnforcementReport::new(vec![Wall::new("fake", Enforcement::Enforced, detail)])
    }

    async fn create(&self, options: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        self.shared.calls.enter(Call::new("create")).await?;
        let made = self.shared.make(options);
        let made = made.map_err(|error| error.with_operation("create"))?;
        Ok(self.sandbox(made.id()))
    }

    async fn connect(&self, id: &SandboxId, options: ConnectOptions) -> Result<Arc<dyn Sandbox>> {
        self.shared.calls.enter(Call::of("connect", id)).await?;
        let inside = self.shared.find(id)?;
        if let Some(lifetime) = options.lifetime.or(inside.resume()) {
            self.shared.set_lifetime(&inside, lifetime);
        }
        Ok(self.sandbox(id))
    }

    fn sandbox(&self, id: &SandboxId) -> Arc<dyn Sandbox> {
        Arc::new(FakeSandbox::new(Arc::clone(&self.shared), id.clone()))
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<SandboxInfo>> {
        let shared = Arc::clone(&self.shared);
        let listed = async move {
            shared.calls.enter(Call::new("list")).await?;
            let wanted = options.metadata.unwrap_or_default();
            let fits = |info: &SandboxInfo| {
                let carried = |(key, value)| info.metadata.get(key) == Some(value);
                wanted.iter().all(carried)
            };
            let living = shared.living().into_iter().map(|inside| inside.info());
            Ok(stream::iter(
                living.filter(fits).map(Ok).collect::<Vec<_>>(),
            ))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn kill(&self, id: &SandboxId) -> Result<bool> {
        self.shared.calls.enter(Call::of("kill", id)).await?;
        Ok(self.shared.kill(id))
    }

    fn templates(&self) -> Option<&dyn Templates> {
        self.shared.capabilities.templates.then_some(self)
    }
}

#[async_trait]
impl Templates for FakeProvider {
    fn list(&self) -> BoxStream<'static, Result<TemplateInfo>> {
        let shared = Arc::clone(&self.shared);
        let listed = async move {
            shared.calls.enter(Call::new("templates.list")).await?;
            let mut info = TemplateInfo::new(TemplateId::new(TEMPLATE));
            info.description = Some("an empty home".to_owned());
            let sandboxes = lock(&shared.sandboxes);
            let snapshots = sandboxes.snapshots.keys().map(|id| id.as_str().into());
            let snapshots: Vec<_> = snapshots.map(TemplateInfo::new).collect();
            let all = std::iter::once(info).chain(snapshots);
            Ok(stream::iter(all.map(Ok).collect::<Vec<_>>()))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn remove(&self, id: &TemplateId) -> Result<bool> {
        let call = Call::new("templates.remove");
        self.shared.calls.enter(call).await?;
        if id.as_str() == TEMPLATE {
            return Err(Error::unsupported("removing the fake's own template"));
        }
        let mut sandboxes = lock(&self.shared.sandboxes);
        let snapshot = SnapshotId::new(id.as_str());
        Ok(sandboxes.snapshots.remove(&snapshot).is_some())
    }
}
