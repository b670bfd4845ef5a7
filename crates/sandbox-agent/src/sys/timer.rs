//! The clock of a sandbox's life, which goes on while the machine sleeps, and a timer on it.

#![expect(unsafe_code, reason = "timerfd_create(2) and clock_gettime(2)")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Time since the machine was started.
pub(crate) fn now() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a place for the result. The clock exists since Linux 2.6.39, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A descriptor that becomes readable at a point in time.
#[derive(Debug)]
pub(crate) struct Timer(File);

impl Timer {
    /// Makes a timer that never fires.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the returned descriptor is new.
        let fd = unsafe {
            let fd = super::check(libc::timerfd_create(libc::CLOCK_BOOTTIME, flags))?;
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(fd.into()))
    }

    /// Fires at `at`, on the clock of [`now`], at once if that is past; `None` is never.
    pub(crate) fn set(&self, at: Option<Duration>) -> io::Result<()> {
        // All zeros would mean never.
        let at = at
            .map(|at| at.max(Duration::from_nanos(1)))
            .unwrap_or_default();
        let value = libc::timespec {
            tv_sec: at.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: at.subsec_nanos().into(),
        };
        let interval = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = libc::itimerspec {
            it_interval: interval,
            it_value: value,
        };
        let fd = self.0.as_raw_fd();
        let flags = libc::TFD_TIMER_ABSTIME;
        // SAFETY: `spec` lives until the call returns, and the old setting is not asked for.
        super::check(unsafe {
            libc::timerfd_settime(fd, flags, &raw const spec, std::ptr::null_mut())
        })
        .map(drop)
    }

    /// Makes it unreadable again until it fires next.
    pub(crate) fn clear(&self) {
        // A timer that has not fired says so; there is nothing else to learn from it.
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
