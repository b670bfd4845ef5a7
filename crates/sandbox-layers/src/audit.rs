//! Keeps a record of every call: who did what to which sandbox, how it ended, and how long it took.

mod arguments;
mod sink;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Log, SECRET, Stage, operations};
    use sandbox_core::{
        CreateOptions, ListOptions,
        fake::{FakeProvider, Fault, Gate, Script},
        prelude::*,
    };
    use std::sync::atomic::AtomicBool;

    fn audited() -> (MemorySink, AuditLayer) {
        let sink = MemorySink::new();
        (sink.clone(), AuditLayer::new(sink))
    }

    fn of(sink: &MemorySink, operation: &str) -> Vec<AuditRecord> {
        let mut records = sink.records();
        records.retain(|record| record.operation == operation);
        records
    }

    #[tokio::test]
    async fn every_call_has_one_record() {
        let (sink, layer) = audited();
        let stage = Stage::new(layer.actor("agent 7")).await;
        for operation in operations() {
            let before = of(&sink, operation).len();
            stage.call(operation).await.expect(operation);
            let records = of(&sink, operation);
            let exits = usize::from(operation.ends_with("spawn"));
            assert_eq!(records.len(), before + 1 + exits, "{operation}");
            let record = &records[before];
            assert_eq!(record.event, AuditEvent::End, "{operation}");
            assert_eq!(record.outcome.as_deref(), Some("ok"), "{operation}");
            assert_eq!(record.actor.as_deref(), Some("agent 7"));
            let named = !["list", "templates.list"].contains(&operation);
            assert_eq!(record.sandbox.is_some(), named, "{operation}");
            let process = operation.starts_with("process.") || operation.ends_with("spawn");
            let process = process || operation == "attach.attach";
            assert_eq!(record.process.is_some(), process, "{operation}");
        }
        let mut numbers: Vec<_> = sink.records().iter().map(|record| record.call).collect();
        numbers.dedup();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }

    #[tokio::test]
    async fn secrets_in_values_contents_and_command_lines_are_not_told() {
        let (sink, layer) = audited();
        let fake = FakeProvider::new();
        fake.script(Script::any().stdout(SECRET).exit(0));
        let provider = fake.clone().layer(layer);
        let options = CreateOptions::new().env_var("TOKEN", SECRET);
        let sandbox = provider
            .create(options.label("note", SECRET))
            .await
            .unwrap();
        let files = sandbox.files();
        files.write_bytes("file", SECRET).await.unwrap();
        files.read_text("file").await.unwrap();
        let command = Command::new("x").arg(SECRET).env("TOKEN", SECRET);
        sandbox.exec(command).await.unwrap();
        let script = Command::shell(SECRET).stdin(Stdin::Open);
        let process = sandbox.spawn(script).await.unwrap();
        process.control().write_stdin(SECRET.into()).await.unwrap();
        fake.fault("info", Fault::Error(ErrorKind::Internal, SECRET.into()));
        sandbox.info().await.unwrap_err();
        let text = serde_json::to_string(&sink.records()).unwrap();
        assert!(!text.contains(SECRET), "{text}");
        assert!(text.contains(r#""arguments":{"path":"file"}"#), "{text}");
        assert!(text.contains(r#""env":["TOKEN"]"#), "{text}");
        assert!(text.contains(r#""outcome":"internal error""#), "{text}");
    }

    #[tokio::test]
    async fn the_exit_of_a_process_is_recorded_with_its_call() {
        let (sink, layer) = audited();
        let fake = FakeProvider::new();
        fake.script(Script::any().exit(3));
        let provider = fake.layer(layer.command_lines());
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        sandbox.exec(Command::new("x").arg("y")).await.unwrap();
        let records = of(&sink, "spawn");
        let [end, exit] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!((end.event, exit.event), (AuditEvent::End, AuditEvent::Exit));
        assert_eq!(exit.outcome.as_deref(), Some("exit code 3"));
        assert_eq!((exit.call, &exit.process), (end.call, &end.process));
        assert_eq!(end.arguments["args"], serde_json::json!(["y"]));
    }

    #[tokio::test]
    async fn what_is_given_up_is_recorded_and_what_never_began_is_not() {
        let (sink, layer) = audited();
        let stage = Stage::new(layer).await;
        for operation in ["info", "list"] {
            stage.fake.fault(operation, Fault::Gate(Gate::new()));
            let second = std::time::Duration::from_millis(1);
            let given_up = tokio::time::timeout(second, stage.call(operation)).await;
            assert!(given_up.is_err());
            let records = of(&sink, operation);
            assert_eq!(records.len(), 1, "{operation}");
            assert_eq!(records[0].outcome.as_deref(), Some("dropped"));
        }
        drop(stage.provider.list(ListOptions::new()));
        assert_eq!(of(&sink, "list").len(), 1);
    }

    /// A sink that fails while the disk is full.
    #[derive(Debug, Clone, Default)]
    struct Full(Arc<AtomicBool>, MemorySink);

    impl AuditSink for Full {
        fn write(&self, record: &AuditRecord) -> io::Result<()> {
            if self.0.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.write(record)
        }
    }

    #[tokio::test]
    async fn a_record_that_is_lost_is_told_and_stops_nothing() {
        let log = Log::default();
        let _listening = log.listen();
        let sink = Full::default();
        let layer = AuditLayer::new(sink.clone());
        let stage = Stage::new(layer.clone()).await;
        sink.0.store(true, Ordering::Relaxed);
        for operation in operations() {
            stage.call(operation).await.expect(operation);
        }
        let lost = u64::try_from(operations().len() + 2).unwrap();
        assert_eq!(layer.lost(), lost, "two of the calls have an exit");
        assert_eq!(log.count(&["could not be written"]), operations().len() + 2);
        assert!(!log.text().contains(SECRET), "{}", log.text());
    }

    #[tokio::test]
    async fn where_records_are_required_nothing_happens_without_one() {
        let sink = Full::default();
        let stage = Stage::new(AuditLayer::new(sink.clone()).fail_closed()).await;
        let events = |operation| {
            let records = of(&sink.1, operation);
            records.iter().map(|it| it.event).collect::<Vec<_>>()
        };
        assert_eq!(events("create"), [AuditEvent::Begin, AuditEvent::End]);
        sink.0.store(true, Ordering::Relaxed);
        let before = stage.fake.calls().len();
        for operation in operations() {
            let error = stage.call(operation).await.expect_err(operation);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{operation}");
            assert_eq!(error.operation(), Some(operation));
        }
        assert_eq!(stage.fake.calls().len(), before, "nothing was called");
        sink.0.store(false, Ordering::Relaxed);
        stage.call("info").await.unwrap();
    }
}
