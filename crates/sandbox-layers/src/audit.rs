//! Keeps a record of every call: who did what to which sandbox, how it ended, and how long it took.

mod arguments;
mod sink;
#[cfg(test)]
mod tests;

pub use sink::{AuditEvent, AuditRecord, AuditSink, FileSink, MemorySink};

use crate::{Arguments, Around, Call, around_provider, around_sandbox};
use futures_util::{StreamExt, stream};
use sandbox_core::{
    Body, BoxStream, Error, ErrorKind, Layer, Process, ProcessEvent, Result, Sandbox,
    SandboxProvider,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use tokio::time::Instant;

/// Writes a record of every call to an [`AuditSink`].
///
/// # Behavior
/// - One record for each call, when it has its result or is given up: of a listing with its last entry, of a process when
///   it exists, of a read when the file is opened. One more when the exit of a process is seen by who started it.
/// - A listing that is never polled is no call.
/// - Arguments are told by names, paths, sizes and numbers. Never told: values of variables and labels, contents of files,
///   input, output, texts of errors. Arguments of commands and scripts are told with
///   [`AuditLayer::command_lines`] alone; programs, working directories, users and tags always.
/// - Texts are cut after 512 bytes, lists after 64 entries.
/// - A record that cannot be written is counted ([`AuditLayer::lost`]) and told by an event of `tracing`, of level
///   `ERROR` and target `sandbox_layers::audit`. With [`AuditLayer::fail_closed`] a call needs its record first.
/// - A handle by id, names and capabilities are no calls.
///
/// # Errors
/// [`ErrorKind::Unavailable`], before anything has happened, for a call whose record cannot be begun, where that is
/// asked for.
///
/// # Order
/// Outside of policy, so that what was denied is recorded, and inside of tracing.
///
/// # Cancel safety
/// That of the call itself, which is then recorded as `dropped`.
#[derive(Debug, Clone)]
pub struct AuditLayer {
    sink: Arc<dyn AuditSink>,
    actor: Option<String>,
    command_lines: bool,
    fail_closed: bool,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    lost: AtomicU64,
}

impl AuditLayer {
    /// Writes to `sink`.
    #[must_use]
    pub fn new(sink: impl AuditSink) -> Self {
        Self {
            sink: Arc::new(sink),
            actor: None,
            command_lines: false,
            fail_closed: false,
            counts: Arc::default(),
        }
    }

    /// Says in each record who it is that makes the calls.
    #[must_use]
    pub fn actor(mut self, actor: impl AsRef<str>) -> Self {
        self.actor = Some(arguments::text(actor.as_ref()));
        self
    }

    /// Also tells arguments of commands, and scripts. They may hold secrets.
    #[must_use]
    pub fn command_lines(mut self) -> Self {
        self.command_lines = true;
        self
    }

    /// Makes no call without a record: each has one more that is written before it, and is refused if that fails. What
    /// has been begun is never undone, even if its end cannot be recorded.
    #[must_use]
    pub fn fail_closed(mut self) -> Self {
        self.fail_closed = true;
        self
    }

    /// How many records could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// A call that has not begun.
    fn prepare(&self, call: Call<'_>) -> Kept {
        let record = AuditRecord {
            time: SystemTime::now(),
            event: AuditEvent::Begin,
            call: self.counts.calls.fetch_add(1, Ordering::Relaxed) + 1,
            actor: self.actor.clone(),
            operation: call.operation,
            sandbox: call.sandbox.map(|id| arguments::text(id.as_str())),
            process: call.process.map(|id| arguments::text(id.as_str())),
            arguments: arguments::told(call.arguments, self.command_lines),
            outcome: None,
            duration_ms: None,
        };
        Kept {
            layer: self.clone(),
            record,
            began: Instant::now(),
            open: false,
        }
    }

    fn write(&self, record: &AuditRecord) -> io::Result<()> {
        let written = self.sink.write(record);
        if let Err(error) = &written {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                operation = record.operation,
                call = record.call,
                %error,
                "an audit record could not be written"
            );
        }
        written
    }
}

/// The record of a call that is kept up to date, and written when the call ends, however it does.
struct Kept {
    layer: AuditLayer,
    record: AuditRecord,
    began: Instant,
    open: bool,
}

impl Kept {
    fn begin(mut self) -> Result<Self> {
        (self.record.time, self.began) = (SystemTime::now(), Instant::now());
        if self.layer.fail_closed {
            self.layer.write(&self.record).map_err(|error| {
                let message = "no audit record can be written, so the call was not made";
                Error::new(ErrorKind::Unavailable, message)
                    .with_operation(self.record.operation)
                    .with_source(error)
            })?;
        }
        self.open = true;
        Ok(self)
    }

    fn end<T>(mut self, result: Result<T>) -> Result<T> {
        self.tell(AuditEvent::End, outcome(&result));
        result
    }

    fn tell(&mut self, event: AuditEvent, outcome: String) {
        self.open = false;
        self.record.event = event;
        self.record.outcome = Some(outcome);
        let took = self.began.elapsed().as_millis();
        self.record.duration_ms = Some(u64::try_from(took).unwrap_or(u64::MAX));
        // It has been counted and told.
        let _written = self.layer.write(&self.record);
    }

    /// The exit of the process that the call has started.
    fn exit(mut self, status: String) {
        self.record.time = SystemTime::now();
        self.record.arguments.clear();
        self.tell(AuditEvent::Exit, status);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.open {
            self.tell(AuditEvent::End, "dropped".to_owned());
        }
    }
}

fn outcome<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.kind().to_string(),
    }
}

impl Layer for AuditLayer {
    fn sandbox(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        around_sandbox(inner, self.clone())
    }

    fn provider(&self, inner: Arc<dyn SandboxProvider>) -> Arc<dyn SandboxProvider> {
        around_provider(inner, self.clone())
    }
}

impl Around for AuditLayer {
    async fn call<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let kept = self.prepare(call).begin()?;
        let result = run().await;
        kept.end(result)
    }

    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        mut open: impl FnMut() -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let kept = self.prepare(call);
        let begun = async move {
            match kept.begin() {
                Ok(kept) => until_end(kept, open()),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        stream::once(begun).flatten().boxed()
    }

    async fn open<F: Future<Output = Result<Arc<dyn Sandbox>>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<Arc<dyn Sandbox>> {
        let mut kept = self.prepare(call).begin()?;
        let result = run().await;
        if let Ok(sandbox) = &result {
            kept.record.sandbox = Some(arguments::text(sandbox.id().as_str()));
        }
        kept.end(result)
    }

    async fn spawn<F: Future<Output = Result<Process>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<Process> {
        let mut kept = self.prepare(call).begin()?;
        let result = run().await;
        let Ok(process) = result else {
            return kept.end(result);
        };
        kept.record.process = Some(arguments::text(process.id().as_str()));
        kept.tell(AuditEvent::End, "ok".to_owned());
        if !matches!(call.arguments, Arguments::Spawn(..)) {
            return Ok(process);
        }
        let mut kept = Some(kept);
        let look = move |event: Result<ProcessEvent>| {
            let status = match &event {
                Ok(ProcessEvent::Exited(status)) => Some(status.to_string()),
                Ok(_) => None,
                Err(error) => Some(error.kind().to_string()),
            };
            if let Some((status, kept)) = status.and_then(|status| Some((status, kept.take()?))) {
                kept.exit(status);
            }
            event
        };
        Ok(process.map(|events| events.map(look).boxed(), |control| control))
    }

    async fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        mut run: impl FnMut(Body) -> F + Send,
    ) -> Result<()> {
        let kept = self.prepare(call).begin()?;
        let result = run(body).await;
        kept.end(result)
    }
}

/// The same results, with a record that is written at the end of them or at the first error.
fn until_end<T: Send + 'static>(
    kept: Kept,
    results: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    let next = |(kept, mut results): (Option<Kept>, BoxStream<'static, Result<T>>)| async move {
        let result = results.next().await;
        let kept = match (kept, &result) {
            (Some(mut kept), None) => {
                kept.tell(AuditEvent::End, "ok".to_owned());
                None
            }
            (Some(mut kept), Some(Err(error))) => {
                kept.tell(AuditEvent::End, error.kind().to_string());
                None
            }
            (kept, _) => kept,
        };
        Some((result?, (kept, results)))
    };
    stream::unfold((Some(kept), results), next).boxed()
}
