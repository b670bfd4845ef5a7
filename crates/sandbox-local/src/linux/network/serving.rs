//! Carries the connections of one sandbox, by the policy beside its record.

use super::{
    control::{self, Server, Traffic},
    log::Kept,
    stored,
    take::{self, Taken},
};
use crate::linux::record::storage_error;
use sandbox_core::{Error, ErrorKind, Existing, NetworkEvent, Result};
use sandbox_egress::{Policy, Relay, Served, Sink};
use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::task::AbortHandle;

/// How long PID 1 may take to see that whoever had the network is gone, and when it is asked again.
const FREED_WITHIN: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(5);

/// A sandbox whose connections are carried as long as this lives.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Goes with the last that it serves.
    _relay: Arc<Relay>,
    _served: Arc<Served>,
    /// As long as it is open the network is ours: closed, PID 1 refuses all connections itself.
    held: OwnedFd,
    control: AbortHandle,
}

impl Serving {
    /// Takes the network of the sandbox whose record is in `record`, and begins to carry.
    ///
    /// # Errors
    /// `Unavailable` if somebody else carries it already, or it cannot be carried.
    pub(super) fn start(relay: Arc<Relay>, record: &Path) -> Result<Self> {
        let failed = |error| storage_error(error, "the sandbox's network could not be served");
        let directory = File::open(record).map_err(failed)?;
        let Taken { tcp, dns, held } = take_soon(directory.as_fd())?;
        let log = Kept::open(record).map_err(failed)?;
        // Only who has the network may answer for it. Whoever changes the policy after it was read is heard.
        let listener = control::listen(directory.as_fd()).map_err(failed)?;
        let stored = stored::read(record)?.ok_or_else(no_policy)?;
        let policy = Policy::new(&stored.policy)?;
        let served = Arc::new(relay.serve(tcp, dns, policy, sink(log))?);
        let asked = Asked {
            served: Arc::clone(&served),
            record: record.to_owned(),
        };
        let control = relay.runtime().spawn(async move {
            if let Err(error) = control::serve(listener, asked).await {
                tracing::warn!(%error, "changes of a network policy cannot be heard any more");
            }
        });
        Ok(Self {
            _relay: relay,
            _served: served,
            held,
            control: control.abort_handle(),
        })
    }

    /// Becomes readable when the sandbox has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.control.abort();
    }
}

/// Takes the network, also if the one who had it has just gone and PID 1 is about to see that.
fn take_soon(directory: BorrowedFd<'_>) -> Result<Taken> {
    let deadline = Instant::now() + FREED_WITHIN;
    loop {
        match take::take(directory) {
            Err(error) if error.kind() == ErrorKind::InvalidState && Instant::now() < deadline => {
                thread::sleep(AGAIN);
            }
            taken => return taken,
        }
    }
}

fn no_policy() -> Error {
    let message = "the sandbox has no network policy";
    Error::new(ErrorKind::Internal, message)
}

/// What others can ask of one who serves.
struct Asked {
    served: Arc<Served>,
    record: PathBuf,
}

impl Server for Asked {
    fn apply(&self, existing: Existing) -> Result<()> {
        let stored = stored::read(&self.record)?.ok_or_else(no_policy)?;
        self.served
            .set_policy(Policy::new(&stored.policy)?, existing);
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        let counters = self.served.counters();
        Traffic {
            sent: counters.sent,
            received: counters.received,
            connections: counters.open,
            refused: counters.denied,
        }
    }
}

/// Writes events down.
fn sink(log: Kept) -> Sink {
    let log = Mutex::new(log);
    Arc::new(move |event: NetworkEvent| {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&event);
    })
}
