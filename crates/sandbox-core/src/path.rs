//! Paths inside a sandbox. They are bytes, as on Linux, and never touch the host's file system.

use crate::{Error, Result};
use std::fmt;

/// A path inside a sandbox.
///
/// # Behavior
/// - Any bytes but NUL, 1 to 4,095 of them: the kernel's `PATH_MAX` with its terminator.
/// - A relative path starts at the home directory of the call's user.
/// - `.` and `..` are left to the sandbox, which resolves them with its own links.
/// - Providers that speak JSON refuse paths that are not UTF-8 as `InvalidArgument`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxPath(Box<[u8]>);

impl SandboxPath {
    /// Longest path, in bytes.
    pub const MAX: usize = 4095;

    /// Checks and wraps a path.
    ///
    /// # Errors
    /// `InvalidArgument` if it is empty, too long, or holds a NUL byte.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = path.as_ref();
        if bytes.is_empty() {
            return Err(Error::invalid("a path must not be empty"));
        }
        if bytes.len() > Self::MAX {
            let message = format!(
                "a path must not be longer than {} bytes, this one has {}",
                Self::MAX,
                bytes.len()
            );
            return Err(Error::invalid(message));
        }
        if bytes.contains(&0) {
            return Err(Error::invalid("a path must not hold a NUL byte")
                .with_context("path", bytes.escape_ascii()));
        }
        Ok(Self(bytes.into()))
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether it starts at the root.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.0.first() == Some(&b'/')
    }

    /// `path` as seen from `self`; an absolute `path` stands for itself.
    ///
    /// # Errors
    /// `InvalidArgument` if the result is no path.
    pub fn join(&self, path: impl AsRef<[u8]>) -> Result<Self> {
        let path = path.as_ref();
        if path.first() == Some(&b'/') {
            return Self::new(path);
        }
        let mut joined = self.0.to_vec();
        if joined.last() != Some(&b'/') {
            joined.push(b'/');
        }
        joined.extend_from_slice(path);
        Self::new(joined)
    }

    /// The last component, unless the path ends in `/` or `..`.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        let name = self.0.rsplit(|byte| *byte == b'/').next()?;
        (!matches!(name, b"" | b"." | b"..")).then_some(name)
    }
}

impl fmt::Display for SandboxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for SandboxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl TryFrom<&str> for SandboxPath {
    type Error = Error;
    fn try_from(path: &str) -> Result<Self> {
        Self::new(path)
    }
}

impl TryFrom<String> for SandboxPath {
    type Error = Error;
    fn try_from(path: String) -> Result<Self> {
        Self::new(path)
    }
}

impl TryFrom<&[u8]> for SandboxPath {
    type Error = Error;
    fn try_from(path: &[u8]) -> Result<Self> {
        Self::new(path)
    }
}

impl TryFrom<&Self> for SandboxPath {
    type Error = Error;
    fn try_from(path: &Self) -> Result<Self> {
        Ok(path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_the_kernel_would_refuse() {
        assert!(SandboxPath::new("").is_err());
        assert!(SandboxPath::new("a\0b").is_err());
        assert!(SandboxPath::new(vec![b'a'; 4096]).is_err());
        assert!(SandboxPath::new(vec![b'a'; 4095]).is_ok());
    }

    #[test]
    fn file_name_is_the_last_component() {
        let name = |path: &str| {
            SandboxPath::new(path)
                .unwrap()
                .file_name()
                .map(<[u8]>::to_vec)
        };
        assert_eq!(name("/a/b"), Some(b"b".to_vec()));
        assert_eq!(name("b"), Some(b"b".to_vec()));
        assert_eq!(name("/a/"), None);
        assert_eq!(name("/.."), None);
    }

    proptest! {
        #[test]
        fn any_accepted_path_keeps_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            match SandboxPath::new(&bytes) {
                Ok(path) => prop_assert_eq!(path.as_bytes(), &bytes[..]),
                Err(_) => prop_assert!(bytes.is_empty() || bytes.len() > SandboxPath::MAX || bytes.contains(&0)),
            }
        }

        #[test]
        fn joining_keeps_the_tail(base in "/[a-z/]{0,20}", tail in "[^/\0][^\0]{0,20}") {
            let joined = SandboxPath::new(&base).unwrap().join(&tail).unwrap();
            prop_assert!(joined.as_bytes().ends_with(tail.as_bytes()));
            prop_assert!(joined.as_bytes().starts_with(base.as_bytes()));
        }
    }
}
