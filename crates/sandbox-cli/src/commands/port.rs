//! `sandbox port` and `sandbox proxy`: servers in sandboxes on this machine, until Ctrl-C.

use crate::{
    args::{Listen, PortArgs, ProxyArgs},
    output, provider,
};
use anyhow::{Context, Result, bail};
use sandbox::{
    Error, ErrorKind, Sandbox, SandboxExt,
    proxy::{Proxy, Serving, forward},
};
use serde::Serialize;
use std::{
    future::pending,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, time::sleep};

/// The port that sandboxes are served on by name, unless another one is asked for.
const PROXY: u16 = 7080;

/// Between two looks whether the sandbox still lives.
const EVERY: Duration = Duration::from_secs(1);

/// A port of a sandbox and where it is served, for programs.
#[derive(Debug, Serialize)]
struct Served {
    port: u16,
    address: SocketAddr,
}

/// Where all sandboxes are served, for programs.
#[derive(Debug, Serialize)]
struct ServedAll {
    address: SocketAddr,
    url: String,
}

pub(crate) async fn port(state_dir: Option<&Path>, args: PortArgs) -> Result<u8> {
    let listen = args.listen.unwrap_or_default();
    if listen.port.is_some_and(|port| port != 0) && args.ports.len() > 1 {
        bail!("several ports cannot be served by one; leave the port of --listen out");
    }
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    let (mut serving, mut served) = (Vec::new(), Vec::new());
    for port in args.ports {
        let one = serve(&sandbox, port, listen).await?;
        let address = one.address();
        served.push(Served { port, address });
        serving.push(one);
    }
    warn_of(listen);
    if args.json {
        output::print_json(&served)?;
    } else {
        for Served { port, address } in &served {
            output::print(format_args!("{address} is port {port} of {}", args.id))?;
        }
    }
    ended(&*sandbox).await
}

pub(crate) async fn proxy(state_dir: Option<&Path>, args: ProxyArgs) -> Result<u8> {
    let listen = args.listen.unwrap_or_default();
    let provider = provider::open(state_dir)?;
    let listener = bind(listen, PROXY).await?;
    let serving = Proxy::new(provider).serve(listener)?;
    let address = serving.address();
    let url = format!("http://<port>-<sandbox>.localhost:{}", address.port());
    warn_of(listen);
    if args.json {
        output::print_json(&ServedAll { address, url })?;
    } else {
        output::print(url)?;
    }
    pending().await
}

async fn serve(sandbox: &Arc<dyn Sandbox>, port: u16, listen: Listen) -> Result<Serving> {
    sandbox.require_ports()?;
    let listener = bind(listen, port).await?;
    let refusals = Refusals::default();
    let refused = move |error| refusals.tell(port, &error);
    Ok(forward(listener, Arc::clone(sandbox), port, refused)?)
}

/// Listens on the port that is asked for, else on the one that comes first to mind, or else on any.
async fn bind(listen: Listen, first: u16) -> Result<TcpListener> {
    let at = |port| SocketAddr::new(listen.address, port);
    let wanted = listen.port.unwrap_or(first);
    let bound = match TcpListener::bind(at(wanted)).await {
        Err(error) if listen.port.is_none() && is_taken(&error) => TcpListener::bind(at(0)).await,
        bound => bound,
    };
    bound.with_context(|| format!("cannot listen on {}", at(wanted)))
}

/// Whether another port may be free: ports below 1024 are not everybody's.
fn is_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, PermissionDenied};
    matches!(error.kind(), AddrInUse | PermissionDenied)
}

fn warn_of(listen: Listen) {
    if !listen.address.is_loopback() {
        let address = listen.address;
        output::note(format_args!(
            "everybody who reaches {address} reaches what is served here"
        ));
    }
}

/// Says why connections are refused, as long as that is news.
#[derive(Debug, Default)]
struct Refusals(Mutex<Option<ErrorKind>>);

impl Refusals {
    fn tell(&self, port: u16, error: &Error) {
        let kind = Some(error.kind());
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *last, kind) == kind {
            return;
        }
        let why = match error.kind() {
            ErrorKind::NotFound => "nobody listens on it in the sandbox".into(),
            _ => output::printable(error.message()),
        };
        output::note(format_args!(
            "a connection to port {port} was refused: {why}"
        ));
    }
}

/// Waits for the end of the sandbox.
async fn ended(sandbox: &dyn Sandbox) -> Result<u8> {
    loop {
        sleep(EVERY).await;
        match sandbox.info().await {
            Err(error) if error.kind() == ErrorKind::SandboxNotFound => {
                bail!("the sandbox has ended")
            }
            // It may be busy.
            _ => {}
        }
    }
}
