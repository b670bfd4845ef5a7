//! Forwards a provider's calls.

use crate::{Around, Call, Kind};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use sandbox_core::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Error, ListOptions,
    Result, Sandbox, SandboxId, SandboxInfo, SandboxProvider, TemplateInfo, Templates,
};
use std::sync::Arc;

/// A provider with something around its own calls.
#[derive(Debug)]
pub(crate) struct WrappedProvider<A> {
    pub(crate) inner: Arc<dyn SandboxProvider>,
    pub(crate) around: A,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> SandboxProvider for WrappedProvider<A> {
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
        let call = Call::new(Kind::Create, "create");
        self.around.call(call, self.inner.create(options)).await
    }

    async fn connect(&self, id: &SandboxId, options: ConnectOptions) -> Result<Arc<dyn Sandbox>> {
        let call = Call::of(Kind::Create, "connect", id);
        self.around
            .call(call, self.inner.connect(id, options))
            .await
    }

    fn sandbox(&self, id: &SandboxId) -> Arc<dyn Sandbox> {
        self.inner.sandbox(id)
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<SandboxInfo>> {
        let call = Call::new(Kind::Control, "list");
        self.around.stream(call, self.inner.list(options))
    }

    async fn kill(&self, id: &SandboxId) -> Result<bool> {
        let call = Call::of(Kind::Control, "kill", id);
        self.around.call(call, self.inner.kill(id)).await
    }

    fn templates(&self) -> Option<&dyn Templates> {
        self.inner.templates().map(|_| self as &dyn Templates)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<A: Around> Templates for WrappedProvider<A> {
    fn list(&self) -> BoxStream<'static, Result<TemplateInfo>> {
        let call = Call::new(Kind::Control, "templates.list");
        match self.inner.templates() {
            Some(templates) => self.around.stream(call, templates.list()),
            None => stream::once(async { Err(Error::unsupported("templates")) }).boxed(),
        }
    }
}
