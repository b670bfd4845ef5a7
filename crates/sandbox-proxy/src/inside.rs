//! Connections to the servers inside, in the version of HTTP that the client speaks.

use crate::{body::RequestBody, host::Target, refusal::Refusal};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sandbox_core::PortStream;
use std::{
    collections::HashMap,
    error::Error as StdError,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::task::AbortHandle;

/// Most bytes of the fields of an answer, and of a request.
pub(crate) const HEADERS: usize = 64 * 1024;

/// Most fields of an answer, and of a request.
pub(crate) const FIELDS: usize = 128;

/// Servers that one client asks in HTTP/2 over connections that are kept.
const KEPT: usize = 32;

/// A connection to a server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Link(AbortHandle);

impl Link {
    fn new(connection: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self(tokio::spawn(connection).abort_handle()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer, and the connection that its body comes by.
pub(crate) type Answer = hyper::Result<(Response<Incoming>, Arc<Link>)>;

/// Asks over a connection of its own: which server can be asked again over the same one is not known before it has failed.
pub(crate) async fn ask_http1<B>(stream: PortStream, request: Request<B>) -> Answer
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEADERS)
        .max_headers(FIELDS)
        .handshake(TokioIo::new(stream))
        .await?;
    let link = Link::new(async {
        // What is wrong with it is told to who asks.
        let _told = connection.with_upgrades().await;
    });
    let response = sender.send_request(request).await?;
    Ok((response, link))
}

/// The connections in HTTP/2 that are kept for one client, for as long as it is there.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<HashMap<Target, Http2>>);

/// A connection that takes many requests at a time.
#[derive(Debug, Clone)]
pub(crate) struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    link: Arc<Link>,
}

impl Kept {
    /// The connection to a server, which `connect` makes if there is none.
    pub(crate) async fn get(
        &self,
        target: &Target,
        connect: impl Future<Output = Result<PortStream, Refusal>>,
    ) -> Result<Http2, Refusal> {
        let known = self.lock().get(target).cloned();
        if let Some(known) = known.filter(|known| !known.sender.is_closed()) {
            return Ok(known);
        }
        let made = Http2::over(connect.await?).await;
        let made = made.map_err(|error| Refusal::broken(target, true, &error))?;
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            // Those that are in use live on with their answers.
            kept.clear();
        }
        kept.insert(target.clone(), made.clone());
        Ok(made)
    }

    /// Leaves a connection that is broken.
    pub(crate) fn forget(&self, target: &Target) {
        self.lock().remove(target);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Http2>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Http2 {
    async fn over(stream: PortStream) -> hyper::Result<Self> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS as u32)
            .handshake(TokioIo::new(stream))
            .await?;
        let link = Link::new(async {
            let _told = connection.await;
        });
        Ok(Self { sender, link })
    }

    pub(crate) async fn ask(mut self, request: Request<RequestBody>) -> Answer {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        Ok((response, self.link))
    }
}
