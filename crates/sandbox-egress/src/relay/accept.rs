//! Takes the connections of one sandbox.

use super::{Destination, connection, dns_stream, pace::Pace, sandbox::Sandbox};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

/// How long nothing is accepted after an error that would come again at once, such as that there are no descriptors.
const PAUSE: Duration = Duration::from_millis(20);

/// The port of DNS: whatever the address is, our own resolver answers.
const DNS: u16 = 53;

/// Takes connections until it is dropped; they end with it.
pub(super) async fn serve(sandbox: Arc<Sandbox>, listener: TcpListener, destination: Destination) {
    let mut pace = Pace::new(sandbox.limits().connections_per_second);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Those that have ended are not kept.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let (sandbox, destination) = (Arc::clone(&sandbox), Arc::clone(&destination));
                connections.spawn(async move {
                    // The program sees that its connection has ended; nobody else is to be told.
                    let _ = carry(sandbox, stream, &destination).await;
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
        pace.turn().await;
    }
}

async fn carry(
    sandbox: Arc<Sandbox>,
    stream: TcpStream,
    destination: &Destination,
) -> io::Result<()> {
    let to = destination(&stream)?;
    if to.port() == DNS {
        return dns_stream::serve(&sandbox, stream, to).await;
    }
    connection::carry(sandbox, stream, to).await;
    Ok(())
}
