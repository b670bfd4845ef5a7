//! The provider where there is no Linux: it can be built into any program, and says what it needs.

use crate::LocalBuilder;
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use sandbox_core::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Error, ListOptions,
    Result, Sandbox, SandboxId, SandboxInfo, SandboxProvider,
};
use std::sync::Arc;

/// Sandboxes on this machine, which needs to run Linux. No value of this type exists here.
#[derive(Debug, Clone)]
pub struct LocalProvider(std::convert::Infallible);

fn unsupported() -> Error {
    Error::unsupported("this operating system (local sandboxes need Linux)").with_provider("local")
}

impl LocalProvider {
    /// # Errors
    /// `Unsupported`.
    pub fn new() -> Result<Self> {
        Err(unsupported())
    }

    /// Sets a provider up.
    #[must_use]
    pub fn builder() -> LocalBuilder {
        LocalBuilder::new()
    }

    pub(crate) fn open(_: LocalBuilder) -> Result<Self> {
        Err(unsupported())
    }
}

#[async_trait]
impl SandboxProvider for LocalProvider {
    fn name(&self) -> &'static str {
        match self.0 {}
    }

    fn capabilities(&self) -> Capabilities {
        match self.0 {}
    }

    fn enforcement(&self, _: &CreateOptions) -> EnforcementReport {
        match self.0 {}
    }

    async fn create(&self, _: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        match self.0 {}
    }

    async fn connect(&self, _: &SandboxId, _: ConnectOptions) -> Result<Arc<dyn Sandbox>> {
        match self.0 {}
    }

    fn sandbox(&self, _: &SandboxId) -> Arc<dyn Sandbox> {
        match self.0 {}
    }

    fn list(&self, _: ListOptions) -> BoxStream<'static, Result<SandboxInfo>> {
        stream::once(async { Err(unsupported()) }).boxed()
    }

    async fn kill(&self, _: &SandboxId) -> Result<bool> {
        match self.0 {}
    }
}
