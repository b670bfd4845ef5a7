//! Limits how long a call may take to its first result.

use crate::{Around, Call, Kind, around_provider, around_sandbox};
use futures_util::{StreamExt, stream};
use sandbox_core::{Body, BoxStream, Error, ErrorKind, Layer, Result, Sandbox, SandboxProvider};
use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;

/// Gives up calls that have no result within a limit.
///
/// # Behavior
/// - The limit is for a call's first result: of a listing its first entry, of a spawn the process, of a read the opened
///   file. What follows, such as a process's output, may take as long as it takes.
/// - A write may take as long as it goes on: its limit starts anew with each piece of the body that is taken, and does
///   not run while the body itself is waited for. A body that is at hand is one piece.
/// - Writing to a process's standard input is not limited unless asked for, since it waits for the program.
/// - Limits are by tokio's clock, so that calls need its runtime.
///
/// # Errors
/// [`ErrorKind::Timeout`] that names the operation. Whether the call took effect is unknown.
///
/// # Order
/// Innermost: a retry around it gives each attempt its own time (what is late is made again only with
/// [`RetryLayer::timeouts`](crate::RetryLayer::timeouts)), and a limit on concurrency does not count the waiting.
///
/// # Cancel safety
/// A call that takes too long is dropped, as if its caller had dropped it. What that means the contract says of each call.
#[derive(Debug, Clone)]
pub struct TimeoutLayer {
    create: Option<Duration>,
    control: Option<Duration>,
    spawn: Option<Duration>,
    files: Option<Duration>,
    stdin: Option<Duration>,
}

impl TimeoutLayer {
    /// The same limit for each kind of call but [`Kind::Stdin`], which has none.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        let limit = Some(limit);
        Self {
            create: limit,
            control: limit,
            spawn: limit,
            files: limit,
            stdin: None,
        }
    }

    /// Sets the limit of one kind of call.
    #[must_use]
    pub fn limit(mut self, kind: Kind, limit: Duration) -> Self {
        *self.slot(kind) = Some(limit);
        self
    }

    /// Takes the limit off one kind of call.
    #[must_use]
    pub fn no_limit(mut self, kind: Kind) -> Self {
        *self.slot(kind) = None;
        self
    }

    fn slot(&mut self, kind: Kind) -> &mut Option<Duration> {
        match kind {
            Kind::Create => &mut self.create,
            Kind::Control => &mut self.control,
            Kind::Spawn => &mut self.spawn,
            Kind::Files => &mut self.files,
            Kind::Stdin => &mut self.stdin,
        }
    }

    fn of(&self, kind: Kind) -> Option<Duration> {
        *self.clone().slot(kind)
    }
}

impl Layer for TimeoutLayer {
    fn sandbox(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        around_sandbox(inner, self.clone())
    }

    fn provider(&self, inner: Arc<dyn SandboxProvider>) -> Arc<dyn SandboxProvider> {
        around_provider(inner, self.clone())
    }
}

impl Around for TimeoutLayer {
    async fn call<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let Some(limit) = self.of(call.kind) else {
            return run().await;
        };
        match tokio::time::timeout(limit, run()).await {
            Ok(result) => result,
            Err(_) => Err(late(limit, call)),
        }
    }

    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        mut open: impl FnMut() -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let mut results = open();
        let Some(limit) = self.of(call.kind) else {
            return results;
        };
        let late = late(limit, call);
        let first = async move {
            match tokio::time::timeout(limit, results.next()).await {
                Ok(None) => results,
                Ok(Some(first)) => stream::iter([first]).chain(results).boxed(),
                Err(_) => stream::iter([Err(late)]).boxed(),
            }
        };
        stream::once(first).flatten().boxed()
    }

    async fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        mut run: impl FnMut(Body) -> F + Send,
    ) -> Result<()> {
        let Some(limit) = self.of(call.kind) else {
            return run(body).await;
        };
        let (body, progress) = watched(body);
        let mut write = pin!(run(body));
        let mut left = limit;
        loop {
            match tokio::time::timeout(left, &mut write).await {
                Ok(result) => return result,
                Err(_) => left = progress.left(limit).ok_or_else(|| late(limit, call))?,
            }
        }
    }
}

fn late(limit: Duration, call: Call<'_>) -> Error {
    let message = format!("no answer within {limit:?}, whether it took effect is unknown");
    let error = Error::new(ErrorKind::Timeout, message).with_operation(call.operation);
    match call.sandbox {
        Some(sandbox) => error.with_context("sandbox", sandbox),
        None => error,
    }
}

/// How far a body has gone.
#[derive(Debug)]
struct Progress(Mutex<Piece>);

#[derive(Debug)]
enum Piece {
    /// It was taken then.
    Taken(Instant),
    /// It was asked for, and the body does not have it yet.
    Awaited,
}

impl Progress {
    /// What is left of `limit`; `None` if it is over.
    fn left(&self, limit: Duration) -> Option<Duration> {
        match *self.lock() {
            Piece::Awaited => Some(limit),
            Piece::Taken(at) => limit
                .checked_sub(at.elapsed())
                .filter(|left| !left.is_zero()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Piece> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same body, which tells how far it has gone. One that is at hand is one piece.
fn watched(body: Body) -> (Body, Arc<Progress>) {
    let begun = Mutex::new(Piece::Taken(Instant::now()));
    let progress = Arc::new(Progress(begun));
    if body.as_bytes().is_some() {
        return (body, progress);
    }
    let (size, mut pieces, told) = (body.size(), body.into_stream(), Arc::clone(&progress));
    let pieces = stream::poll_fn(move |context| {
        let polled = pieces.poll_next_unpin(context);
        *told.lock() = match polled {
            Poll::Pending => Piece::Awaited,
            Poll::Ready(_) => Piece::Taken(Instant::now()),
        };
        polled
    });
    (Body::stream(pieces.boxed(), size), progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Stage, operations};
    use sandbox_core::{
        CreateOptions, FilesExt, SandboxPath, WriteOptions,
        fake::{FakeProvider, Fault, Gate, Script},
        prelude::*,
    };

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn every_call_but_writing_to_a_process_has_its_limit() {
        let stage = Stage::new(TimeoutLayer::new(LIMIT)).await;
        for operation in operations() {
            stage.fake.fault(operation, Fault::Gate(Gate::new()));
            let before = Instant::now();
            // Twice the limit stands for ever.
            let ended = tokio::time::timeout(LIMIT * 2, stage.call(operation)).await;
            if operation == "process.write_stdin" {
                assert!(ended.is_err(), "{operation} is limited");
                continue;
            }
            let error = ended.expect(operation).expect_err(operation);
            assert_eq!(error.kind(), ErrorKind::Timeout, "{operation}");
            assert_eq!(error.operation(), Some(operation));
            assert_eq!(before.elapsed(), LIMIT, "{operation}");
            let named =
                !["create", "list", "templates.list", "templates.remove"].contains(&operation);
            assert_eq!(error.context("sandbox").is_some(), named, "{operation}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_time_pass_as_they_are() {
        let stage = Stage::new(TimeoutLayer::new(LIMIT)).await;
        for operation in operations() {
            stage.fake.fault(operation, Fault::Delay(LIMIT / 2));
            stage.call(operation).await.expect(operation);
        }
        assert_eq!(stage.fake.faults_left(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_its_own_limit() {
        let long = LIMIT * 5;
        let layer = TimeoutLayer::new(LIMIT)
            .limit(Kind::Files, long)
            .no_limit(Kind::Create);
        let stage = Stage::new(layer.limit(Kind::Stdin, LIMIT)).await;
        for (operation, delay, ends_well) in [
            ("files.read", long - LIMIT, true),
            ("files.read", long + LIMIT, false),
            ("create", long * 1000, true),
            ("info", LIMIT * 2, false),
            ("process.write_stdin", LIMIT * 2, false),
        ] {
            stage.fake.fault(operation, Fault::Delay(delay));
            let ended = stage.call(operation).await;
            assert_eq!(ended.is_ok(), ends_well, "{operation} after {delay:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_life_of_a_process_has_no_limit() {
        let fake = FakeProvider::new();
        fake.script(
            Script::any()
                .delay(LIMIT * 100)
                .stdout("late")
                .delay(LIMIT * 100)
                .exit(3),
        );
        let provider = fake.layer(TimeoutLayer::new(LIMIT));
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        let output = sandbox.exec(Command::new("x")).await.unwrap();
        assert_eq!(
            (output.stdout_text().as_str(), output.status.code()),
            ("late", 3)
        );
    }

    /// Writes a body whose pieces come after these pauses.
    async fn write(fake: &FakeProvider, pauses: &[Duration]) -> Result<()> {
        let provider = fake.clone().layer(TimeoutLayer::new(LIMIT));
        let sandbox = provider.create(CreateOptions::new()).await?;
        let pieces = stream::iter(pauses.to_vec()).then(|pause| async move {
            tokio::time::sleep(pause).await;
            Ok("piece".into())
        });
        let (path, body) = (
            SandboxPath::new("file")?,
            Body::stream(pieces.boxed(), None),
        );
        sandbox
            .files()
            .write(&path, body, WriteOptions::new())
            .await?;
        let written = sandbox.files().read_text("file").await?;
        assert_eq!(written, "piece".repeat(pauses.len()));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_takes_as_long_as_its_body() {
        let fake = FakeProvider::new();
        write(&fake, &[LIMIT / 2; 10]).await.unwrap();
        write(&fake, &[LIMIT * 3, Duration::ZERO, LIMIT * 7])
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_does_not_take_its_body_is_late() {
        let fake = FakeProvider::new();
        fake.fault("files.write", Fault::Gate(Gate::new()));
        let before = Instant::now();
        let error = write(&fake, &[Duration::ZERO; 3]).await.unwrap_err();
        assert_eq!(
            (error.kind(), before.elapsed()),
            (ErrorKind::Timeout, LIMIT)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_beyond_the_clock_is_no_limit() {
        let stage = Stage::new(TimeoutLayer::new(Duration::MAX)).await;
        for operation in operations() {
            stage.call(operation).await.expect(operation);
        }
    }
}
