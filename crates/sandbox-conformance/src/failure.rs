//! How a case ends early, and the assertions that make it end so. Assertions are facts with a text, never panics.

use sandbox_core::{Error, ErrorKind};
use std::{error::Error as _, fmt, panic::Location};

/// What a case returns.
pub(crate) type Result<T = (), E = Stop> = std::result::Result<T, E>;

/// Why a case did not reach its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The provider does not behave.
    Failed(String),
    /// The provider lacks what the case is about.
    Ignored(String),
}

impl Stop {
    /// A failure at the caller's line.
    #[track_caller]
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        let place = Location::caller();
        Self::Failed(format!("{message}\n  at {}:{}", place.file(), place.line()))
    }
}

impl From<Error> for Stop {
    /// `?` on a call that should have worked.
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::failed(format_args!("unexpected error: {}", described(&error)))
    }
}

/// An error with its kind and its causes.
pub(crate) fn described(error: &Error) -> String {
    let mut text = format!("{error} [{:?}]", error.kind());
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  caused by: {error}"));
        cause = error.source();
    }
    text
}

/// Bytes as a person can read them: escaped, and cut where they are long.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 300;
    match bytes.split_at_checked(SHOWN) {
        Some((head, rest)) if !rest.is_empty() => {
            format!("\"{}\"... ({} bytes)", head.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Takes the error out of a call that must fail with `kind`.
#[track_caller]
pub(crate) fn refused<T>(
    result: sandbox_core::Result<T>,
    kind: ErrorKind,
    what: impl fmt::Display,
) -> Result {
    refused_as(result, &[kind], what)
}

/// As [`refused`], where the contract allows several kinds.
#[track_caller]
pub(crate) fn refused_as<T>(
    result: sandbox_core::Result<T>,
    kinds: &[ErrorKind],
    what: impl fmt::Display,
) -> Result {
    match result {
        Err(error) if kinds.contains(&error.kind()) => Ok(()),
        Err(error) => {
            let error = described(&error);
            Err(Stop::failed(format_args!(
                "{what}: should fail with {kinds:?}, but: {error}"
            )))
        }
        Ok(_) => Err(Stop::failed(format_args!(
            "{what}: should fail with {kinds:?}, but succeeded"
        ))),
    }
}

/// Checks a fact.
#[track_caller]
pub(crate) fn ensure(fact: bool, otherwise: impl fmt::Display) -> Result {
    if fact {
        Ok(())
    } else {
        Err(Stop::failed(otherwise))
    }
}

/// Checks that two values are the same.
#[track_caller]
pub(crate) fn same<T: fmt::Debug + PartialEq<U>, U: fmt::Debug>(
    found: T,
    expected: U,
    what: impl fmt::Display,
) -> Result {
    if found == expected {
        return Ok(());
    }
    let message = format!("{what}\n  expected: {expected:?}\n     found: {found:?}");
    Err(Stop::failed(message))
}

/// Checks that bytes are the same; prints them readably if not.
#[track_caller]
pub(crate) fn same_bytes(
    found: impl AsRef<[u8]>,
    expected: impl AsRef<[u8]>,
    what: impl fmt::Display,
) -> Result {
    let (found, expected) = (found.as_ref(), expected.as_ref());
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (shown(found), shown(expected));
    Err(Stop::failed(format_args!(
        "{what}\n  expected: {expected}\n     found: {found}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(line: &mut u32) -> Result {
        let error = Error::new(ErrorKind::Internal, "outer").with_source("inner");
        *line = line!() + 1;
        Err(error)?;
        Ok(())
    }

    #[test]
    fn a_failure_names_the_line_of_the_case_and_the_causes() {
        let mut line = 0;
        let Err(Stop::Failed(message)) = fails(&mut line) else {
            panic!("must fail")
        };
        assert!(message.contains("outer [Internal]"), "{message}");
        assert!(message.contains("caused by: inner"), "{message}");
        let place = format!("failure.rs:{line}");
        assert!(message.ends_with(&place), "{message}");
    }

    #[test]
    fn long_bytes_are_cut() {
        assert_eq!(shown(b"a\n"), r#""a\n""#);
        let text = shown(&[b'x'; 1000]);
        assert!(
            text.len() < 400 && text.ends_with("... (1000 bytes)"),
            "{text}"
        );
    }

    #[test]
    fn only_the_expected_kinds_count_as_refused() {
        let error = || Err::<(), _>(Error::new(ErrorKind::NotFound, "x"));
        assert!(refused(error(), ErrorKind::NotFound, "a").is_ok());
        assert!(refused(error(), ErrorKind::Internal, "a").is_err());
        assert!(refused(Ok(()), ErrorKind::NotFound, "a").is_err());
    }
}
