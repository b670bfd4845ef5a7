//! Servers of a fake: what answers on a port, as a test writes it down.

use super::{call::lock, provider::FakeProvider, sandbox::FakeSandbox};
use crate::{Error, ErrorKind, PortStream, Ports, Previews, Result, SandboxState};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

/// Bytes on their way in each direction before the other side has to read.
const ON_THE_WAY: usize = 64 * 1024;

type Answer = Pin<Box<dyn Future<Output = ()> + Send>>;
type Server = Arc<dyn Fn(PortStream) -> Answer + Send + Sync>;

/// The servers of all sandboxes, by port.
#[derive(Default)]
pub(super) struct Servers(Mutex<BTreeMap<u16, Server>>);

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

impl FakeProvider {
    /// Has `server` answer each connection to `port` of every sandbox from now on, each in a task of its own, in place of a
    /// server that was there. Nobody listens on other ports.
    pub fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        port: u16,
        server: impl Fn(PortStream) -> F + Send + Sync + 'static,
    ) {
        let server: Server = Arc::new(move |stream| Box::pin(server(stream)));
        lock(&self.shared.servers.0).insert(port, server);
    }
}

#[async_trait]
impl Ports for FakeSandbox {
    async fn connect(&self, port: u16) -> Result<PortStream> {
        let inside = self.enter("ports.connect").await?;
        let failed = |kind, message| {
            let error = Error::new(kind, message).with_operation("ports.connect");
            Err(error.with_context("port", port))
        };
        if port == 0 {
            return failed(ErrorKind::InvalidArgument, "there is no port 0");
        }
        if inside.info().state == SandboxState::Paused {
            let message = "the sandbox is paused, resume it first";
            return failed(ErrorKind::InvalidState, message);
        }
        let Some(server) = lock(&self.shared.servers.0).get(&port).cloned() else {
            return failed(ErrorKind::NotFound, "nobody listens on this port");
        };
        let (ours, theirs) = tokio::io::duplex(ON_THE_WAY);
        tokio::spawn(server(PortStream::new(theirs)));
        Ok(PortStream::new(ours))
    }
}

#[async_trait]
impl Previews for FakeSandbox {
    async fn url(&self, port: u16) -> Result<String> {
        self.enter("previews.url").await?;
        Ok(format!("https://{port}-{}.invalid", self.id))
    }
}
