//! Layers: behaviour that wraps any provider, such as timeouts and traces.

use crate::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, ListOptions, Result,
    Sandbox, SandboxId, SandboxInfo, SandboxProvider, Templates,
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

/// Puts layers around a provider. Imported by the prelude.
///
/// Each call wraps what came before, so the last layer is the outermost. From outside to inside: tracing, audit, policy,
/// concurrency, retry, timeout.
pub trait ProviderExt: SandboxProvider + Sized {
    /// Puts a layer around this provider.
    fn layer(self, layer: impl Layer) -> LayeredProvider {
        LayeredProvider::new(Arc::new(self), layer)
    }
}

impl<P: SandboxProvider> ProviderExt for P {}
