//! Makes calls again that have failed for reasons that pass, where that cannot do anything twice.

#[cfg(test)]
mod tests;

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
/// | `info`, `list`, `templates.list`, `attach.processes`, `previews.url`, `network.policy`, `metrics.usage` | yes, they only ask |
/// | `files.read`, `files.stat`, `files.list`, `files.glob`, `watch.watch` | yes, they only look |
/// | `connect`, `attach.attach`, `lifecycle.set_lifetime`, `pause.pause`, `pause.resume`, `process.resize` | yes, the second time finds what the first has done |
/// | `ports.connect` | yes; a first connection that was made after all is closed without a byte |
/// | `kill`, `templates.remove` | yes; its answer is then `false` if a first attempt had done it after all |
/// | `files.write` | yes if its body is at hand, since it replaces the whole file; never after a stream has begun |
/// | `files.mkdir` | yes with `parents`; else a directory of the first attempt would be `AlreadyExists` |
/// | `files.set_permissions` | yes |
/// | `files.remove`, `files.rename`, `files.symlink` | no: after a first success the second finds another tree |
/// | `create`, `spawn`, `pty.spawn`, `snapshots.snapshot` | no: there would be two |
/// | `process.write_stdin`, `process.close_stdin`, `process.signal` | no: the program would see it twice |
///
/// - A listing is made again only before its first entry, and of a read or a watch only the opening; a process is not started again
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
        | Arguments::Network(..)
        | Arguments::NetworkEvents(_)
        | Arguments::Template(_)
        | Arguments::Resize(_)
        | Arguments::Read(..)
        | Arguments::Write(..)
        | Arguments::Stat(..)
        | Arguments::ListFiles(..)
        | Arguments::Glob(..)
        | Arguments::Watch(..)
        | Arguments::SetPermissions(..) => true,
        Arguments::Mkdir(_, options) => options.parents == Some(true),
        Arguments::None => [
            "info",
            "kill",
            "templates.list",
            "attach.processes",
            "pause.pause",
            "pause.resume",
            "network.policy",
            "metrics.usage",
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
