//! Why a file request failed: the system's error number and a text that names the path.

use std::fmt;
use std::io;

use crate::account::AccountError;

/// What [`FileReply::Failed`](sandbox_agent::protocol::files::FileReply::Failed) says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileError {
    /// The system's number.
    pub(super) errno: i32,
    /// Text for people: lower case, names the path.
    pub(super) message: String,
}

/// The result of a file operation.
pub(super) type Result<T, E = FileError> = std::result::Result<T, E>;

impl FileError {
    pub(super) fn new(errno: i32, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }

    /// An error about `path`: `{"path"} {message}`.
    pub(super) fn about(errno: i32, path: &[u8], message: &str) -> Self {
        Self::new(errno, format!("{} {message}", Quoted(path)))
    }

    /// The system's refusal to `action` the file `path`.
    pub(super) fn of(error: &io::Error, action: &str, path: &[u8]) -> Self {
        let errno = errno(error);
        let path = Quoted(path);
        Self::new(errno, format!("{action} {path}: {}", reason(errno, error)))
    }
}

impl From<AccountError> for FileError {
    fn from(error: AccountError) -> Self {
        let errno = match error {
            AccountError::Unknown(_) => libc::ENOENT,
            AccountError::Invalid(_) => libc::EINVAL,
        };
        Self::new(errno, error.to_string())
    }
}

/// Adds what was tried, and on which path, to an error of the system.
pub(super) trait Explain<T> {
    /// Says that `action` on `path` failed.
    fn explain(self, action: &str, path: &[u8]) -> Result<T>;
}

impl<T> Explain<T> for io::Result<T> {
    fn explain(self, action: &str, path: &[u8]) -> Result<T> {
        self.map_err(|error| FileError::of(&error, action, path))
    }
}

/// The system's number of `error`, `EIO` for one that is not the system's.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn reason(errno: i32, error: &io::Error) -> String {
    match errno {
        libc::EAGAIN => "a process of the sandbox holds a lease on it, try again later".into(),
        libc::ELOOP => {
            "too many symbolic links, or a link of /proc that leads to a process's own files".into()
        }
        libc::ETXTBSY => "the program is running, remove the file first to replace it".into(),
        _ => {
            let text = error.to_string();
            let text = text
                .split_once(" (os error")
                .map_or(text.as_str(), |(text, _)| text);
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_lowercase().chain(letters).collect()
            })
        }
    }
}

/// A path as text: quoted, escaped, and cut when it is long.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 256;
        let (shown, cut) = self
            .0
            .split_at_checked(SHOWN)
            .map_or((self.0, false), |(head, rest)| (head, !rest.is_empty()));
        match std::str::from_utf8(shown) {
            Ok(text) => write!(f, "{text:?}")?,
            Err(_) => write!(f, "\"{}\"", shown.escape_ascii())?,
        }
        if cut {
            write!(f, "... ({} bytes)", self.0.len())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_action_path_and_reason() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let error = FileError::of(&missing, "open", b"/a\nb");
        assert_eq!(
            error,
            FileError::new(libc::ENOENT, "open \"/a\\nb\": no such file or directory")
        );
        let error = FileError::of(&missing, "open", b"/\xff");
        assert_eq!(error.message, "open \"/\\xff\": no such file or directory");
    }

    #[test]
    fn long_paths_are_cut() {
        let error = FileError::about(libc::EINVAL, &[b'x'; 5000], "is long");
        assert!(error.message.len() < 300, "{}", error.message);
        assert!(error.message.ends_with("... (5000 bytes) is long"));
    }
}
