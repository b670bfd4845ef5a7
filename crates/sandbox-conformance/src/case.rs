//! What a running case has at hand: the provider, sandboxes that are killed at its end, and patience.

use crate::{
    failure::{Result, Stop},
    harness::{Harness, Source},
};
use sandbox_core::{
    Capabilities, CreateOptions, Enforcement, Error, ErrorKind, Sandbox, SandboxId, SandboxPath,
    SandboxProvider,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A running case.
pub(crate) struct Case {
    harness: Arc<Harness>,
    provider: Arc<dyn SandboxProvider>,
    label: String,
    started: Instant,
    made: Mutex<Vec<SandboxId>>,
}

impl Case {
    pub(crate) fn new(harness: Arc<Harness>, provider: Arc<dyn SandboxProvider>) -> Self {
        Self {
            harness,
            provider,
            label: unique(),
            started: Instant::now(),
            made: Mutex::default(),
        }
    }

    /// The provider under test.
    pub(crate) fn provider(&self) -> &Arc<dyn SandboxProvider> {
        &self.provider
    }

    /// What it can do.
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.provider.capabilities()
    }

    /// The knobs.
    pub(crate) fn harness(&self) -> &Harness {
        &self.harness
    }

    /// A text that no other case and no other run uses.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The harness's options, to add to.
    pub(crate) fn options(&self) -> CreateOptions {
        self.harness.create.clone()
    }

    /// A fresh sandbox.
    pub(crate) async fn sandbox(&self) -> Result<Arc<dyn Sandbox>> {
        Ok(self.create(self.options()).await?)
    }

    /// A sandbox in which the end of a command is that of all it has started, unless the report says otherwise: then the
    /// case is ignored.
    pub(crate) async fn sandbox_with_whole_kills(&self) -> Result<Arc<dyn Sandbox>> {
        let report = self.provider.enforcement(&self.options());
        match report.wall("kill_tree") {
            Some(wall) if wall.enforcement != Enforcement::Enforced => {
                Err(Stop::Ignored(format!("`{}`: {}", wall.name, wall.detail)))
            }
            _ => self.sandbox().await,
        }
    }

    /// A sandbox with options that a provider may lack: then the case is ignored.
    pub(crate) async fn sandbox_with(&self, options: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        match self.create(options).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Err(Stop::Ignored(error.to_string()))
            }
            other => Ok(other?),
        }
    }

    /// Tries to make a sandbox. If it works, it is killed at the end.
    pub(crate) async fn create(
        &self,
        options: CreateOptions,
    ) -> sandbox_core::Result<Arc<dyn Sandbox>> {
        let sandbox = self.provider.create(options).await?;
        self.kill_at_end(sandbox.id());
        Ok(sandbox)
    }

    /// Has a sandbox killed at the end.
    pub(crate) fn kill_at_end(&self, id: &SandboxId) {
        self.made().push(id.clone());
    }

    /// A second value of the provider.
    pub(crate) async fn another_provider(&self) -> Result<Arc<dyn SandboxProvider>> {
        match &self.harness.source {
            Source::Ready(_) => Err(Stop::Ignored(
                "the harness has no factory for a second provider".into(),
            )),
            source @ Source::Factory(_) => Ok(source.provider().await?),
        }
    }

    /// Ends every sandbox that the case made.
    pub(crate) async fn clean_up(&self) -> Result<(), Error> {
        let made = std::mem::take(&mut *self.made());
        let mut result = Ok(());
        for id in made {
            if let Err(error) = self.provider.kill(&id).await {
                result = Err(error.with_context("sandbox", id));
            }
        }
        result
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Vec<SandboxId>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a fact by looking again and again, for most of the case's time.
    pub(crate) fn patience(&self, what: &'static str) -> Patience {
        Patience {
            what,
            ends: self.started + self.harness.deadline.mul_f64(0.8),
        }
    }
}

/// Time left for a fact to come true.
pub(crate) struct Patience {
    what: &'static str,
    ends: Instant,
}

impl Patience {
    /// A moment's rest before looking again; fails once it has been too long.
    #[track_caller]
    pub(crate) fn rest(&self) -> impl Future<Output = Result> + Send + use<> {
        let over = Instant::now() > self.ends;
        let vain = over.then(|| Stop::failed(format_args!("waited in vain for {}", self.what)));
        async move {
            match vain {
                Some(vain) => Err(vain),
                None => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(())
                }
            }
        }
    }
}

/// A path that is known to be fine.
pub(crate) fn path(path: impl AsRef<[u8]>) -> Result<SandboxPath> {
    Ok(SandboxPath::new(path)?)
}

/// Letters and digits that were not used before.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos() as u64;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("c{nanos:x}p{:x}n{count:x}", std::process::id())
}
