//! Times, percentiles and the table's rows.

use serde_json::{Value, json};
use std::{
    fmt, fs,
    time::{Duration, Instant},
};

/// Times of one side of a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Records the time since `start`.
    pub(crate) fn since(&mut self, start: Instant) {
        self.0.push(start.elapsed());
    }

    /// The median.
    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    fn to_json(&self) -> Value {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        json!({ "p50": ms(50), "p99": ms(99), "count": self.0.len() })
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted
            .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        write!(f, "{:.3} ms (p99 {:.3})", ms(50), ms(99))
    }
}

/// What a row should reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// Ours takes at most this many times as long.
    AtMost(f64),
    /// Ours is at least this many times faster.
    Faster(f64),
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(ratio) => write!(f, "at most {ratio}x"),
            Self::Faster(ratio) => write!(f, "{ratio}x faster"),
        }
    }
}

/// One comparison.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) against: &'static str,
    pub(crate) ours: Times,
    /// The times of the other side, or why it could not be had.
    pub(crate) theirs: Result<Times, String>,
    pub(crate) aim: Aim,
}

impl Row {
    pub(crate) const HEADER: &str = "what                                against                  ours p50      p99   theirs p50      p99    ratio  aim";

    /// Our median over theirs.
    pub(crate) fn ratio(&self) -> f64 {
        let theirs = self
            .theirs
            .as_ref()
            .map_or(0.0, |times| times.percentile(50).as_secs_f64());
        self.ours.percentile(50).as_secs_f64() / theirs
    }

    /// All that the table says, times in milliseconds.
    pub(crate) fn to_json(&self) -> Value {
        let (theirs, skipped) = match &self.theirs {
            Ok(theirs) => (theirs.to_json(), Value::Null),
            Err(why) => (Value::Null, why.as_str().into()),
        };
        json!({
            "what": self.what,
            "against": self.against,
            "ours": self.ours.to_json(),
            "theirs": theirs,
            "skipped": skipped,
            "ratio": self.theirs.is_ok().then(|| self.ratio()),
            "aim": self.aim.to_string(),
            "missed": self.is_missed(),
        })
    }

    pub(crate) fn is_missed(&self) -> bool {
        let ratio = self.ratio();
        self.theirs.is_ok()
            && match self.aim {
                Aim::AtMost(most) => ratio > most,
                Aim::Faster(least) => 1.0 / ratio < least,
            }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |times: &Times, percent| times.percentile(percent).as_secs_f64() * 1000.0;
        write!(
            f,
            "{:<36}{:<22}{:>8.3} ms {:>8.3}",
            self.what,
            self.against,
            ms(&self.ours, 50),
            ms(&self.ours, 99)
        )?;
        match &self.theirs {
            Ok(theirs) => {
                write!(
                    f,
                    " {:>9.3} ms {:>8.3} {:>7.2}x  {}",
                    ms(theirs, 50),
                    ms(theirs, 99),
                    self.ratio(),
                    self.aim
                )
            }
            Err(why) => write!(f, "  skipped: {why}"),
        }
    }
}

/// A figure that has no other side, and what it should be at most.
#[derive(Debug)]
pub(crate) struct Bound {
    what: &'static str,
    value: f64,
    most: f64,
}

impl Bound {
    pub(crate) fn new(what: &'static str, value: f64, most: f64) -> Self {
        Self { what, value, most }
    }

    pub(crate) fn is_missed(&self) -> bool {
        self.value > self.most
    }

    pub(crate) fn to_json(&self) -> Value {
        let Self { what, value, most } = self;
        json!({ "what": what, "value": value, "most": most, "missed": self.is_missed() })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, most } = self;
        write!(f, "{what}: {value:.2}, the aim is at most {most}")
    }
}

/// What about this machine flatters or spoils the figures.
pub(crate) fn machine() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut lines = vec![format!(
        "Linux {}, {cpus} processors",
        read("/proc/sys/kernel/osrelease").trim()
    )];
    let load: f64 = read("/proc/loadavg")
        .split(' ')
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or(0.0);
    if load > cpus as f64 * 0.75 {
        lines.push(format!(
            "noisy: the load average is {load}, other programs took part of the processors"
        ));
    }
    if read("/proc/self/mountinfo").contains("favordynmods") {
        lines.push("flattered: a cgroup hierarchy is mounted with favordynmods, which makes moves into groups fast".into());
    }
    lines
}
