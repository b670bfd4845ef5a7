//! The signals by which this program is asked to end.

use sandbox::Signal;
use std::{fs, io, sync::LazyLock};
use tokio::signal::unix::{self, SignalKind};

/// The signals that were ignored when this program started, a bit each: by `nohup`, or by a script's shell for what it
/// runs in the background. Whoever did that wants them to stay ignored.
static IGNORED: LazyLock<u64> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status)
});

fn ignored(status: &str) -> u64 {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Waits for a request to end. As long as one exists, such a signal no longer ends this program by itself.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Source,
    terminate: Source,
    hang_up: Source,
    quit: Source,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: Source::new(Signal::INT)?,
            terminate: Source::new(Signal::TERM)?,
            hang_up: Source::new(Signal::HUP)?,
            quit: Source::new(Signal::QUIT)?,
        })
    }

    /// The next request. No signal is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            () = self.interrupt.next() => Signal::INT,
            () = self.terminate.next() => Signal::TERM,
            () = self.hang_up.next() => Signal::HUP,
            () = self.quit.next() => Signal::QUIT,
        }
    }
}

/// One signal; `None` if it is ignored.
#[derive(Debug)]
struct Source(Option<unix::Signal>);

impl Source {
    fn new(signal: Signal) -> io::Result<Self> {
        let bit = 1 << (signal.number() - 1);
        if *IGNORED & bit != 0 {
            return Ok(Self(None));
        }
        let kind = SignalKind::from_raw(signal.number());
        Ok(Self(Some(unix::signal(kind)?)))
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_are_read_from_the_process_status() {
        assert_eq!(ignored("SigBlk:\t1\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }
}
