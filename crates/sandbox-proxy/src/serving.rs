//! What runs until it is told to stop: a listener, and all that came through it.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

/// How long nothing is accepted after that has failed: there are too many descriptors, say.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A listener that serves in the background.
///
/// # Behavior
/// - It serves until [`shutdown`](Self::shutdown). A drop ends it and all its connections at once.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Serving {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    places: Arc<Semaphore>,
    most: u32,
}

/// How far a listener has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing new begins.
    Finishing,
    Ended,
}

/// A connection's place among those that may stand at a time, until its last clone is gone.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
    phase: watch::Receiver<Phase>,
}

impl Place {
    /// Waits until nothing new may begin.
    pub(crate) async fn finishing(&mut self) {
        // Without its sender it is over, too.
        let _gone = self.phase.wait_for(|phase| *phase != Phase::Open).await;
    }

    /// Waits until all must end.
    pub(crate) async fn ended(&mut self) {
        let _gone = self.phase.wait_for(|phase| *phase == Phase::Ended).await;
    }
}

impl Serving {
    /// Has `handle` serve what `listener` accepts, up to `most` connections at a time. More wait in the system's queue.
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        most: u32,
        handle: impl Fn(TcpStream, SocketAddr, Place) -> F + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let places = Arc::new(Semaphore::new(most as usize));
        let phase = watch::Sender::new(Phase::Open);
        tokio::spawn(accept(
            listener,
            Arc::clone(&places),
            phase.subscribe(),
            handle,
        ));
        Ok(Self {
            address,
            phase,
            places,
            most,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing any more, lets what is under way finish within `grace`, and ends the rest.
    pub async fn shutdown(self, grace: Duration) {
        self.phase.send_replace(Phase::Finishing);
        // All places are free when nobody is left.
        let all = || self.places.acquire_many(self.most);
        if tokio::time::timeout(grace, all()).await.is_err() {
            self.phase.send_replace(Phase::Ended);
            let _places = all().await;
        }
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    places: Arc<Semaphore>,
    mut phase: watch::Receiver<Phase>,
    handle: impl Fn(TcpStream, SocketAddr, Place) -> F + Send + Sync + 'static,
) {
    loop {
        let next = async {
            let permit = Arc::clone(&places).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
        };
        let (Ok(permit), Ok((stream, peer))) = (permit, accepted) else {
            tokio::time::sleep(AFTER_FAILURE).await;
            continue;
        };
        // Answers in many small pieces come at once.
        let _best_effort = stream.set_nodelay(true);
        let place = Place {
            _permit: Arc::new(permit),
            phase: phase.clone(),
        };
        let mut until = place.clone();
        let handled = handle(stream, peer, place);
        tokio::spawn(async move {
            tokio::select! {
                () = handled => {}
                () = until.ended() => {}
            }
        });
    }
}
