//! Forwards a provider's calls.

use crate::{Arguments, Around, Call, Kind};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use sandbox_core::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Error, ListOptions,
    Result, Sandbox, SandboxId, SandboxInfo, SandboxProvider, TemplateId, TemplateInfo, Templates,
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
        match self.around.adjust(options.clone()) {
            Ok(options) => self.inner.enforcement(&options),
            // What would be refused is told as it was asked for.
            Err(_) => self.inner.enforcement(options),
        }
    }

    async fn create(&self, options: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        let options = self.around.adjust(options);
        let options = options.map_err(|error| error.with_operation("create"))?;
        let call = Call::new(Kind::Create, "create").with(Arguments::Create(&options));
        let run = || self.inner.create(options.clone());
        self.around.open(call, run).await
    }

    async fn connect(&self, id: &SandboxId, options: ConnectOptions) -> Result<Arc<dyn Sandbox>> {
        let call = Call::of(Kind::Create, "connect", id).with(Arguments::Connect(&options));
        let run = || self.inner.connect(id, options.clone());
        self.around.open(call, run).await
    }

    fn sandbox(&self, id: &SandboxId) -> Arc<dyn Sandbox> {
        self.inner.sandbox(id)
    }

    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<SandboxInfo>> {
        let call = Call::new(Kind::Control, "list").with(Arguments::List(&options));
        let (inner, options) = (Arc::clone(&self.inner), options.clone());
        self.around
            .stream(call, move || inner.list(options.clone()))
    }

    async fn kill(&self, id: &SandboxId) -> Result<bool> {
        let call = Call::of(Kind::Control, "kill", id);
        self.around.call(call, || self.inner.kill(id)).await
    }

    fn templates(&self) -> Option<&dyn Templates> {
        self.inner.templates().map(|_| self as &dyn Templates)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Templates for WrappedProvider<A> {
    fn list(&self) -> BoxStream<'static, Result<TemplateInfo>> {
        let call = Call::new(Kind::Control, "templates.list");
        let inner = Arc::clone(&self.inner);
        let open = move || match inner.templates() {
            Some(templates) => templates.list(),
            None => stream::once(async { Err(Error::unsupported("templates")) }).boxed(),
        };
        self.around.stream(call, open)
    }

    async fn remove(&self, id: &TemplateId) -> Result<bool> {
        let templates = self.inner.templates();
        let templates = templates.ok_or_else(|| Error::unsupported("templates"))?;
        let call = Call::new(Kind::Control, "templates.remove").with(Arguments::Template(id));
        self.around.call(call, || templates.remove(id)).await
    }
}
