//! Carries what sandboxes say to the internet, as far as their policies and the floor let it: one thread for all of them.
//! It is given sockets that have captured whatever a sandbox sends; how they do that is not its concern.

mod accept;
mod connection;
mod dns;
mod dns_stream;
mod ear;
mod given;
mod held;
mod hint;
mod host;
mod http;
mod options;
mod pace;
mod pipes;
mod pump;
mod requests;
mod room;
mod sandbox;
mod socket;
mod udp;
mod upstream;

use crate::Policy;
use host::LiveFloor;
use pipes::Pipes;
use sandbox::Sandbox;
use sandbox_core::{Error, ErrorKind, Existing, NetworkEvent, NetworkPolicy, Result};
use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::oneshot,
    task::AbortHandle,
};
use upstream::Upstream;

pub use host::{HOST_ADDRESS, HOST_NAME};
pub use options::{Limits, RelayOptions};
pub use sandbox::Counters;

/// Takes what happens, on the relay's own thread: whatever it does, it must not wait.
pub type Sink = Arc<dyn Fn(NetworkEvent) + Send + Sync>;

/// Where a stream was to go.
type Destination = Arc<dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync>;

/// A relay, running on a thread of its own. When it is dropped, all connections end.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What all sandboxes have in common.
#[derive(Debug)]
struct Shared {
    floor: LiveFloor,
    upstream: Upstream,
    limits: Limits,
    pipes: Arc<Pipes>,
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    /// `Unavailable` if this host does not let its addresses be read, or has no resources for a thread.
    pub fn start(options: RelayOptions) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let run = move || match prepare(options) {
            Ok((runtime, shared)) => {
                let is_wanted = ready.send(Ok((runtime.handle().clone(), shared))).is_ok();
                drop(ready);
                if is_wanted {
                    let _ = runtime.block_on(stopped);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = thread::Builder::new()
            .name("sandbox-egress".to_owned())
            .spawn(run)
            .map_err(|error| unavailable("the relay's thread cannot be started", error))?;
        let ended = || Error::new(ErrorKind::Internal, "the relay's thread has ended");
        let (runtime, shared) = is_ready.recv().map_err(|_| ended())??;
        Ok(Self {
            shared,
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where its tasks run, for others that belong to what it serves. They must not wait.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Serves one sandbox by the sockets that capture what it sends. A stream that `tcp` accepts has as its local
    /// address where it was to go; `udp` tells with each datagram to which address it was sent, and gets DNS alone.
    ///
    /// # Errors
    /// `Unavailable` if the sockets cannot be watched.
    pub fn serve(
        &self,
        tcp: TcpListener,
        udp: UdpSocket,
        policy: Policy,
        sink: Sink,
    ) -> Result<Served> {
        self.serve_to(tcp, udp, policy, sink, Arc::new(TcpStream::local_addr))
    }

    /// Serves as if all streams were for one address, so that the relay can be measured without a sandbox.
    #[doc(hidden)]
    pub fn serve_measured(
        &self,
        tcp: TcpListener,
        udp: UdpSocket,
        to: SocketAddr,
    ) -> Result<Served> {
        let policy = Policy::new(&NetworkPolicy::Public)?;
        self.serve_to(tcp, udp, policy, Arc::new(drop), Arc::new(move |_| Ok(to)))
    }

    fn serve_to(
        &self,
        tcp: TcpListener,
        udp: UdpSocket,
        policy: Policy,
        sink: Sink,
        destination: Destination,
    ) -> Result<Served> {
        let _guard = self.runtime.enter();
        let (tcp, udp) = watched(tcp, udp)
            .map_err(|error| unavailable("the sandbox's sockets cannot be watched", error))?;
        let sandbox = Arc::new(Sandbox::new(Arc::clone(&self.shared), policy, sink));
        let (streams, queries) = (Arc::clone(&sandbox), Arc::clone(&sandbox));
        let task = self.runtime.spawn(async move {
            tokio::join!(
                accept::serve(streams, tcp, destination),
                udp::serve(queries, udp)
            );
        });
        Ok(Served {
            sandbox,
            task: task.abort_handle(),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say, and a panic of it was shown already.
            let _ = thread.join();
        }
    }
}

/// A sandbox that is served. When it is dropped, nothing is accepted any more, and its connections are cut.
pub struct Served {
    sandbox: Arc<Sandbox>,
    task: AbortHandle,
}

impl Served {
    /// Replaces the policy. New connections are judged by it at once. Those that exist go on by the policy that has
    /// let them through, or are judged again by what was known of them: of which the name would have to be known, and
    /// is not, is cut too.
    pub fn set_policy(&self, policy: Policy, existing: Existing) {
        self.sandbox.set_policy(policy, existing);
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.sandbox.counters()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

fn unavailable(message: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

fn prepare(options: RelayOptions) -> Result<(tokio::runtime::Runtime, Arc<Shared>)> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| unavailable("the relay's runtime cannot be started", error))?;
    let guard = runtime.enter();
    let shared = Shared {
        floor: LiveFloor::new(options.floor)?,
        upstream: Upstream::new(options.nameservers.as_deref())?,
        limits: options.limits,
        pipes: Arc::default(),
    };
    drop(guard);
    Ok((runtime, Arc::new(shared)))
}

fn watched(
    tcp: TcpListener,
    udp: UdpSocket,
) -> io::Result<(tokio::net::TcpListener, tokio::net::UdpSocket)> {
    tcp.set_nonblocking(true)?;
    // Whatever is accepted has what is set here.
    socket::prepare(&tcp)?;
    udp.set_nonblocking(true)?;
    Ok((
        tokio::net::TcpListener::from_std(tcp)?,
        tokio::net::UdpSocket::from_std(udp)?,
    ))
}

#[cfg(test)]
mod tests;
