//! Waiting for many descriptors at once.

#![expect(unsafe_code, reason = "epoll(7)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// When a watched descriptor is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Whenever it can be read.
    Readable,
    /// Once each time that it becomes readable or writable.
    Edges,
    /// When its other end is closed.
    HangUp,
    /// Once each time that the kernel's file is said to have changed.
    Changes,
}

/// A descriptor to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// What [`Epoll::add`] was given.
    pub(crate) token: u64,
    /// There is something to read, or the end.
    pub(crate) readable: bool,
    /// Something may be written, or writing now fails.
    pub(crate) writable: bool,
    /// The other end is closed.
    pub(crate) hung_up: bool,
}

/// A set of watched descriptors.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// Makes an empty set.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the returned descriptor is new.
        let fd = unsafe {
            OwnedFd::from_raw_fd(super::check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?)
        };
        Ok(Self(fd))
    }

    /// Watches `fd` until it is removed or its last copy is closed.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64, watch: Watch) -> io::Result<()> {
        let events = match watch {
            Watch::Readable => libc::EPOLLIN,
            Watch::Edges => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
            Watch::HangUp => 0,
            Watch::Changes => libc::EPOLLPRI | libc::EPOLLET,
        };
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: token,
        };
        self.control(libc::EPOLL_CTL_ADD, fd, &raw mut event)
    }

    /// Watches `fd` no longer.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut())
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        event: *mut libc::epoll_event,
    ) -> io::Result<()> {
        let set = self.0.as_fd().as_raw_fd();
        // SAFETY: both descriptors are open, and `event` is null only for the operation that ignores it.
        super::check(unsafe { libc::epoll_ctl(set, operation, fd.as_raw_fd(), event) }).map(drop)
    }

    /// Puts what is ready into `ready`, in the order in which it became so. Waits for it if `wait`.
    pub(crate) fn wait(&self, ready: &mut Vec<Ready>, wait: bool) -> io::Result<()> {
        const BATCH: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let timeout = if wait { -1 } else { 0 };
        ready.clear();
        // SAFETY: `events` has room for as many events as are asked for.
        let count = super::check(unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 64, timeout)
        });
        let count = match count {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            count => usize::try_from(count?).unwrap_or(0),
        };
        ready.extend(events.iter().take(count).map(|event| {
            let has = |flags: libc::c_int| event.events & flags.cast_unsigned() != 0;
            let hung_up = has(libc::EPOLLHUP | libc::EPOLLERR);
            Ready {
                token: event.u64,
                readable: has(libc::EPOLLIN | libc::EPOLLRDHUP) || hung_up,
                writable: has(libc::EPOLLOUT) || hung_up,
                hung_up,
            }
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn readiness_and_hang_up_are_told_apart() {
        let epoll = Epoll::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        epoll.add(reader.as_fd(), 7, Watch::Edges).unwrap();
        let mut ready = Vec::new();
        epoll.wait(&mut ready, false).unwrap();
        assert!(ready.is_empty());

        writer.write_all(b"x").unwrap();
        epoll.wait(&mut ready, true).unwrap();
        assert_eq!(ready.len(), 1);
        assert_eq!(
            (ready[0].token, ready[0].readable, ready[0].hung_up),
            (7, true, false)
        );
        epoll.wait(&mut ready, false).unwrap();
        assert!(ready.is_empty(), "an edge is reported once");

        drop(writer);
        epoll.wait(&mut ready, true).unwrap();
        assert!(ready[0].hung_up);
        epoll.remove(reader.as_fd()).unwrap();
        epoll.wait(&mut ready, false).unwrap();
        assert!(ready.is_empty());
    }
}
