//! One error type for the whole contract: a kind to branch on, a retry hint, and text for people.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// Result of every call of the contract.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The sandbox does not exist (any more). Make a new one.
    SandboxNotFound,
    /// A file, process, user, template or snapshot does not exist.
    NotFound,
    /// The thing to be made exists already.
    AlreadyExists,
    /// The request makes no sense, whatever the state.
    InvalidArgument,
    /// The request makes no sense in the present state.
    InvalidState,
    /// The credentials are missing or wrong.
    Unauthenticated,
    /// The credentials, or the sandbox's user, may not do this.
    PermissionDenied,
    /// A policy of the caller's own side forbids it.
    PolicyDenied,
    /// A limit on sandboxes, processes or memory is reached.
    QuotaExceeded,
    /// The disk of the sandbox or of the provider is full.
    StorageFull,
    /// Too many requests. Nothing has happened.
    RateLimited,
    /// No answer within the request's time. Whether it took effect is unknown.
    Timeout,
    /// The provider cannot be reached or cannot serve now.
    Unavailable,
    /// This provider cannot do that. Nothing has happened.
    Unsupported,
    /// The other side broke the protocol.
    Protocol,
    /// A bug or an unexpected failure of the provider.
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SandboxNotFound => "sandbox not found",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::InvalidArgument => "invalid argument",
            Self::InvalidState => "invalid state",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission denied",
            Self::PolicyDenied => "denied by policy",
            Self::QuotaExceeded => "quota exceeded",
            Self::StorageFull => "storage full",
            Self::RateLimited => "rate limited",
            Self::Timeout => "timed out",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::Protocol => "protocol error",
            Self::Internal => "internal error",
        })
    }
}

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// Not without a change.
    Never,
    /// Perhaps, after a growing pause.
    Backoff,
    /// After this long, says the other side.
    After(Duration),
}

/// Why a call failed.
///
/// `Display` prints one line that fits "failed to {error}": the operation, the message and the context.
/// Sources are left to [`StdError::source`].
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    retry: Retry,
    provider: Option<&'static str>,
    operation: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error. `message` is lower case, without a full stop, and says what to do if anything can be done.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry = match kind {
            ErrorKind::RateLimited | ErrorKind::Unavailable => Retry::Backoff,
            _ => Retry::Never,
        };
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            retry,
            provider: None,
            operation: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// The provider lacks `what`, and nothing has happened.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("{what} is not supported by this provider"),
        )
    }

    /// The request is wrong whatever the state.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// What to branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The message without operation, context and sources.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Which provider said so.
    #[must_use]
    pub fn provider(&self) -> Option<&'static str> {
        self.0.provider
    }

    /// Which call of the contract failed: a method of the provider or the sandbox (`create`, `spawn`), or the accessor and
    /// the method of a capability (`files.read`, `pty.spawn`, `lifecycle.set_lifetime`); of a process `process.signal`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// A value that was recorded with [`Error::with_context`].
    #[must_use]
    pub fn context(&self, key: &str) -> Option<&str> {
        self.0
            .context
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Replaces the retry hint.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Names the provider.
    #[must_use]
    pub fn with_provider(mut self, provider: &'static str) -> Self {
        self.0.provider = Some(provider);
        self
    }

    /// Names the call, unless an inner one has already been named.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Records a value that helps to understand the error. Never a secret.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Records the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operation) = self.0.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.0.message)?;
        for (index, (key, value)) in self.0.context.iter().enumerate() {
            let open = if index == 0 { " (" } else { ", " };
            write!(f, "{open}{key}: {value}")?;
        }
        if self.0.context.is_empty() {
            Ok(())
        } else {
            f.write_str(")")
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("retry", &self.0.retry)
            .field("provider", &self.0.provider)
            .field("operation", &self.0.operation)
            .field("context", &self.0.context)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_operation_message_and_context() {
        let error = Error::new(ErrorKind::NotFound, "file does not exist")
            .with_operation("files.read")
            .with_context("path", "/a b")
            .with_context("user", "root");
        assert_eq!(
            error.to_string(),
            "files.read: file does not exist (path: /a b, user: root)"
        );
        assert_eq!(error.context("user"), Some("root"));
    }

    #[test]
    fn the_innermost_operation_is_kept() {
        let error = Error::unsupported("pty")
            .with_operation("pty.spawn")
            .with_operation("exec");
        assert_eq!(error.operation(), Some("pty.spawn"));
    }

    #[test]
    fn only_passing_failures_are_retried_by_default() {
        assert_eq!(
            Error::new(ErrorKind::Unavailable, "x").retry(),
            Retry::Backoff
        );
        assert_eq!(Error::new(ErrorKind::Timeout, "x").retry(), Retry::Never);
    }
}
