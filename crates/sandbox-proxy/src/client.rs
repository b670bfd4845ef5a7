//! One client's connection, and what bounds it.

use crate::{
    activity::Activity,
    body::Body,
    exchange,
    forward::IDLE,
    inside::{FIELDS, HEADERS, Kept},
    names::Names,
    proxy::Shared,
    serving::Place,
};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpStream;

/// How long a client may take for the head of a request, the first one and each later one.
const HEAD: Duration = Duration::from_secs(30);

/// Requests of one client in HTTP/2 at a time.
const STREAMS: u32 = 128;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    pub(crate) peer: IpAddr,
    pub(crate) place: Place,
    pub(crate) kept: Kept,
    /// Whether it has asked for something.
    asked: AtomicBool,
}

impl Client {
    pub(crate) fn names(&self) -> &Names {
        &self.shared.names
    }

    /// The domains below which sandboxes are served; there is one.
    pub(crate) fn domains(&self) -> &[String] {
        &self.shared.domains
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        self.asked.store(true, Ordering::Relaxed);
        let answer = exchange::pass(self, request).await;
        Ok(answer.unwrap_or_else(|refusal| refusal.into_response()))
    }
}

/// Serves a client until it is done, or has to be.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut place: Place,
) {
    let client = Arc::new(Client {
        shared,
        peer: peer.ip(),
        place: place.clone(),
        kept: Kept::default(),
        asked: AtomicBool::new(false),
    });
    let activity = Activity::new();
    let io = TokioIo::new(activity.watch(stream));
    let builder = builder();
    let asking = Arc::clone(&client);
    let service = service_fn(move |request| {
        let client = Arc::clone(&asking);
        async move { client.answer(request).await }
    });
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(io, service));
    // What a client may take to say which version it speaks is bounded by nothing else.
    let silent = async {
        tokio::time::sleep(HEAD).await;
        if client.asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // Whatever is wrong with it, it is over.
        _ = connection.as_mut() => return,
        () = silent => return,
        () = activity.idle(IDLE) => return,
        () = place.finishing() => connection.as_mut().graceful_shutdown(),
    }
    let _over = connection.await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(FIELDS)
        .max_buf_size(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS as u32);
    builder
}
