//! What this program itself says: results on standard output, remarks and errors on standard error.

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use sandbox::{ErrorKind, Signal};
use serde::Serialize;
use std::{
    error::Error as StdError,
    fmt,
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime},
};

/// The style of headings and names.
pub(crate) const STRONG: Style = Style::new().bold();
/// The style of what matters less.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// The style of what is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// The style of what deserves a look.
pub(crate) const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
/// The style of errors.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// An end that needs no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody reads standard output any more.
    BrokenPipe,
    /// We were asked to end.
    Signal(Signal),
}

impl Stop {
    /// The exit code, as a shell would give it.
    fn code(self) -> u8 {
        let signal = match self {
            Self::BrokenPipe => 13,
            Self::Signal(signal) => signal.number(),
        };
        u8::try_from(128 + signal).unwrap_or(crate::FAILED)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenPipe => f.write_str("nobody reads standard output any more"),
            Self::Signal(signal) => write!(f, "stopped by signal {}", signal.number()),
        }
    }
}

impl StdError for Stop {}

/// Prints a result and a line feed.
pub(crate) fn print(text: impl fmt::Display) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(write_error)
}

/// Prints a result as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string_pretty(value).context("cannot write JSON")?)
}

/// An error of writing to standard output.
pub(crate) fn write_error(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Stop::BrokenPipe.into()
    } else {
        anyhow::Error::from(error).context("cannot write to standard output")
    }
}

/// Says something on standard error. That nobody hears it is no reason to stop.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{FAINT}sandbox:{FAINT:#} {text}");
}

/// Says something in passing on standard error.
pub(crate) fn faint(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{FAINT}{text}{FAINT:#}");
}

/// Says on standard error what went wrong.
pub(crate) fn error(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{BAD}error:{BAD:#} {text}");
}

/// Says on standard error what can be done about it.
pub(crate) fn hint(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{GOOD}hint:{GOOD:#} {text}");
}

/// Says something on standard error if a person is there to read it.
pub(crate) fn remark(text: impl fmt::Display) {
    if io::stderr().is_terminal() {
        note(text);
    }
}

/// Text that comes from a sandbox, without what could play tricks on a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let (plain, escaped) = if c.is_control() || is_unseen(c) {
                (None, Some(c.escape_default()))
            } else {
                (Some(c), None)
            };
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// Whether a character is not seen itself, but turns the order of others around, breaks the line, or tells apart names
/// that look the same.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// Prints why something failed and what can be done; the code to end with.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.code();
    }
    self::error(printable(&chain(error)));
    if let Some(text) = remedy(error) {
        hint(text);
    }
    crate::FAILED
}

/// An error and its causes in one line, without what was said before.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = match cause.downcast_ref::<sandbox::Error>() {
            Some(error) => spoken(error),
            None => cause.to_string(),
        };
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// An error of the contract for people: not in which call it came up, and nothing twice.
fn spoken(error: &sandbox::Error) -> String {
    const FACTS: [&str; 20] = [
        "id",
        "name",
        "template",
        "snapshot",
        "volume",
        "sandbox",
        "folder",
        "target",
        "path",
        "entry",
        "link",
        "to",
        "directory",
        "user",
        "program",
        "reference",
        "references",
        "digest",
        "process",
        "cause",
    ];
    let known = FACTS
        .iter()
        .filter_map(|key| Some((key, error.context(key)?)));
    let new: Vec<_> = known
        .filter(|(_, value)| !error.message().contains(value))
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    if new.is_empty() {
        error.message().to_owned()
    } else {
        format!("{} ({})", error.message(), new.join(", "))
    }
}

/// What to do about an error of the contract, where its kind says enough.
fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    let error = error
        .chain()
        .find_map(|error| error.downcast_ref::<sandbox::Error>())?;
    match error.kind() {
        ErrorKind::SandboxNotFound => {
            Some("it was ended, or its lifetime is over; `sandbox ls -a` shows those that live")
        }
        ErrorKind::PermissionDenied if !rustix::process::geteuid().is_root() => Some(
            "what is root's or another user's needs their rights; name a directory of your own by SANDBOX_STATE_DIR",
        ),
        ErrorKind::StorageFull => Some("`sandbox prune` and `sandbox kill` make room"),
        ErrorKind::QuotaExceeded if error.operation() == Some("import") => {
            Some("--max-size and --max-entries let more be imported")
        }
        ErrorKind::QuotaExceeded if matches!(error.operation(), Some("create" | "spawn")) => Some(
            "give the sandbox more with --memory or --processes, or end others with `sandbox kill`",
        ),
        ErrorKind::Unavailable | ErrorKind::Internal => {
            Some("`sandbox doctor` checks this machine; SANDBOX_LOG=debug shows more")
        }
        _ => None,
    }
}

/// The variable that asks for traces, as `debug` or `sandbox_local=trace`.
const LOG: &str = "SANDBOX_LOG";

/// Whether traces are asked for.
pub(crate) fn is_logging() -> bool {
    std::env::var_os(LOG).is_some()
}

/// Sends traces to standard error if they are asked for.
pub(crate) fn start_log() {
    if let Ok(filter) = std::env::var(LOG) {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .init();
    }
}

/// A time as people read it, to its largest unit or two: `3m`, `1h 30m`.
pub(crate) fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    let (large, unit, small, part) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3600 => (seconds / 60, "m", seconds % 60, "s"),
        3600..86400 => (seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => (seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    };
    // Nobody cares about the seconds of a quarter of an hour.
    if small == 0 || large >= 10 {
        format!("{large}{unit}")
    } else {
        format!("{large}{unit} {small}{part}")
    }
}

/// A moment as seen from `now`: `3m ago`, `in 1h 30m`.
pub(crate) fn relative(moment: SystemTime, now: SystemTime) -> String {
    match now.duration_since(moment) {
        Ok(past) if past < Duration::from_secs(1) => "now".to_owned(),
        Ok(past) => format!("{} ago", spell(past)),
        Err(future) => format!("in {}", spell(future.duration())),
    }
}

/// A moment for programs.
pub(crate) fn timestamp(moment: SystemTime) -> String {
    humantime::format_rfc3339_millis(moment).to_string()
}

/// A size in binary units, as `--memory` takes it.
pub(crate) fn binary(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_spelled_to_two_units_at_most() {
        let spell = |seconds| spell(Duration::from_secs(seconds));
        assert_eq!(spell(0), "0s");
        assert_eq!(spell(59), "59s");
        assert_eq!(spell(60), "1m");
        assert_eq!(spell(299), "4m 59s");
        assert_eq!(spell(901), "15m");
        assert_eq!(spell(5400), "1h 30m");
        assert_eq!(spell(90_000), "1d 1h");
    }

    #[test]
    fn what_plays_tricks_on_a_terminal_is_spelled_out() {
        assert_eq!(printable("a\u{1b}[2J\r\u{9b}b"), "a\\u{1b}[2J\\r\\u{9b}b");
        // Reads as `exe.txt` on a terminal that shows text from right to left.
        assert_eq!(printable("\u{202e}txt.exe"), "\\u{202e}txt.exe");
        assert_eq!(printable("a\u{200b}\u{2028}b"), "a\\u{200b}\\u{2028}b");
        for plain in ["ä 漢 שלום", "👩\u{200d}💻", "\\u{1b}"] {
            assert_eq!(printable(plain), plain);
        }
    }

    #[test]
    fn sizes_are_short_in_every_range() {
        let shown = [0, 1023, 1024, 1536, 5 << 20, u64::MAX].map(binary);
        assert_eq!(
            shown,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "5.0 MiB",
                "16777216.0 TiB"
            ]
        );
    }

    #[test]
    fn moments_are_seen_from_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |offset: i64| {
            if offset < 0 {
                now - Duration::from_secs(offset.unsigned_abs())
            } else {
                now + Duration::from_secs(offset.unsigned_abs())
            }
        };
        assert_eq!(relative(now, now), "now");
        assert_eq!(relative(at(-125), now), "2m 5s ago");
        assert_eq!(relative(at(3600), now), "in 1h");
    }

    #[test]
    fn stops_have_the_codes_of_a_shell() {
        assert_eq!(Stop::BrokenPipe.code(), 141);
        assert_eq!(Stop::Signal(Signal::INT).code(), 130);
        assert_eq!(Stop::Signal(Signal::TERM).code(), 143);
    }

    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::from_raw_os_error(13);
        let error = sandbox::Error::new(ErrorKind::Internal, "it failed")
            .with_context("cause", &cause)
            .with_source(cause);
        let text = chain(&anyhow::Error::from(error).context("cannot do it"));
        let cause = "Permission denied (os error 13)";
        assert_eq!(text, format!("cannot do it: it failed (cause: {cause})"));
        let error = sandbox::Error::new(
            ErrorKind::PermissionDenied,
            "open \"/x\": permission denied",
        )
        .with_operation("files.write")
        .with_context("errno", 13)
        .with_context("path", "/x")
        .with_context("user", "user");
        let text = chain(&error.into());
        assert_eq!(text, "open \"/x\": permission denied (user: user)");
        let plain = anyhow::anyhow!("inner").context("outer");
        assert_eq!(chain(&plain), "outer: inner");
    }

    #[test]
    fn errors_of_the_contract_come_with_a_hint_through_any_context() {
        let error = sandbox::Error::new(ErrorKind::StorageFull, "disk full");
        let error = anyhow::Error::from(error)
            .context("cannot copy")
            .context("more");
        assert!(remedy(&error).unwrap().contains("prune"));
        assert!(remedy(&anyhow::anyhow!("else")).is_none());
    }

    proptest! {
        #[test]
        fn any_time_is_spelled_in_few_letters(seconds in any::<u64>()) {
            let text = spell(Duration::from_secs(seconds));
            prop_assert!(text.len() < 20);
            prop_assert!(text.split(' ').count() <= 2);
        }
    }
}
