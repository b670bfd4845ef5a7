//! All sandboxes of a provider by name, on one listener.

use crate::{client, host::LOCALHOST, names::Names, serving::Serving};
use sandbox_core::SandboxProvider;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// Most connections of clients at a time.
const MOST: u32 = 512;

/// Serves `http://<port>-<sandbox>.localhost`, where the sandbox is named by its id or its name.
///
/// # Behavior
/// - HTTP/1.1 reaches the server as HTTP/1.1 and HTTP/2 without TLS as HTTP/2. WebSockets and other upgrades pass, bodies
///   pass as they come, with their trailers, and are never gathered. A client that waits for `100 Continue` waits for the
///   server's.
/// - The server sees the `Host` that the client has asked for, and who has asked in `X-Forwarded-For`, `-Host` and
///   `-Proto`. What a client claims in these is not passed on.
/// - A host that does not end in `.localhost`, or in a domain that was [added](Self::domain), is answered with 421, so that no
///   foreign page reaches a sandbox by a name of its own that points here.
/// - What cannot be reached is answered with a text that says what to do, and a field `sandbox-proxy-error`: 404 for a
///   sandbox that is not there, 502 where nobody listens, 503 while it is paused.
/// - A client that is gone is gone for the server, too, and the other way round. Of one that has sent more than the server
///   reads it shows only when that is read, or after the hour.
/// - 512 connections stand at a time, more wait. The head of a request has 64 KiB, 128 fields and 30 seconds; a connection
///   without a byte for an hour is closed.
///
/// Everybody who reaches the listener reaches every server in every sandbox: it belongs on a loopback address.
///
/// # Examples
/// ```no_run
/// # async fn serve(provider: std::sync::Arc<dyn sandbox_core::SandboxProvider>) -> std::io::Result<()> {
/// use sandbox_proxy::{Proxy, url};
///
/// let serving = Proxy::new(provider).listen("127.0.0.1:7000".parse().unwrap()).await?;
/// println!("{}", url(serving.address(), 8000, "my-sandbox"));
/// # serving.shutdown(std::time::Duration::from_secs(5)).await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Proxy {
    shared: Shared,
    most: u32,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) names: Names,
    pub(crate) domains: Vec<String>,
}

impl Proxy {
    /// Serves the sandboxes of `provider`.
    #[must_use]
    pub fn new(provider: Arc<dyn SandboxProvider>) -> Self {
        let shared = Shared {
            names: Names::new(provider),
            domains: vec![LOCALHOST.to_owned()],
        };
        Self { shared, most: MOST }
    }

    /// Lets this many connections of clients stand at a time, in place of 512. More wait in the system's queue.
    #[must_use]
    pub fn max_connections(mut self, most: u32) -> Self {
        self.most = most.max(1);
        self
    }

    /// Serves sandboxes below `domain`, too.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        let domain = domain.into().to_ascii_lowercase();
        let domain = domain.trim_matches('.');
        // Everything is below the empty name.
        if !domain.is_empty() {
            self.shared.domains.push(domain.to_owned());
        }
        self
    }

    /// Listens on an address; port 0 is one that is free.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn listen(self, address: SocketAddr) -> io::Result<Serving> {
        self.serve(TcpListener::bind(address).await?)
    }

    /// Serves what `listener` accepts.
    ///
    /// # Errors
    /// If the listener has no address.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn serve(self, listener: TcpListener) -> io::Result<Serving> {
        let shared = Arc::new(self.shared);
        Serving::start(listener, self.most, move |stream, peer, place| {
            client::serve(stream, peer, Arc::clone(&shared), place)
        })
    }
}
