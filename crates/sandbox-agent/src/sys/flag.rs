//! A flag that one process raises and another looks at, without either waiting or being woken.

#![expect(unsafe_code, reason = "eventfd(2)")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A flag, close-on-exec.
#[derive(Debug)]
pub(crate) struct Flag(File);

impl Flag {
    /// Makes a flag that is down.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        // SAFETY: the returned descriptor is new.
        let fd = unsafe { OwnedFd::from_raw_fd(super::check(libc::eventfd(0, flags))?) };
        Ok(Self(fd.into()))
    }

    /// Raises it.
    pub(crate) fn raise(&self) -> io::Result<()> {
        (&self.0).write_all(&1_u64.to_ne_bytes())
    }

    /// Whether it was raised since it was made, or since this was last asked.
    pub(crate) fn take(&self) -> bool {
        (&self.0).read_exact(&mut [0; 8]).is_ok()
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_up_only_once_raised() {
        let flag = Flag::new().unwrap();
        assert!(!flag.take());
        flag.raise().unwrap();
        flag.raise().unwrap();
        assert!(flag.take());
        assert!(!flag.take());
    }
}
