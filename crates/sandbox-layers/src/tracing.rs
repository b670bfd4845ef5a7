//! A span for every call, which says what was called and how it ended, and never with what.

use crate::{Around, Call, around_provider, around_sandbox};
use futures_util::{StreamExt, stream};
use sandbox_core::{
    Body, BoxStream, Error, FileContents, Layer, Process, ProcessEvent, Result, Sandbox,
    SandboxProvider,
};
use std::sync::Arc;
use tracing::{Instrument, Span, debug, debug_span, field::Empty};

/// Opens a span named `sandbox` for each call, and ends it with an event.
///
/// # Behavior
/// - Fields of the span: `operation`; `sandbox` and `process`, their ids, where there is one; and once it has ended
///   `outcome`: `ok`, the kind of the error, or `dropped` if the caller gave it up.
/// - The span of a command is open until its last event: then `outcome` is its exit and `bytes` what it has said. That of
///   a read is open until the end of the contents, that of a listing until its last entry.
/// - One event at the end of each span repeats the outcome. Spans and events are of level `DEBUG` and target
///   `sandbox_layers::tracing`.
/// - Nothing else is told: no programs, arguments, variables, scripts, paths, labels, contents, output or texts of errors.
///
/// # Order
/// Outermost, so that it tells what the caller sees.
///
/// # Cancel safety
/// That of the call itself.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TracingLayer;

impl TracingLayer {
    /// Tells every call.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Layer for TracingLayer {
    fn sandbox(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        around_sandbox(inner, *self)
    }

    fn provider(&self, inner: Arc<dyn SandboxProvider>) -> Arc<dyn SandboxProvider> {
        around_provider(inner, *self)
    }
}

impl Around for TracingLayer {
    async fn call<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let told = Told::open(call);
        let result = told.inside(run()).await;
        told.result(&result);
        result
    }

    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        mut open: impl FnMut() -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        tell(Told::open(call), open(), |_, _| None)
    }

    async fn spawn<F: Future<Output = Result<Process>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<Process> {
        let told = Told::open(call);
        match told.inside(run()).await {
            Ok(process) => {
                told.span.record("process", process.id().as_str());
                let events = |events| tell(told, events, exit);
                Ok(process.map(events, |control| control))
            }
            Err(error) => Err(told.error(error)),
        }
    }

    async fn read<F: Future<Output = Result<FileContents>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<FileContents> {
        let told = Told::open(call);
        match told.inside(run()).await {
            Ok(contents) => {
                let size = contents.size();
                let pieces = tell(told, contents.into_stream(), |told, piece| {
                    told.bytes += piece.len() as u64;
                    None
                });
                Ok(FileContents::new(size, pieces))
            }
            Err(error) => Err(told.error(error)),
        }
    }

    async fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        mut run: impl FnMut(Body) -> F + Send,
    ) -> Result<()> {
        let told = Told::open(call);
        let result = told.inside(run(body)).await;
        told.result(&result);
        result
    }
}

/// An open span, and how it ends.
struct Told {
    span: Span,
    bytes: u64,
    ended: bool,
}

impl Told {
    fn open(call: Call<'_>) -> Self {
        let span = debug_span!(
            "sandbox",
            operation = call.operation,
            sandbox = call.sandbox.map(|id| id.as_str()),
            process = Empty,
            outcome = Empty,
            bytes = Empty,
        );
        if let Some(process) = call.process {
            span.record("process", process.as_str());
        }
        Self {
            span,
            bytes: 0,
            ended: false,
        }
    }

    fn inside<F: Future>(&self, run: F) -> impl Future<Output = F::Output> + use<F> {
        run.instrument(self.span.clone())
    }

    fn result<T>(self, result: &Result<T>) {
        match result {
            Ok(_) => self.end("ok"),
            Err(error) => self.end(&error.kind().to_string()),
        }
    }

    fn error(self, error: Error) -> Error {
        self.end(&error.kind().to_string());
        error
    }

    fn end(mut self, outcome: &str) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: &str) {
        self.ended = true;
        self.span.record("outcome", outcome);
        if self.bytes > 0 {
            self.span.record("bytes", self.bytes);
        }
        self.span.in_scope(|| debug!(outcome, "ended"));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.ended {
            self.tell("dropped");
        }
    }
}

/// The same results, polled inside the span, which ends with the last of them. `look` may name the outcome.
fn tell<T: Send + 'static>(
    told: Told,
    results: BoxStream<'static, Result<T>>,
    look: fn(&mut Told, &T) -> Option<String>,
) -> BoxStream<'static, Result<T>> {
    let next = move |(told, mut results): (Option<Told>, BoxStream<'static, Result<T>>)| async move {
        let Some(mut told) = told else {
            let result = results.next().await?;
            return Some((result, (None, results)));
        };
        let result = told.inside(results.next()).await;
        let outcome = match &result {
            None => Some("ok".to_owned()),
            Some(Err(error)) => Some(error.kind().to_string()),
            Some(Ok(value)) => look(&mut told, value),
        };
        let told = match outcome {
            Some(outcome) => {
                told.end(&outcome);
                None
            }
            None => Some(told),
        };
        Some((result?, (told, results)))
    };
    stream::unfold((Some(told), results), next).boxed()
}

/// Counts output, and names the exit.
fn exit(told: &mut Told, event: &ProcessEvent) -> Option<String> {
    match event {
        ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) | ProcessEvent::Pty(bytes) => {
            told.bytes += bytes.len() as u64;
            None
        }
        ProcessEvent::Exited(status) => Some(status.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Log, SECRET, Stage, operations};
    use sandbox_core::{
        CreateOptions, ErrorKind,
        fake::{FakeProvider, Fault, Gate, Script},
        prelude::*,
    };

    fn operation(name: &str) -> String {
        format!("operation=\"{name}\"")
    }

    #[tokio::test]
    async fn every_call_has_one_span_that_ends_and_holds_no_secret() {
        let log = Log::default();
        let _listening = log.listen();
        let stage = Stage::new(TracingLayer::new()).await;
        for name in operations() {
            let before = log.count(&[&operation(name), ": close"]);
            stage.call(name).await.expect(name);
            let after = log.count(&[&operation(name), ": close", "outcome="]);
            assert_eq!(after, before + 1, "{name}: {}", log.text());
        }
        let id = format!("sandbox=\"{}\"", stage.sandbox.id());
        for name in ["info", "files.read", "process.signal"] {
            assert!(
                log.count(&[&operation(name), &id, "outcome=\"ok\""]) > 0,
                "{name}"
            );
        }
        let process = format!("process=\"{}\"", stage.process);
        assert!(log.count(&[&operation("process.signal"), &process]) > 0);
        assert!(!log.text().contains(SECRET), "{}", log.text());
        assert!(!log.text().contains("TOKEN"), "{}", log.text());
    }

    #[tokio::test]
    async fn a_failure_is_told_by_its_kind_alone() {
        let log = Log::default();
        let _listening = log.listen();
        let stage = Stage::new(TracingLayer::new()).await;
        for name in operations() {
            let fault = Fault::Error(ErrorKind::RateLimited, SECRET.into());
            stage.fake.fault(name, fault);
            let error = stage.call(name).await.expect_err(name);
            assert_eq!(error.message(), SECRET, "{name}");
            let told = log.count(&[&operation(name), ": close", "outcome=\"rate limited\""]);
            assert_eq!(told, 1, "{name}: {}", log.text());
        }
        assert!(!log.text().contains(SECRET), "{}", log.text());
    }

    #[tokio::test]
    async fn the_span_of_a_command_ends_with_it() {
        let log = Log::default();
        let _listening = log.listen();
        let (fake, gate) = (FakeProvider::new(), Gate::new());
        fake.script(
            Script::any()
                .stdout("12345")
                .gate(&gate)
                .stderr("678")
                .exit(3),
        );
        let provider = fake.layer(TracingLayer::new());
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        let mut process = sandbox.spawn(Command::new("x")).await.unwrap();
        process.try_next().await.unwrap();
        process.try_next().await.unwrap();
        assert_eq!(
            log.count(&[&operation("spawn"), ": close"]),
            0,
            "{}",
            log.text()
        );
        gate.open();
        process.wait().await.unwrap();
        // The process itself is still there.
        let told = [
            &operation("spawn"),
            ": close",
            "outcome=\"exit code 3\"",
            "bytes=8",
            "process=\"1\"",
        ];
        assert_eq!(log.count(&told), 1, "{}", log.text());
        drop(process);
        assert_eq!(log.count(&[&operation("spawn"), ": close"]), 1);
    }

    #[tokio::test]
    async fn what_is_given_up_is_told_so() {
        let log = Log::default();
        let _listening = log.listen();
        let stage = Stage::new(TracingLayer::new()).await;
        drop(stage.sandbox.spawn(Command::new("wait")).await.unwrap());
        let told = [&operation("spawn"), ": close", "outcome=\"dropped\""];
        assert_eq!(log.count(&told), 1, "{}", log.text());
        stage.fake.fault("info", Fault::Gate(Gate::new()));
        let given_up =
            futures_util::future::select(stage.sandbox.info(), futures_util::future::ready(()));
        drop(given_up.await);
        let told = [&operation("info"), ": close", "outcome=\"dropped\""];
        assert_eq!(log.count(&told), 1, "{}", log.text());
    }
}
