//! Makes calls again that have failed for reasons that pass, where that cannot do anything twice.

use crate::{Arguments, Around, Call, around_provider, around_sandbox};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::{StreamExt, stream};
use sandbox_core::{
    Body, BoxStream, Error, ErrorKind, Layer, Result, Retry, Sandbox, SandboxProvider,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Makes calls again that have failed and may succeed later.
///
/// # Behavior
/// - Only errors whose [`Error::retry`] says so are retried. The pause grows from attempt to attempt, with jitter; one
///   that the other side asks for by [`Retry::After`] is kept, and never shortened.
/// - [`ErrorKind::RateLimited`] says that nothing has happened, so that every call is made again after it.
/// - After any other error a call is made again only if doing it twice is the same as doing it once:
///
/// | Call | Again? |
/// |---|---|
/// | `info`, `list`, `templates.list`, `attach.processes`, `ports.preview_url` | yes, they only ask |
/// | `files.read`, `files.stat`, `files.list`, `files.glob` | yes, they only look |
/// | `connect`, `attach.attach`, `lifecycle.set_lifetime`, `pause.pause`, `pause.resume`, `process.resize` | yes, the second time finds what the first has done |
/// | `kill` | yes; its answer is then `false` if a first attempt had ended the sandbox after all |
/// | `files.write` | yes if its body is at hand, since it replaces the whole file; never after a stream has begun |
/// | `files.mkdir` | yes with `parents`; else a directory of the first attempt would be `AlreadyExists` |
/// | `files.set_permissions` | yes |
/// | `files.remove`, `files.rename`, `files.symlink` | no: after a first success the second finds another tree |
/// | `create`, `spawn`, `pty.spawn`, `snapshots.snapshot` | no: there would be two |
/// | `process.write_stdin`, `process.close_stdin`, `process.signal` | no: the program would see it twice |
///
/// - A listing is made again only before its first entry, and of a read only the opening; a process is not started again
///   whatever becomes of its events.
/// - One event of `tracing` for each retry, of level `DEBUG` and target `sandbox_layers::retry`: operation, sandbox, kind
///   of the error, number of the attempt, and pause in milliseconds. Never arguments or texts of errors.
/// - Pauses are by tokio's clock, so that calls need its runtime.
///
/// # Errors
/// That of the last attempt. If attempts or time were used up, it is [`Retry::Never`] and its context has `attempts`.
///
/// # Order
/// Outside of [`TimeoutLayer`](crate::TimeoutLayer), so that each attempt has its own time, and inside of a limit on
/// concurrency, whose permit is kept during the pauses: a provider that is overloaded is not asked by others meanwhile.
///
/// # Cancel safety
/// A call that is dropped is not made again. What the attempt under way has done the contract says of each call.
#[derive(Debug, Clone)]
pub struct RetryLayer {
    attempts: usize,
    first: Duration,
    longest: Duration,
    total: Duration,
    timeouts: bool,
}

impl Default for RetryLayer {
    /// Four attempts within a minute, with pauses from 200 milliseconds to 10 seconds; not after timeouts.
    fn default() -> Self {
        Self {
            attempts: 4,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
            total: Duration::from_secs(60),
            timeouts: false,
        }
    }
}

impl RetryLayer {
    /// As [`RetryLayer::default`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how often a call is made at most, the first time included.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the first and the longest pause; each is up to twice as long with jitter. [`Retry::After`] may ask for longer ones.
    #[must_use]
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest);
        self
    }

    /// Sets the time from the beginning of the first attempt after which no other one begins. One that is under way is
    /// not cut off.
    #[must_use]
    pub fn total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// Also makes calls again after [`ErrorKind::Timeout`], if doing them twice is the same as doing them once. By
    /// itself a timeout says [`Retry::Never`].
    #[must_use]
    pub fn timeouts(mut self) -> Self {
        self.timeouts = true;
        self
    }

    fn plan(&self, call: Call<'_>, repeatable: bool) -> Plan {
        let pauses = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_max_times(self.attempts.saturating_sub(1));
        Plan {
            pauses: pauses.build(),
            // Beyond the clock's end there is no end.
            end: Instant::now().checked_add(self.total),
            attempts: 1,
            timeouts: self.timeouts,
            idempotent: idempotent(call.arguments, call.operation),
            repeatable,
            operation: call.operation,
            sandbox: call.sandbox.map(ToString::to_string),
        }
    }
}

/// Whether doing it twice is the same as doing it once. What is not known is not.
fn idempotent(arguments: Arguments<'_>, operation: &str) -> bool {
    match arguments {
        Arguments::Connect(_)
        | Arguments::List(_)
        | Arguments::Attach(..)
        | Arguments::Lifetime(_)
        | Arguments::Port(_)
        | Arguments::Resize(_)
        | Arguments::Read(..)
        | Arguments::Write(..)
        | Arguments::Stat(..)
        | Arguments::ListFiles(..)
        | Arguments::Glob(..)
        | Arguments::SetPermissions(..) => true,
        Arguments::Mkdir(_, options) => options.parents == Some(true),
        Arguments::None => [
            "info",
            "kill",
            "templates.list",
            "attach.processes",
            "pause.pause",
            "pause.resume",
        ]
        .contains(&operation),
        _ => false,
    }
}

/// What is left of the attempts at one call.
struct Plan {
    pauses: ExponentialBackoff,
    end: Option<Instant>,
    attempts: u32,
    timeouts: bool,
    idempotent: bool,
    repeatable: bool,
    operation: &'static str,
    sandbox: Option<String>,
}

impl Plan {
    /// Waits for the next attempt, or says that the error is the last word.
    async fn wait(&mut self, error: Error) -> Result<()> {
        let Some(asked) = self.asked(&error) else {
            return Err(error);
        };
        let end = self.end;
        let pause = self.pauses.next().map(|pause| pause.max(asked));
        let in_time = |pause: &Duration| {
            let next = Instant::now().checked_add(*pause);
            next.is_some_and(|next| end.is_none_or(|end| next <= end))
        };
        let Some(pause) = pause.filter(in_time) else {
            let error = error.with_retry(Retry::Never);
            return Err(error.with_context("attempts", self.attempts));
        };
        tracing::debug!(
            operation = self.operation,
            sandbox = self.sandbox,
            error = %error.kind(),
            attempt = self.attempts,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "trying again"
        );
        tokio::time::sleep(pause).await;
        self.attempts += 1;
        Ok(())
    }

    /// The shortest pause that the error asks for; `None` if the call must not be made again.
    fn asked(&self, error: &Error) -> Option<Duration> {
        let untouched = error.kind() == ErrorKind::RateLimited;
        if !self.repeatable || !(self.idempotent || untouched) {
            return None;
        }
        match error.retry() {
            Retry::Backoff => Some(Duration::ZERO),
            Retry::After(pause) => Some(pause),
            _ if self.timeouts && error.kind() == ErrorKind::Timeout => Some(Duration::ZERO),
            _ => None,
        }
    }
}

impl Layer for RetryLayer {
    fn sandbox(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        around_sandbox(inner, self.clone())
    }

    fn provider(&self, inner: Arc<dyn SandboxProvider>) -> Arc<dyn SandboxProvider> {
        around_provider(inner, self.clone())
    }
}

impl Around for RetryLayer {
    async fn call<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let mut plan = self.plan(call, true);
        loop {
            match run().await {
                Ok(value) => return Ok(value),
                Err(error) => plan.wait(error).await?,
            }
        }
    }

    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        mut open: impl FnMut() -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let mut plan = self.plan(call, true);
        let begun = async move {
            loop {
                let mut results = open();
                match results.next().await {
                    None => return results,
                    Some(Ok(first)) => return stream::iter([Ok(first)]).chain(results).boxed(),
                    Some(Err(error)) => {
                        if let Err(error) = plan.wait(error).await {
                            return stream::iter([Err(error)]).chain(results).boxed();
                        }
                    }
                }
            }
        };
        stream::once(begun).flatten().boxed()
    }

    async fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        mut run: impl FnMut(Body) -> F + Send,
    ) -> Result<()> {
        match body.as_bytes().cloned() {
            Some(bytes) => self.call(call, || run(bytes.clone().into())).await,
            None => run(body).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Log, SECRET, Stage, operations};
    use async_trait::async_trait;
    use sandbox_core::{
        CreateOptions, FilesExt, MkdirOptions, SandboxPath, WriteOptions,
        fake::{FakeProvider, Fault, Gate},
        prelude::*,
    };

    /// Those that the table calls idempotent, as the stage calls them.
    const IDEMPOTENT: &[&str] = &[
        "attach.attach",
        "attach.processes",
        "connect",
        "files.glob",
        "files.list",
        "files.read",
        "files.set_permissions",
        "files.stat",
        "files.write",
        "info",
        "kill",
        "lifecycle.set_lifetime",
        "list",
        "pause.pause",
        "pause.resume",
        "ports.preview_url",
        "process.resize",
        "templates.list",
    ];

    fn fault(kind: ErrorKind) -> Fault {
        Fault::Error(kind, SECRET.into())
    }

    fn made(fake: &FakeProvider, operation: &str) -> usize {
        let calls = fake.calls();
        calls
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_had_an_effect_is_done_again_only_if_that_changes_nothing() {
        let stage = Stage::new(RetryLayer::new()).await;
        for operation in operations() {
            let before = made(&stage.fake, operation);
            stage.fake.fault(operation, fault(ErrorKind::Unavailable));
            let ended = stage.call(operation).await;
            let again = IDEMPOTENT.contains(&operation);
            assert_eq!(ended.is_ok(), again, "{operation}");
            let times = made(&stage.fake, operation) - before;
            assert_eq!(times, 1 + usize::from(again), "{operation}");
        }
        assert_eq!(stage.fake.faults_left(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_happened_is_done_again_always() {
        let stage = Stage::new(RetryLayer::new()).await;
        for operation in operations() {
            for _ in 0..3 {
                stage.fake.fault(operation, fault(ErrorKind::RateLimited));
            }
            stage.call(operation).await.expect(operation);
        }
        assert_eq!(stage.fake.faults_left(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_pass_is_not_tried_again() {
        let stage = Stage::new(RetryLayer::new()).await;
        for kind in [
            ErrorKind::Internal,
            ErrorKind::Timeout,
            ErrorKind::Unsupported,
        ] {
            let before = made(&stage.fake, "info");
            stage.fake.fault("info", fault(kind));
            let error = stage.call("info").await.unwrap_err();
            assert_eq!(error.context("attempts"), None, "{kind}");
            assert_eq!(made(&stage.fake, "info") - before, 1, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn timeouts_are_tried_again_on_request() {
        let stage = Stage::new(RetryLayer::new().timeouts()).await;
        stage.fake.fault("info", fault(ErrorKind::Timeout));
        stage.call("info").await.unwrap();
        stage.fake.fault("create", fault(ErrorKind::Timeout));
        stage.call("create").await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_the_last_error_says_so() {
        let stage = Stage::new(RetryLayer::new().attempts(3)).await;
        for _ in 0..4 {
            stage.fake.fault("info", fault(ErrorKind::Unavailable));
        }
        let error = stage.call("info").await.unwrap_err();
        assert_eq!(error.retry(), Retry::Never);
        assert_eq!(error.context("attempts"), Some("3"));
        assert_eq!(made(&stage.fake, "info"), 3);
        let once = Stage::new(RetryLayer::new().attempts(0)).await;
        once.fake.fault("info", fault(ErrorKind::Unavailable));
        once.call("info").await.unwrap_err();
        assert_eq!(made(&once.fake, "info"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_their_sum_is_bounded() {
        let (second, total) = (Duration::from_secs(1), Duration::from_secs(20));
        let layer = RetryLayer::new().attempts(100).total(total);
        let stage = Stage::new(layer.pauses(second, second * 4)).await;
        for _ in 0..100 {
            stage.fake.fault("info", fault(ErrorKind::Unavailable));
        }
        let before = Instant::now();
        stage.call("info").await.unwrap_err();
        assert!(before.elapsed() <= total, "{:?}", before.elapsed());
        // With jitter 1, 2, 4, 4 … become up to 2, 4, 8, 8 …
        let times = made(&stage.fake, "info");
        assert!((3..=8).contains(&times), "{times} attempts");
    }

    /// A provider whose `kill` asks for a minute's pause once.
    #[derive(Debug)]
    struct Later(std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl SandboxProvider for Later {
        fn name(&self) -> &'static str {
            "later"
        }
        fn capabilities(&self) -> sandbox_core::Capabilities {
            sandbox_core::Capabilities::new()
        }
        fn enforcement(&self, _: &CreateOptions) -> sandbox_core::EnforcementReport {
            sandbox_core::EnforcementReport::default()
        }
        async fn create(&self, _: CreateOptions) -> Result<Arc<dyn Sandbox>> {
            Err(Error::unsupported("create"))
        }
        async fn connect(
            &self,
            _: &sandbox_core::SandboxId,
            _: sandbox_core::ConnectOptions,
        ) -> Result<Arc<dyn Sandbox>> {
            Err(Error::unsupported("connect"))
        }
        fn sandbox(&self, id: &sandbox_core::SandboxId) -> Arc<dyn Sandbox> {
            FakeProvider::new().sandbox(id)
        }
        fn list(
            &self,
            _: sandbox_core::ListOptions,
        ) -> BoxStream<'static, Result<sandbox_core::SandboxInfo>> {
            stream::empty().boxed()
        }
        async fn kill(&self, _: &sandbox_core::SandboxId) -> Result<bool> {
            let before = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let busy = Error::new(ErrorKind::RateLimited, "busy");
            match before {
                0 => Err(busy.with_retry(Retry::After(Duration::from_secs(60)))),
                _ => Ok(true),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_asked_for_is_kept() {
        let minute = Duration::from_secs(60);
        let kill = async |layer: RetryLayer| {
            let provider = Later(Default::default()).layer(layer);
            let before = Instant::now();
            let killed = provider.kill(&"x".into()).await;
            (killed, before.elapsed())
        };
        let (killed, time) = kill(RetryLayer::new().total(minute * 2)).await;
        assert!(killed.unwrap());
        assert_eq!(time, minute);
        // One that would end too late is not begun.
        let (killed, time) = kill(RetryLayer::new().total(minute / 2)).await;
        assert_eq!(killed.unwrap_err().retry(), Retry::Never);
        assert_eq!(time, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_written_once_and_bytes_again() {
        let fake = FakeProvider::new();
        let provider = fake.clone().layer(RetryLayer::new());
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        fake.fault("files.write", fault(ErrorKind::RateLimited));
        let body = Body::stream(stream::iter([Ok("text".into())]).boxed(), None);
        let path = SandboxPath::new("file").unwrap();
        let options = WriteOptions::new();
        let written = sandbox.files().write(&path, body, options).await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::RateLimited);
        fake.fault("files.write", fault(ErrorKind::Unavailable));
        let files = sandbox.files();
        files.write_bytes("file", "text").await.unwrap();
        assert_eq!(files.read_text("file").await.unwrap(), "text");
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_made_again_only_where_it_may_exist() {
        let fake = FakeProvider::new();
        let provider = fake.clone().layer(RetryLayer::new());
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        let path = SandboxPath::new("directory").unwrap();
        for (parents, well) in [(true, true), (false, false)] {
            fake.fault("files.mkdir", fault(ErrorKind::Unavailable));
            let options = MkdirOptions::new().parents(parents);
            let made = sandbox.files().mkdir(&path, options).await;
            assert_eq!(made.is_ok(), well);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_beyond_the_clock_are_not_waited_for() {
        let longest = Duration::MAX;
        let layer = RetryLayer::new().pauses(longest, longest).total(longest);
        let stage = Stage::new(layer.attempts(usize::MAX)).await;
        stage.fake.fault("info", fault(ErrorKind::Unavailable));
        let error = stage.call("info").await.unwrap_err();
        assert_eq!(error.context("attempts"), Some("1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_is_not_made_again() {
        let stage = Stage::new(RetryLayer::new()).await;
        stage.fake.fault("info", fault(ErrorKind::Unavailable));
        stage.fake.fault("info", Fault::Gate(Gate::new()));
        let hour = Duration::from_secs(3600);
        let given_up = tokio::time::timeout(hour, stage.call("info")).await;
        assert!(given_up.is_err());
        tokio::time::sleep(hour).await;
        assert_eq!(made(&stage.fake, "info"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn each_retry_is_told_without_secrets() {
        let log = Log::default();
        let _listening = log.listen();
        let stage = Stage::new(RetryLayer::new()).await;
        for _ in 0..2 {
            stage
                .fake
                .fault("files.write", fault(ErrorKind::Unavailable));
        }
        stage.call("files.write").await.unwrap();
        let told = ["trying again", "files.write", "error=unavailable"];
        assert_eq!(log.count(&told), 2, "{}", log.text());
        assert!(log.count(&["attempt=2", "pause_ms="]) > 0, "{}", log.text());
        assert!(!log.text().contains(SECRET), "{}", log.text());
    }
}
