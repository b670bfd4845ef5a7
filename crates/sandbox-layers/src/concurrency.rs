//! Bounds how many calls are under way at a time, and how many processes.

#[cfg(test)]
mod tests;

use crate::{Around, Call, Kind, around_provider, around_sandbox};
use futures_util::{StreamExt, stream};
use sandbox_core::{
    Body, BoxStream, Bytes, Error, ErrorKind, Layer, Process, ProcessEvent, Result, Sandbox,
    SandboxId, SandboxProvider,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    /// Set while the body of a write is asked for its next piece.
    static WITHIN: ();
}

/// Bounds calls and processes at a time, for the provider as a whole and for each sandbox.
///
/// # Behavior
/// - Nothing is bounded unless it is set. What is beyond a bound waits its turn, first come first served. A bound of 0
///   counts as 1.
/// - How long a call counts:
///
/// | Call | Counts |
/// |---|---|
/// | those with one result | until it is there |
/// | listings | until their first entry, from when they are first polled |
/// | `files.read` | until the file is opened, not while its contents are read |
/// | `files.write` | until it is written, its body included |
/// | `spawn`, `pty.spawn` | as a call until the process exists; as a process until its last event, or until it is dropped |
/// | `attach.attach` | as a call until the process is found |
/// | `kill`, `pause.resume`, and writing to a process, signals and all else that its controls do | not at all |
///
/// - Calls that the body of a write makes when it is asked for its next piece belong to that write, and do not count.
/// - A bound for a sandbox is for all handles to it that come through this layer. What is about no sandbox, or about one
///   that is named to the provider (`connect`), counts for the provider alone.
/// - A process that is dropped is detached: it may run on, and no longer counts.
///
/// So no caller that waits for a call holds another one, and what ends something is never held up by what it would end:
/// calls cannot wait for each other in a circle. Processes are held by their readers, so a caller that starts
/// another before it has read the first to its end needs a bound of at least two; [`ConcurrencyLayer::patience`]
/// makes an error of waiting too long.
///
/// # Errors
/// [`ErrorKind::RateLimited`], before anything has happened, for what waits for longer than the patience.
///
/// # Order
/// Inside of policy, so that nothing waits that is then denied, and outside of a retry and a time limit, which count
/// from when it is a call's turn.
///
/// # Cancel safety
/// A call that is dropped while it waits has not happened, and loses its turn.
#[derive(Debug, Clone)]
pub struct ConcurrencyLayer {
    bounds: Bounds,
    provider: Arc<Turns>,
    sandboxes: Arc<Mutex<HashMap<SandboxId, Weak<Turns>>>>,
}

/// What was set.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    calls: Option<usize>,
    processes: Option<usize>,
    sandbox_calls: Option<usize>,
    sandbox_processes: Option<usize>,
    patience: Option<Duration>,
}

/// The turns of the provider, or of one sandbox.
#[derive(Debug)]
struct Turns {
    calls: Option<Arc<Semaphore>>,
    processes: Option<Arc<Semaphore>>,
}

impl Turns {
    fn new(calls: Option<usize>, processes: Option<usize>) -> Self {
        let semaphore =
            |most: usize| Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            calls: calls.map(semaphore),
            processes: processes.map(semaphore),
        }
    }
}

impl Default for ConcurrencyLayer {
    fn default() -> Self {
        Self::of(Bounds::default())
    }
}

impl ConcurrencyLayer {
    /// Bounds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many calls may be under way at a time.
    #[must_use]
    pub fn calls(self, most: usize) -> Self {
        let calls = Some(most);
        Self::of(Bounds {
            calls,
            ..self.bounds
        })
    }

    /// Sets how many calls may be under way at a time to one sandbox.
    #[must_use]
    pub fn calls_per_sandbox(self, most: usize) -> Self {
        let sandbox_calls = Some(most);
        Self::of(Bounds {
            sandbox_calls,
            ..self.bounds
        })
    }

    /// Sets how many processes may be followed at a time by those who have started them.
    #[must_use]
    pub fn processes(self, most: usize) -> Self {
        let processes = Some(most);
        Self::of(Bounds {
            processes,
            ..self.bounds
        })
    }

    /// Sets how many processes of one sandbox may be followed at a time by those who have started them.
    #[must_use]
    pub fn processes_per_sandbox(self, most: usize) -> Self {
        let sandbox_processes = Some(most);
        Self::of(Bounds {
            sandbox_processes,
            ..self.bounds
        })
    }

    /// Sets how long a call may wait for its turn; without limit unless set. The start of a process has two turns, one
    /// as a process and one as a call, and may wait so long for each.
    #[must_use]
    pub fn patience(self, longest: Duration) -> Self {
        let patience = Some(longest);
        Self::of(Bounds {
            patience,
            ..self.bounds
        })
    }

    /// A layer that has been around nothing yet.
    fn of(bounds: Bounds) -> Self {
        Self {
            bounds,
            provider: Arc::new(Turns::new(bounds.calls, bounds.processes)),
            sandboxes: Arc::default(),
        }
    }

    /// The turns of a sandbox, the same ones for all who hold a handle to it.
    fn turns(&self, id: &SandboxId) -> Arc<Turns> {
        let mut sandboxes = self
            .sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = sandboxes.get(id).and_then(Weak::upgrade) {
            return turns;
        }
        sandboxes.retain(|_, turns| turns.strong_count() > 0);
        let Bounds {
            sandbox_calls,
            sandbox_processes,
            ..
        } = self.bounds;
        let turns = Arc::new(Turns::new(sandbox_calls, sandbox_processes));
        sandboxes.insert(id.clone(), Arc::downgrade(&turns));
        turns
    }
}

impl Layer for ConcurrencyLayer {
    fn sandbox(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        let own = Some(self.turns(inner.id()));
        let provider = Arc::clone(&self.provider);
        let patience = self.bounds.patience;
        around_sandbox(
            inner,
            Bounded {
                own,
                provider,
                patience,
            },
        )
    }

    fn provider(&self, inner: Arc<dyn SandboxProvider>) -> Arc<dyn SandboxProvider> {
        let provider = Arc::clone(&self.provider);
        let patience = self.bounds.patience;
        around_provider(
            inner,
            Bounded {
                own: None,
                provider,
                patience,
            },
        )
    }
}

/// What goes around the provider, or around one sandbox.
#[derive(Debug, Clone)]
struct Bounded {
    own: Option<Arc<Turns>>,
    provider: Arc<Turns>,
    patience: Option<Duration>,
}

/// Turns that have come. Dropping them lets others go on.
type Held = Vec<OwnedSemaphorePermit>;

impl Bounded {
    /// Waits for the turn of a call. One place for the order: sandbox before provider, so that a crowded sandbox does
    /// not hold up the others.
    async fn call_turn(&self, call: Call<'_>) -> Result<Held> {
        // What ends or wakes something, or goes to a process that runs, must not wait for what may wait for it.
        if ["kill", "pause.resume"].contains(&call.operation) || call.process.is_some() {
            return Ok(Held::new());
        }
        self.wait(call, |turns| turns.calls.as_ref()).await
    }

    /// Waits for the turn of a process. Taken before the call's, and by all, so that nobody waits in a circle.
    async fn process_turn(&self, call: Call<'_>) -> Result<Held> {
        if call.operation == "attach.attach" {
            return Ok(Held::new());
        }
        self.wait(call, |turns| turns.processes.as_ref()).await
    }

    async fn wait(
        &self,
        call: Call<'_>,
        which: fn(&Turns) -> Option<&Arc<Semaphore>>,
    ) -> Result<Held> {
        if WITHIN.try_with(|()| ()).is_ok() {
            return Ok(Held::new());
        }
        let all = async {
            let mut held = Held::new();
            for turns in self.own.iter().chain([&self.provider]) {
                let Some(semaphore) = which(turns) else {
                    continue;
                };
                // Nobody closes it, so that this cannot fail.
                held.extend(Arc::clone(semaphore).acquire_owned().await.ok());
            }
            held
        };
        match self.patience {
            None => Ok(all.await),
            Some(longest) => tokio::time::timeout(longest, all)
                .await
                .map_err(|_| crowded(longest, call)),
        }
    }
}

fn crowded(longest: Duration, call: Call<'_>) -> Error {
    let what = match call.kind {
        Kind::Spawn => "calls or processes",
        _ => "calls",
    };
    let message = format!("as many {what} as allowed were under way for {longest:?}");
    let error = Error::new(ErrorKind::RateLimited, message).with_operation(call.operation);
    match call.sandbox {
        Some(sandbox) => error.with_context("sandbox", sandbox),
        None => error,
    }
}

impl Around for Bounded {
    async fn call<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let _held = self.call_turn(call).await?;
        run().await
    }

    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        mut open: impl FnMut() -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let (bounded, sandbox) = (self.clone(), call.sandbox.cloned());
        let (kind, operation) = (call.kind, call.operation);
        let begun = async move {
            let call = Call {
                sandbox: sandbox.as_ref(),
                ..Call::new(kind, operation)
            };
            let held = match bounded.call_turn(call).await {
                Ok(held) => held,
                Err(error) => return stream::iter([Err(error)]).boxed(),
            };
            let mut results = open();
            let first = results.next().await;
            drop(held);
            stream::iter(first).chain(results).boxed()
        };
        stream::once(begun).flatten().boxed()
    }

    async fn spawn<F: Future<Output = Result<Process>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<Process> {
        let process_held = self.process_turn(call).await?;
        let _held = self.call_turn(call).await?;
        let process = run().await?;
        let events = |events| until_exit(process_held, events);
        Ok(process.map(events, |control| control))
    }

    async fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        mut run: impl FnMut(Body) -> F + Send,
    ) -> Result<()> {
        let _held = self.call_turn(call).await?;
        run(within(body)).await
    }
}

/// The same body, whose own calls belong to the write. One that is at hand makes none.
fn within(body: Body) -> Body {
    if body.as_bytes().is_some() {
        return body;
    }
    let (size, mut pieces) = (body.size(), body.into_stream());
    let pieces = stream::poll_fn(move |context| {
        WITHIN.sync_scope((), || -> std::task::Poll<Option<Result<Bytes>>> {
            pieces.poll_next_unpin(context)
        })
    });
    Body::stream(pieces.boxed(), size)
}

/// The same events, with what is held until the last of them.
fn until_exit(
    mut held: Held,
    events: BoxStream<'static, Result<ProcessEvent>>,
) -> BoxStream<'static, Result<ProcessEvent>> {
    if held.is_empty() {
        return events;
    }
    let look = move |event: Result<ProcessEvent>| {
        if matches!(event, Ok(ProcessEvent::Exited(_)) | Err(_)) {
            held.clear();
        }
        event
    };
    events.map(look).boxed()
}
