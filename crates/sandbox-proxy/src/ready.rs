//! Waits until a server in a sandbox is ready.

mod log;
mod probe;

use log::Log;
use sandbox_core::{Error, ErrorKind, Process, ProcessEvent, Result, Sandbox};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// By what a server is known to be ready.
///
/// # Examples
/// ```no_run
/// # async fn start(sandbox: &dyn sandbox_core::Sandbox) -> sandbox_core::Result<()> {
/// use sandbox_core::Command;
/// use sandbox_proxy::Ready;
/// use std::time::Duration;
///
/// let mut server = sandbox.spawn(Command::shell("python3 -m http.server 8000")).await?;
/// let ready = Ready::http(8000).path("/health").status(200);
/// ready.wait(sandbox, &mut server, Duration::from_secs(10)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Ready(What);

#[derive(Clone)]
enum What {
    Port(u16),
    Http(Http),
    Line(Matches),
}

/// An answer that is waited for.
#[derive(Debug, Clone)]
struct Http {
    port: u16,
    path: String,
    /// Any of 200 to 399 if `None`.
    status: Option<u16>,
}

/// A line of output that is waited for.
#[derive(Clone)]
enum Matches {
    Holds(String),
    Is(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl Ready {
    /// Somebody listens on `port`.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self(What::Port(port))
    }

    /// The server on `port` answers `GET /` with a status from 200 to 399.
    #[must_use]
    pub fn http(port: u16) -> Self {
        let (path, status) = ("/".to_owned(), None);
        Self(What::Http(Http { port, path, status }))
    }

    /// It is asked for this path, with a query if there is one. Without [`Ready::http`] it changes nothing.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        if let What::Http(http) = &mut self.0 {
            http.path = path.into();
        }
        self
    }

    /// It must answer with this status and no other. Without [`Ready::http`] it changes nothing.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        if let What::Http(http) = &mut self.0 {
            http.status = Some(status);
        }
        self
    }

    /// The process has said `text`, within a line.
    #[must_use]
    pub fn log(text: impl Into<String>) -> Self {
        Self(What::Line(Matches::Holds(text.into())))
    }

    /// The process has said a line for which `matches` is true.
    #[must_use]
    pub fn log_line(matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(What::Line(Matches::Is(Arc::new(matches))))
    }

    /// Waits until it is so.
    ///
    /// # Behavior
    /// - Returns as soon as it is so, and fails as soon as the process ends.
    /// - The process's output until then is read here, so that the program does not wait for a reader; who needs all of it
    ///   [attaches](sandbox_core::Attach) a second one. The last of it is in the error's context as `log`, up to 4 KiB.
    /// - Lines that are looked for come from either stream or from the terminal.
    ///
    /// # Errors
    /// [`InvalidState`](ErrorKind::InvalidState) if the process ends, with its `exit`;
    /// [`Timeout`](ErrorKind::Timeout) after `limit`, with what was `seen` last;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the path is none;
    /// what connections to the port, and the process's events, fail with for another reason than that nobody listens yet.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves the process as it is. Output that was read is not given again.
    pub async fn wait(
        &self,
        sandbox: &dyn Sandbox,
        process: &mut Process,
        limit: Duration,
    ) -> Result<()> {
        let mut log = Log::default();
        let seen = Seen::default();
        let waited = tokio::select! {
            // What it says last counts more than that its time is over.
            biased;
            said = self.listen(process, &mut log) => said,
            found = self.probe(sandbox, &seen) => found,
            () = tokio::time::sleep(limit) => {
                let message = format!("it was not ready within {limit:?}");
                let error = Error::new(ErrorKind::Timeout, message);
                Err(error.with_context("seen", seen.text()))
            }
        };
        waited.map_err(|error| {
            let error = error.with_operation("ready");
            match log.tail() {
                tail if tail.is_empty() => error,
                tail => error.with_context("log", tail),
            }
        })
    }

    /// Follows the process until it says the line, or ends.
    async fn listen(&self, process: &mut Process, log: &mut Log) -> Result<()> {
        loop {
            let (stream, bytes) = match process.try_next().await? {
                Some(ProcessEvent::Stdout(bytes)) => (0, bytes),
                Some(ProcessEvent::Stderr(bytes)) => (1, bytes),
                Some(ProcessEvent::Pty(bytes)) => (2, bytes),
                Some(ProcessEvent::Exited(_)) | None => return Err(ended(process)),
                Some(_) => continue,
            };
            let found = match &self.0 {
                What::Line(matches) => log.push(stream, &bytes, |line| matches.hit(line)),
                _ => log.push(stream, &bytes, |_| false),
            };
            if found {
                return Ok(());
            }
        }
    }

    /// Asks the server until it answers. For a line it never does.
    async fn probe(&self, sandbox: &dyn Sandbox, seen: &Seen) -> Result<()> {
        match &self.0 {
            What::Port(port) => probe::port(sandbox, *port, seen).await,
            What::Http(http) => probe::http(sandbox, http, seen).await,
            What::Line(_) => {
                seen.set("no such line");
                std::future::pending().await
            }
        }
    }
}

fn ended(process: &Process) -> Error {
    let error = Error::new(
        ErrorKind::InvalidState,
        "the process ended before it was ready",
    );
    match process.exit() {
        Some(exit) => error.with_context("exit", exit),
        None => error,
    }
}

/// What was found last.
#[derive(Debug, Default)]
struct Seen(Mutex<String>);

impl Seen {
    fn set(&self, text: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    fn text(&self) -> String {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}

impl Matches {
    fn hit(&self, line: log::Line<'_>) -> bool {
        match self {
            Self::Holds(text) => line.text.contains(text.as_str()),
            // A judgement on half a line may be wrong.
            Self::Is(matches) => line.whole && matches(&line.text),
        }
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => f.debug_tuple("Port").field(port).finish(),
            Self::Http(http) => http.fmt(f),
            Self::Line(Matches::Holds(text)) => f.debug_tuple("Line").field(text).finish(),
            Self::Line(Matches::Is(_)) => f.debug_tuple("Line").finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
mod tests;
