//! The runtime that blocking calls bring along.

use crate::{Error, ErrorKind, Result};
use std::{fmt, sync::Arc, time::Duration};
use tokio::runtime::{Builder, Handle, Runtime};

/// How long the end of the last handle waits for what still runs, such as the removal of files.
const LAST_TASKS: Duration = Duration::from_secs(5);

/// A runtime that is shared by all that comes from one provider, and ends with the last of it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Own>);

struct Own(Option<Runtime>);

impl Shared {
    pub(super) fn new() -> Result<Self> {
        // One thread for the tasks that go on between calls; calls run on the threads that make them.
        let made = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sandbox-blocking")
            .enable_all()
            .build();
        let runtime = made.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no runtime could be started").with_source(error)
        })?;
        Ok(Self(Arc::new(Own(Some(runtime)))))
    }

    /// As [`run`](Self::run), for what reads and writes.
    pub(super) fn wait<T>(
        &self,
        call: impl Future<Output = std::io::Result<T>>,
    ) -> std::io::Result<T> {
        self.run(async { Ok(call.await) })
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// Makes a call and waits for it.
    pub(super) fn run<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if Handle::try_current().is_ok() {
            let message = "a blocking call was made inside of an async runtime, use the async handle or a thread of your own";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        match &self.0.0 {
            Some(runtime) => runtime.block_on(call),
            None => Err(Error::new(ErrorKind::Internal, "the runtime has ended")),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some(runtime) = self.0.take() else { return };
        // A runtime that is dropped inside of another one would panic if it waited.
        match Handle::try_current() {
            Ok(_) => runtime.shutdown_background(),
            Err(_) => runtime.shutdown_timeout(LAST_TASKS),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}
