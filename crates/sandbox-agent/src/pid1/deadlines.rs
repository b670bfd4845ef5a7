//! Points in time at which something is to be done, on one timer descriptor.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::sys::timer::{Timer, now};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The sandbox ends.
    Lifetime,
    /// This process is asked to end.
    Timeout(u64),
    /// This process is made to end.
    Grace(u64),
    /// Connections are taken again, after there were too many descriptors.
    Accept,
    /// `sudo` is served again, after that went wrong.
    Sudo,
    /// No process is kept ready for the next command any more.
    Reserve,
    /// The sandbox may have been idle for long enough.
    Idle,
    /// Commands that do not stop go on.
    Pause,
    /// What has not left by now keeps others from having the sandbox for themselves.
    Claim,
    /// What leaves the sandbox is refused again, after there were too many descriptors.
    Network,
}

/// The deadlines of one sandbox.
#[derive(Debug)]
pub(super) struct Deadlines {
    timer: Timer,
    set: BTreeSet<(Duration, Due)>,
    /// What is not due while time stands still for it, with the time that is left.
    held: Vec<(Duration, Due)>,
    armed: Option<Duration>,
}

impl Deadlines {
    /// Makes an empty set.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            timer: Timer::new()?,
            set: BTreeSet::new(),
            held: Vec::new(),
            armed: None,
        })
    }

    /// Adds a deadline, on the clock of [`now`].
    pub(super) fn add(&mut self, at: Duration, due: Due) {
        self.set.insert((at, due));
    }

    /// Takes back every deadline for `due`.
    pub(super) fn cancel(&mut self, due: Due) {
        self.set.retain(|(_, other)| *other != due);
        self.held.retain(|(_, other)| *other != due);
    }

    /// Lets time stand still for every deadline of these.
    pub(super) fn hold(&mut self, which: fn(Due) -> bool) {
        let now = now();
        let all = std::mem::take(&mut self.set).into_iter();
        let (held, rest) = all.partition(|(_, due)| which(*due));
        let held: BTreeSet<_> = held;
        self.set = rest;
        self.held.extend(
            held.into_iter()
                .map(|(at, due)| (at.saturating_sub(now), due)),
        );
    }

    /// Lets time go on for all that were held.
    pub(super) fn release(&mut self) {
        let now = now();
        for (left, due) in self.held.drain(..) {
            self.set.insert((now.saturating_add(left), due));
        }
    }

    /// When `due` is due.
    pub(super) fn when(&self, due: Due) -> Option<Duration> {
        self.set
            .iter()
            .find(|(_, other)| *other == due)
            .map(|(at, _)| *at)
    }

    /// Takes one deadline that has passed.
    pub(super) fn take_passed(&mut self) -> Option<Due> {
        let (at, _) = self.set.first()?;
        if *at > now() {
            return None;
        }
        self.set.pop_first().map(|(_, due)| due)
    }

    /// Makes the descriptor readable at the next deadline, and not before.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        let next = self.set.first().map(|(at, _)| *at);
        if next != self.armed {
            self.timer.set(next)?;
            self.armed = next;
        }
        Ok(())
    }

    /// The descriptor has become readable.
    pub(super) fn fired(&mut self) {
        self.timer.clear();
        self.armed = None;
    }
}

impl AsFd for Deadlines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// The point in time `milliseconds` from now; `None` if that is 0, which stands for never, or beyond all time.
pub(super) fn after(milliseconds: u64) -> Option<Duration> {
    if milliseconds == 0 {
        None
    } else {
        now().checked_add(Duration::from_millis(milliseconds))
    }
}

/// A duration in whole milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::epoll::{Epoll, Watch};

    #[test]
    fn deadlines_come_in_their_order() {
        let mut deadlines = Deadlines::new().unwrap();
        let start = now();
        deadlines.add(start + Duration::from_millis(2), Due::Grace(1));
        deadlines.add(start + Duration::from_millis(1), Due::Timeout(1));
        deadlines.add(start + Duration::from_secs(3600), Due::Lifetime);
        deadlines.add(start, Due::Timeout(2));
        deadlines.cancel(Due::Timeout(2));
        assert_eq!(
            deadlines.when(Due::Lifetime),
            Some(start + Duration::from_secs(3600))
        );

        let epoll = Epoll::new().unwrap();
        epoll.add(deadlines.as_fd(), 0, Watch::Readable).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            deadlines.arm().unwrap();
            epoll.wait(&mut Vec::new(), true).unwrap();
            deadlines.fired();
            seen.extend(std::iter::from_fn(|| deadlines.take_passed()));
        }
        assert_eq!(seen, [Due::Timeout(1), Due::Grace(1)]);
        assert!(now() >= start + Duration::from_millis(2));
    }

    #[test]
    fn what_is_held_is_not_due_and_keeps_the_time_that_is_left() {
        let mut deadlines = Deadlines::new().unwrap();
        deadlines.add(now(), Due::Timeout(1));
        deadlines.add(now() + Duration::from_secs(60), Due::Grace(2));
        deadlines.add(now(), Due::Accept);
        deadlines.add(now(), Due::Timeout(3));
        deadlines.hold(|due| matches!(due, Due::Timeout(_) | Due::Grace(_)));
        assert_eq!(deadlines.take_passed(), Some(Due::Accept));
        assert_eq!(deadlines.take_passed(), None);
        deadlines.cancel(Due::Timeout(3));
        deadlines.release();
        assert_eq!(deadlines.take_passed(), Some(Due::Timeout(1)));
        assert_eq!(deadlines.take_passed(), None);
        let left = deadlines.when(Due::Grace(2)).unwrap().saturating_sub(now());
        assert!(left > Duration::from_secs(50), "{left:?}");
    }

    #[test]
    fn zero_and_forever_are_never() {
        assert_eq!(after(0), None);
        assert!(after(1).unwrap() > now());
        assert!(after(u64::MAX).is_some_and(|at| at > Duration::from_secs(1 << 50)));
    }
}
