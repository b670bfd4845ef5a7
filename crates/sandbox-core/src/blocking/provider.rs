//! Where sandboxes come from, without a runtime.

use super::{BlockingSandbox, runtime::Shared};
use crate::{
    Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Error, ListOptions, Result,
    SandboxId, SandboxInfo, SandboxProvider, TemplateId, TemplateInfo,
};
use futures_util::TryStreamExt;
use std::sync::Arc;

/// A [`SandboxProvider`] whose calls return when they are done. See the [module](super).
#[derive(Debug, Clone)]
pub struct BlockingProvider {
    // Dropped before the runtime, which may have to clean up after it.
    inner: Arc<dyn SandboxProvider>,
    runtime: Shared,
}

impl BlockingProvider {
    /// Wraps a provider, with its layers.
    ///
    /// # Errors
    /// `Unavailable` if the system gives no thread for the runtime.
    pub fn new(provider: impl SandboxProvider) -> Result<Self> {
        Self::from_arc(Arc::new(provider))
    }

    /// Wraps a provider that is shared, such as one of a registry.
    ///
    /// # Errors
    /// As [`BlockingProvider::new`].
    pub fn from_arc(inner: Arc<dyn SandboxProvider>) -> Result<Self> {
        let runtime = Shared::new()?;
        Ok(Self { inner, runtime })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.inner.name()
    }

    /// As [`SandboxProvider::capabilities`].
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    /// As [`SandboxProvider::enforcement`].
    #[must_use]
    pub fn enforcement(&self, options: &CreateOptions) -> EnforcementReport {
        self.inner.enforcement(options)
    }

    /// As [`SandboxProvider::create`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn create(&self, options: CreateOptions) -> Result<BlockingSandbox> {
        let inner = self.runtime.run(self.inner.create(options))?;
        Ok(BlockingSandbox::new(inner, self.runtime.clone()))
    }

    /// As [`SandboxProvider::connect`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn connect(&self, id: &SandboxId, options: ConnectOptions) -> Result<BlockingSandbox> {
        let inner = self.runtime.run(self.inner.connect(id, options))?;
        Ok(BlockingSandbox::new(inner, self.runtime.clone()))
    }

    /// As [`SandboxProvider::sandbox`].
    #[must_use]
    pub fn sandbox(&self, id: &SandboxId) -> BlockingSandbox {
        BlockingSandbox::new(self.inner.sandbox(id), self.runtime.clone())
    }

    /// As [`SandboxProvider::list`], all at once.
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn list(&self, options: ListOptions) -> Result<Vec<SandboxInfo>> {
        self.runtime
            .run(async { self.inner.list(options).try_collect().await })
    }

    /// As [`SandboxProvider::kill`].
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn kill(&self, id: &SandboxId) -> Result<bool> {
        self.runtime.run(self.inner.kill(id))
    }

    /// As [`Templates::list`](crate::Templates::list), all at once; `None` if it has no templates.
    ///
    /// # Errors
    /// The same, and `InvalidState` inside of an async runtime.
    pub fn templates(&self) -> Option<Result<Vec<TemplateInfo>>> {
        let templates = self.inner.templates()?;
        let list = async { templates.list().try_collect().await };
        Some(self.runtime.run(list))
    }

    /// As [`Templates::remove`](crate::Templates::remove).
    ///
    /// # Errors
    /// The same, `Unsupported` if it has no templates, and `InvalidState` inside of an async runtime.
    pub fn remove_template(&self, id: &TemplateId) -> Result<bool> {
        let templates = self.inner.templates();
        let templates = templates.ok_or_else(|| Error::unsupported("templates"))?;
        self.runtime.run(templates.remove(id))
    }
}
