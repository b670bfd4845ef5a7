//! Names of hosts, and the patterns of rules that they are compared with.

use sandbox_core::{Error, ErrorKind, Result};
use std::{fmt, net::IpAddr, sync::Arc};

/// Longest name in bytes, without its last dot (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// Longest part of a name between two dots (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// The name of a host, in lower case and without the dot at its end. Names of other scripts are in their ASCII form
/// (`xn--…`), as in the protocols that carry them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidArgument` for what no resolver could be asked for, and for an address.
    pub fn new(name: &str) -> Result<Self> {
        let text = name.strip_suffix('.').unwrap_or(name);
        let refuse = |why: &str| {
            let shown: String = name.chars().take(LONGEST).collect();
            let message = format!("{shown:?} is no name of a host: {why}");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        };
        if text.is_empty() || text.len() > LONGEST {
            return refuse("names have 1 to 253 bytes");
        }
        if !text.is_ascii() {
            return refuse("write it in its ASCII form, which begins with xn--");
        }
        let is_label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(allowed)
        };
        if !text.split('.').all(is_label) {
            return refuse("its parts have 1 to 63 letters, digits, hyphens and underscores");
        }
        if is_address(text) {
            return refuse("an address is not a name");
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether some program would take it for an address: also `127.1`, `0x7f000001` and the like, which C libraries read.
fn is_address(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .or_else(|| last.strip_prefix("0X"))
            .is_some_and(is_hexadecimal);
    is_number || text.parse::<IpAddr>().is_ok()
}

/// One name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exact(Name),
    /// Without the `*`, with the dot.
    Below(String),
}

impl Pattern {
    /// Reads `name` or `*.name`.
    pub(crate) fn new(text: &str) -> Result<Self> {
        match text.strip_prefix("*.") {
            Some(parent) => Name::new(parent).map(|parent| Self::Below(format!(".{parent}"))),
            None => Name::new(text).map(Self::Exact),
        }
    }

    pub(crate) fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => name.0.len() > suffix.len() && name.0.ends_with(suffix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_compared_whatever_their_case_and_last_dot() {
        let name = Name::new("API.Example.com.").unwrap();
        assert_eq!(name.as_str(), "api.example.com");
        for pattern in [
            "api.example.com",
            "*.EXAMPLE.com",
            "*.com",
            "api.example.com.",
        ] {
            assert!(Pattern::new(pattern).unwrap().matches(&name), "{pattern}");
        }
        for pattern in [
            "*.api.example.com",
            "example.com",
            "*.ample.com",
            "pi.example.com",
        ] {
            assert!(!Pattern::new(pattern).unwrap().matches(&name), "{pattern}");
        }
        let parent = Name::new("example.com").unwrap();
        assert!(!Pattern::new("*.example.com").unwrap().matches(&parent));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.com", "a".repeat(64));
        let longer = ["a"; 128].join(".");
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "*",
            "*.",
            "*.*.a",
            "a.*",
            "a b",
            "a/b",
            "münchen.de",
            "a\0b",
            "a:80",
            "[::1]",
            "::1",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "1.2.3.4.",
            &long,
            &longer,
        ] {
            let error = Pattern::new(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_name_is_one_again(text in "[a-zA-Z0-9_.*-]{0,80}|\\PC{0,40}") {
            if let Ok(name) = Name::new(&text) {
                prop_assert_eq!(Name::new(name.as_str()).unwrap(), name.clone());
                let dotted = format!("{name}.");
                prop_assert_eq!(Name::new(&dotted).unwrap(), name);
            }
        }
    }
}
