//! Where records go: lines of JSON in a file, or memory.

use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditEvent {
    /// A call is about to be made. Only where no call may go without a record.
    Begin,
    /// A call has ended.
    End,
    /// A process has ended, as seen by who started it.
    Exit,
}

/// One thing that was done. Each text in it is of bounded length.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// When the call began; of an exit, when it was seen.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// What the record is about.
    pub event: AuditEvent,
    /// The number of the call, the same in all records about it, counted by the layer from 1.
    pub call: u64,
    /// Who made it, as the layer was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Its name, as [`Error::operation`](sandbox_core::Error::operation) has it.
    pub operation: &'static str,
    /// The sandbox it was about, or that it has made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The process it was about, or that it has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// What it was made with, as far as that is told.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    /// `ok`, the kind of the error, `dropped` if the caller gave it up, or how a process ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Keeps records.
pub trait AuditSink: fmt::Debug + Send + Sync + 'static {
    /// Keeps a record before it returns, or fails. It is called from the tasks that make calls, and must not wait for
    /// long.
    ///
    /// # Errors
    /// Why the record is not kept.
    fn write(&self, record: &AuditRecord) -> io::Result<()>;
}

impl<S: AuditSink + ?Sized> AuditSink for Arc<S> {
    fn write(&self, record: &AuditRecord) -> io::Result<()> {
        (**self).write(record)
    }
}

/// Keeps records in memory, for tests. Clones are the same memory.
#[derive(Debug, Clone, Default)]
pub struct MemorySink(Arc<Mutex<Vec<AuditRecord>>>);

impl MemorySink {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All records so far, in order.
    #[must_use]
    pub fn records(&self) -> Vec<AuditRecord> {
        lock(&self.0).clone()
    }
}

impl AuditSink for MemorySink {
    fn write(&self, record: &AuditRecord) -> io::Result<()> {
        lock(&self.0).push(record.clone());
        Ok(())
    }
}

/// Appends records to a file, one line of JSON each.
///
/// # Behavior
/// - A file that it makes is for its owner alone (mode 0600); one that exists keeps its mode.
/// - A line is written at once, so that programs which append to the same file do not mix their lines, and nothing is kept
///   back in memory. It is in the hands of the system then; [`FileSink::synced`] waits for the disk.
/// - No line is longer than [`FileSink::MAX_LINE`] bytes: one that would be leaves its arguments out, and says so.
#[derive(Debug)]
pub struct FileSink {
    state: Mutex<State>,
    synced: bool,
}

#[derive(Debug)]
struct State {
    file: File,
    /// The last line was cut off, by a full disk for example.
    torn: bool,
}

impl FileSink {
    /// Longest line, its end included.
    pub const MAX_LINE: usize = 16 * 1024;

    /// Opens a file, or makes it.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self::to(options.open(path)?))
    }

    fn to(file: File) -> Self {
        let torn = false;
        Self {
            state: Mutex::new(State { file, torn }),
            synced: false,
        }
    }

    /// Takes a record as kept only when it is on the disk.
    #[must_use]
    pub fn synced(mut self) -> Self {
        self.synced = true;
        self
    }
}

impl AuditSink for FileSink {
    fn write(&self, record: &AuditRecord) -> io::Result<()> {
        let line = line(record)?;
        let mut state = lock(&self.state);
        let whole = if state.torn {
            [b"\n", &line[..]].concat()
        } else {
            line
        };
        state.torn = true;
        state.file.write_all(&whole)?;
        state.torn = false;
        if self.synced {
            state.file.sync_data()?;
        }
        Ok(())
    }
}

/// A record as a line that is not too long.
fn line(record: &AuditRecord) -> io::Result<Vec<u8>> {
    let line = |record: &AuditRecord| -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        Ok(line)
    };
    let whole = line(record)?;
    if whole.len() <= FileSink::MAX_LINE {
        return Ok(whole);
    }
    let mut short = record.clone();
    short.arguments = Map::from_iter([("omitted_bytes".to_owned(), whole.len().into())]);
    let short = line(&short)?;
    if short.len() <= FileSink::MAX_LINE {
        return Ok(short);
    }
    let message = "the record is too long even without its arguments";
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// What a panic of another thread left behind is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record() -> AuditRecord {
        AuditRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            event: AuditEvent::End,
            call: 1,
            actor: Some("me\n".into()),
            operation: "files.stat",
            sandbox: Some("a".into()),
            process: None,
            arguments: Map::from_iter([("path".to_owned(), "/x".into())]),
            outcome: Some("ok".into()),
            duration_ms: Some(3),
        }
    }

    #[test]
    fn a_record_is_one_line_of_a_private_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        FileSink::open(&path).unwrap().write(&record()).unwrap();
        let again = FileSink::open(&path).unwrap().synced();
        again.write(&record()).unwrap();
        let wanted = r#"{"time":"1970-01-01T00:00:01.500Z","event":"end","call":1,"actor":"me\n","operation":"files.stat","sandbox":"a","arguments":{"path":"/x"},"outcome":"ok","duration_ms":3}"#;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{wanted}\n{wanted}\n"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        }
    }

    #[test]
    fn a_line_has_its_longest_length() {
        let mut long = record();
        let text = "x".repeat(FileSink::MAX_LINE);
        long.arguments.insert("path".into(), text.clone().into());
        let short = line(&long).unwrap();
        let short: Value = serde_json::from_slice(&short).unwrap();
        assert!(short["arguments"]["omitted_bytes"].as_u64() > Some(16 * 1024));
        assert_eq!(short["operation"], "files.stat");
        long.actor = Some(text);
        assert_eq!(line(&long).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_after_a_torn_one_stands_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        std::fs::write(&path, "{\"torn").unwrap();
        let sink = FileSink::open(&path).unwrap();
        lock(&sink.state).torn = true;
        sink.write(&record()).unwrap();
        sink.write(&record()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("{\"time\"") && lines[1] == lines[2]);
    }
}
