//! What the suite runs on: a provider, and the knobs that fit the suite to it.

use futures_util::future::BoxFuture;
use sandbox_core::{CreateOptions, Result, SandboxProvider};
use std::{fmt, sync::Arc, time::Duration};

type Factory = dyn Fn() -> BoxFuture<'static, Result<Arc<dyn SandboxProvider>>> + Send + Sync;

/// A provider and how to test it. Give it to [`run`](crate::run).
#[derive(Clone)]
pub struct Harness {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) create: CreateOptions,
    pub(crate) deadline: Duration,
    pub(crate) large_file_bytes: u64,
    pub(crate) output_bytes: u64,
}

/// Where the provider comes from.
#[derive(Clone)]
pub(crate) enum Source {
    Ready(Arc<dyn SandboxProvider>),
    Factory(Arc<Factory>),
}

impl Source {
    /// Makes the provider, or takes the one at hand.
    pub(crate) async fn provider(&self) -> Result<Arc<dyn SandboxProvider>> {
        match self {
            Self::Ready(provider) => Ok(Arc::clone(provider)),
            Self::Factory(factory) => factory().await,
        }
    }
}

impl Harness {
    /// Tests this provider value. Cases that need a second value of it (who owns a sandbox?) are ignored.
    pub fn new(provider: Arc<dyn SandboxProvider>) -> Self {
        Self::of(Source::Ready(provider))
    }

    /// Tests what `factory` makes. It is called on the suite's runtime, once for most cases and again for those about
    /// what happens to sandboxes when the provider value that made them is gone.
    pub fn from_factory<F, P>(factory: F) -> Self
    where
        F: Fn() -> P + Send + Sync + 'static,
        P: Future<Output = Result<Arc<dyn SandboxProvider>>> + Send + 'static,
    {
        Self::of(Source::Factory(Arc::new(move || Box::pin(factory()))))
    }

    fn of(source: Source) -> Self {
        Self {
            name: String::new(),
            source,
            create: CreateOptions::new(),
            deadline: Duration::from_secs(120),
            large_file_bytes: 1024 * 1024 * 1024,
            output_bytes: 100 * 1024 * 1024,
        }
    }

    /// Puts `name` before the name of each case: `timeout` makes `timeout::files::...`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes every sandbox with these options, to which cases add their own. A lifetime here limits what a run that
    /// is killed leaves behind at a hosted provider.
    #[must_use]
    pub fn create_options(mut self, options: CreateOptions) -> Self {
        self.create = options;
        self
    }

    /// Lets a case take this long before it counts as failed; two minutes unless set.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the size of a large file; 1 GiB unless set.
    #[must_use]
    pub fn large_file_bytes(mut self, bytes: u64) -> Self {
        self.large_file_bytes = bytes;
        self
    }

    /// Sets the size of a command's large output; 100 MiB unless set.
    #[must_use]
    pub fn output_bytes(mut self, bytes: u64) -> Self {
        self.output_bytes = bytes;
        self
    }
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("name", &self.name)
            .field("create", &self.create)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
