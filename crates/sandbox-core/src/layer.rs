//! Layers: behaviour that wraps any provider, such as timeouts and traces.

use crate::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Error, ListOptions,
    Result, Sandbox, SandboxId, SandboxInfo, SandboxProvider, Source, Templates,
};
use async_trait::async_trait;
use std::{fmt, sync::Arc};

/// Wraps sandboxes, and where it must also the provider's own calls.
pub trait Layer: fmt::Debug + Send + Sync + 'static {
    /// Wraps a sandbox that the provider yields.
    fn sandbox(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox>;

    /// Wraps the provider's own calls: create, connect, list, kill, templates. What it yields need not be wrapped here.
    fn provider(&self, inner: Arc<dyn SandboxProvider>) -> Arc<dyn SandboxProvider>;
}

/// A provider whose sandboxes all pass through a layer.
#[derive(Debug, Clone)]
pub struct LayeredProvider {
    inner: Arc<dyn SandboxProvider>,
    layer: Arc<dyn Layer>,
}

impl LayeredProvider {
    /// Puts `layer` around `inner`.
    pub fn new(inner: Arc<dyn SandboxProvider>, layer: impl Layer) -> Self {
        Self {
            inner: layer.provider(inner),
            layer: Arc::new(layer),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SandboxProvider for LayeredProvider {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn enforcement(&self, options: &CreateOptions) -> EnforcementReport {
        self.inner.enforcement(options)
    }

    async fn create(&self, options: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        Ok(self.layer.sandbox(self.inner.create(options).await?))
    }

    async fn connect(&self, id: &SandboxId, options: ConnectOptions) -> Result<Arc<dyn Sandbox>> {
        Ok(self.layer.sandbox(self.inner.connect(id, options).await?))
    }

    fn sandbox(&self, id: &SandboxId) -> Arc<dyn Sandbox> {
        self.layer.sandbox(self.inner.sandbox(id))
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<SandboxInfo>> {
        self.inner.list(options)
    }

    async fn kill(&self, id: &SandboxId) -> Result<bool> {
        self.inner.kill(id).await
    }

    fn templates(&self) -> Option<&dyn Templates> {
        self.inner.templates()
    }
}

/// What callers of providers use besides. Imported by the prelude.
pub trait ProviderExt: SandboxProvider {
    /// Puts a layer around this provider.
    ///
    /// Each call wraps what came before, so the last layer is the outermost. From outside to inside: tracing, audit, policy,
    /// concurrency, retry, timeout.
    fn layer(self, layer: impl Layer) -> LayeredProvider
    where
        Self: Sized,
    {
        LayeredProvider::new(Arc::new(self), layer)
    }

    /// Makes `count` sandboxes from the state that the sandbox `id` is in at one moment. What runs in it goes on there alone.
    ///
    /// # Errors
    /// Those of [`SandboxProvider::create`], `SandboxNotFound` if the sandbox is gone, and `InvalidArgument` for a name that
    /// several would have. Then none is left.
    ///
    /// # Cancel safety
    /// Dropping the future leaves those that were made.
    fn fork(
        &self,
        id: &SandboxId,
        count: usize,
        options: CreateOptions,
    ) -> impl Future<Output = Result<Vec<Arc<dyn Sandbox>>>> + Send {
        async move {
            if count > 1 && options.name.is_some() {
                return Err(Error::invalid("several forks cannot have one name"));
            }
            let mut made: Vec<Arc<dyn Sandbox>> = Vec::new();
            while made.len() < count {
                // Nothing has happened in the first one yet, so that the others start from the same moment.
                let of = made.first().map_or(id, |first| first.id()).clone();
                let options = options.clone().source(Source::Fork(of));
                match self.create(options).await {
                    Ok(sandbox) => made.push(sandbox),
                    Err(error) => {
                        for sandbox in made {
                            // The error that is told is the one that came first.
                            let _ = sandbox.kill().await;
                        }
                        return Err(error);
                    }
                }
            }
            Ok(made)
        }
    }
}

impl<P: SandboxProvider + ?Sized> ProviderExt for P {}
