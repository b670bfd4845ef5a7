//! What a sandbox has reached for, kept beside its record: two files of bounded length, one event a line.
//!
//! The first line of a file is its number. When the newer one is full it takes the place of the older one, so that a
//! reader who was too slow sees by the numbers that something is missing.

use crate::{linux::record::storage_error, sys};
use futures_util::{StreamExt, TryStreamExt, stream};
use rustix::fs::inotify;
use sandbox_core::{BoxStream, Error, NetworkEvent, NetworkEventKind, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};
use tokio::io::{Interest, unix::AsyncFd};

/// The newer file, and the older one.
const NEW: &str = "network.log";
const OLD: &str = "network.log.1";

/// At how many bytes a file is full.
const FULL: u64 = 1024 * 1024;

/// How long nothing is written after it has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest line that is taken for an event.
const LONGEST_LINE: u64 = 16 * 1024;

/// The first line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    number: u64,
}

/// Where the one who serves a sandbox's network writes.
#[derive(Debug)]
pub(super) struct Writer {
    record: PathBuf,
    file: File,
    number: u64,
    length: u64,
}

impl Writer {
    /// Goes on with what is there.
    pub(super) fn open(record: &Path) -> io::Result<Self> {
        let next = Self::next(record)?;
        // What another one has left half-written ends with its file.
        Self::begin(record.to_owned(), next)
    }

    /// Goes on when something was lost, of which readers learn by a number that is left out.
    fn open_after_loss(record: &Path) -> io::Result<Self> {
        let next = Self::next(record)?;
        Self::begin(record.to_owned(), next + 1)
    }

    /// The number of the next file.
    fn next(record: &Path) -> io::Result<u64> {
        let mut next = 0;
        for name in [NEW, OLD] {
            next = match File::open(record.join(name)) {
                Ok(file) => {
                    head(&mut BufReader::new(file))?.map_or(next, |last| next.max(last + 1))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => next,
                Err(error) => return Err(error),
            };
        }
        Ok(next)
    }

    fn begin(record: PathBuf, number: u64) -> io::Result<Self> {
        let begun = record.join("network.log.new");
        let mut line = serde_json::to_vec(&Head { number })?;
        line.push(b'\n');
        fs::write(&begun, &line)?;
        match fs::rename(record.join(NEW), record.join(OLD)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        fs::rename(&begun, record.join(NEW))?;
        let file = OpenOptions::new().append(true).open(record.join(NEW))?;
        Ok(Self {
            record,
            file,
            number,
            length: line.len() as u64,
        })
    }

    /// Adds an event.
    pub(super) fn write(&mut self, event: &NetworkEvent) -> io::Result<()> {
        if self.length >= FULL {
            *self = Self::begin(self.record.clone(), self.number + 1)?;
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.length += line.len() as u64;
        // One call, so that a reader never sees less than a line that stays half.
        self.file.write_all(&line)
    }
}

/// Writes events down. While that fails they are lost, and readers are told so.
#[derive(Debug)]
pub(super) struct Kept {
    record: PathBuf,
    /// `None` after it has failed.
    log: Option<Writer>,
    /// When it is tried again.
    again: Instant,
}

impl Kept {
    /// Goes on with what is there.
    pub(super) fn open(record: &Path) -> io::Result<Self> {
        Ok(Self {
            record: record.to_owned(),
            log: Some(Writer::open(record)?),
            again: Instant::now(),
        })
    }

    /// Adds an event, if that can be done now.
    pub(super) fn add(&mut self, event: &NetworkEvent) {
        if self.log.is_none() && Instant::now() < self.again {
            return;
        }
        if let Err(error) = self.try_add(event) {
            tracing::warn!(%error, "network events of a sandbox are lost");
            self.log = None;
            self.again = Instant::now() + AGAIN;
        }
    }

    fn try_add(&mut self, event: &NetworkEvent) -> io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            failed => failed.insert(Writer::open_after_loss(&self.record)?),
        };
        log.write(event)
    }
}

fn head(file: &mut impl BufRead) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    file.by_ref()
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)
        .ok()
        .map(|head: Head| head.number))
}

/// Reads what was kept, oldest first, and then what is added.
#[derive(Debug)]
pub(super) struct Reader {
    record: PathBuf,
    /// The file that is being read, and its number.
    file: Option<(BufReader<File>, u64)>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl Reader {
    pub(super) fn open(record: &Path) -> Self {
        Self {
            record: record.to_owned(),
            file: None,
            begun: Vec::new(),
        }
    }

    /// What has come since the last call. That the log is gone is its end, and no error.
    pub(super) fn read(&mut self) -> io::Result<Vec<NetworkEvent>> {
        let mut events = Vec::new();
        loop {
            self.take_lines(&mut events)?;
            let Some((next, number)) = self.next_file()? else {
                return Ok(events);
            };
            // It was full, or its writer is gone: what was added after it was read is added no more.
            self.take_lines(&mut events)?;
            self.begun.clear();
            let last = self.file.as_ref().map(|(_, number)| *number);
            if number > last.map_or(0, |last| last + 1) {
                let lost = NetworkEvent::new(SystemTime::now(), 0, NetworkEventKind::Lost, 0);
                events.push(lost);
            }
            self.file = Some((next, number));
        }
    }

    /// The file after the one that is being read.
    fn next_file(&self) -> io::Result<Option<(BufReader<File>, u64)>> {
        let last = self.file.as_ref().map(|(_, number)| *number);
        for name in [OLD, NEW] {
            let mut file = match File::open(self.record.join(name)) {
                Ok(file) => BufReader::new(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match head(&mut file)? {
                Some(number) if last.is_none_or(|last| number > last) => {
                    return Ok(Some((file, number)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn take_lines(&mut self, events: &mut Vec<NetworkEvent>) -> io::Result<()> {
        let Some((file, _)) = &mut self.file else {
            return Ok(());
        };
        loop {
            let room = LONGEST_LINE - self.begun.len() as u64;
            file.by_ref()
                .take(room)
                .read_until(b'\n', &mut self.begun)?;
            if self.begun.last() != Some(&b'\n') {
                if self.begun.len() as u64 >= LONGEST_LINE {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a line is too long",
                    ));
                }
                return Ok(());
            }
            let event = serde_json::from_slice(&self.begun)?;
            events.push(event);
            self.begun.clear();
        }
    }

    /// A descriptor that is readable when something was added or the record has gone. To be made before what is there is
    /// read.
    pub(super) fn changes(&self) -> io::Result<OwnedFd> {
        use inotify::{CreateFlags, WatchFlags};

        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let added = WatchFlags::MODIFY | WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, &self.record, added)?;
        // Of the record itself it would be told when nobody has it open any more.
        if let Some(records) = self.record.parent() {
            let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
            inotify::add_watch(&changes, records, gone)?;
        }
        Ok(changes)
    }

    /// Whether the record is gone, and with it all that could be added.
    pub(super) fn is_over(&self) -> bool {
        !self.record.exists()
    }
}

/// All that was kept, and with `follow` what is added until the record is gone.
pub(super) fn stream(record: &Path, follow: bool) -> BoxStream<'static, Result<NetworkEvent>> {
    let opened = Following::open(record, follow);
    let next = |following: Option<Following>| async move {
        let mut following = following?;
        match following.next().await {
            Ok(None) => None,
            Ok(Some(events)) => Some((Ok(events), Some(following))),
            Err(error) => Some((Err(unreadable(error)), None)),
        }
    };
    let batches = match opened {
        Ok(following) => stream::unfold(Some(following), next).boxed(),
        Err(error) => stream::iter([Err(unreadable(error))]).boxed(),
    };
    let events = batches.map_ok(|events| stream::iter(events.into_iter().map(Ok)));
    events.try_flatten().boxed()
}

fn unreadable(error: io::Error) -> Error {
    storage_error(error, "the sandbox's network events could not be read")
}

/// A reader, and what wakes it.
struct Following {
    reader: Reader,
    /// `None` if it is to end with what is there.
    changes: Option<AsyncFd<OwnedFd>>,
    /// What was there at first. It is read then, so that it is not missed if the record goes before anybody asks.
    first: Option<Vec<NetworkEvent>>,
}

impl Following {
    fn open(record: &Path, follow: bool) -> io::Result<Self> {
        let mut reader = Reader::open(record);
        let changes = follow.then(|| reader.changes()).transpose()?;
        let watched = changes.map(|changes| sys::watch(changes, Interest::READABLE));
        let first = Some(reader.read()?);
        Ok(Self {
            reader,
            changes: watched.transpose()?,
            first,
        })
    }

    /// The next events; `None` when there will be none.
    async fn next(&mut self) -> io::Result<Option<Vec<NetworkEvent>>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(changes) = &self.changes else {
            return Ok(None);
        };
        loop {
            let mut ready = changes.readable().await?;
            let mut notices = [MaybeUninit::uninit(); 4096];
            // What has changed is found by looking.
            let mut notices = inotify::Reader::new(ready.get_inner(), &mut notices);
            while notices.next().is_ok() {}
            ready.clear_ready();
            // Before the last look: what is written before the end is not missed.
            let is_over = self.reader.is_over();
            let events = self.reader.read()?;
            if is_over {
                // Nothing would wake it again.
                self.changes = None;
                return Ok(Some(events));
            }
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(connection: u64) -> NetworkEvent {
        NetworkEvent::new(SystemTime::now(), connection, NetworkEventKind::Opened, 443)
    }

    fn numbers(events: &[NetworkEvent]) -> Vec<u64> {
        events.iter().map(|event| event.connection).collect()
    }

    #[test]
    fn what_was_reached_for_is_read_in_order_and_then_what_is_added() {
        let record = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(record.path());
        assert_eq!(reader.read().unwrap(), []);
        let mut writer = Writer::open(record.path()).unwrap();
        let written: Vec<_> = (1..4).map(event).collect();
        written
            .iter()
            .for_each(|event| writer.write(event).unwrap());
        assert_eq!(reader.read().unwrap(), written);
        writer.write(&event(4)).unwrap();
        assert_eq!(numbers(&reader.read().unwrap()), [4]);
        // Another one goes on.
        let mut writer = Writer::open(record.path()).unwrap();
        writer.write(&event(5)).unwrap();
        assert_eq!(numbers(&reader.read().unwrap()), [5]);
        assert_eq!(
            numbers(&Reader::open(record.path()).read().unwrap()),
            [1, 2, 3, 4, 5]
        );
    }

    #[test]
    fn it_is_bounded_and_says_what_is_lost() {
        let record = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(record.path()).unwrap();
        let mut slow = Reader::open(record.path());
        writer.write(&event(1)).unwrap();
        assert_eq!(numbers(&slow.read().unwrap()), [1]);
        let mut long = event(2);
        long.reason = "x".repeat(4000);
        for _ in 0..4 * FULL / 4000 {
            writer.write(&long).unwrap();
        }
        let size = |name: &str| fs::metadata(record.path().join(name)).unwrap().len();
        assert!(size(NEW) + size(OLD) < 2 * FULL + LONGEST_LINE);
        for mut reader in [slow, Reader::open(record.path())] {
            let events = reader.read().unwrap();
            let lost = events
                .iter()
                .filter(|event| event.kind == NetworkEventKind::Lost);
            assert_eq!(lost.count(), 1);
            assert!(events.len() as u64 > FULL / 5000);
        }
    }

    #[tokio::test]
    async fn what_has_happened_is_told_also_after_the_end() {
        let state = tempfile::tempdir().unwrap();
        let record = state.path().join("record");
        fs::create_dir(&record).unwrap();
        let mut writer = Writer::open(&record).unwrap();
        writer.write(&event(1)).unwrap();
        let [all, rest] = [false, true].map(|follow| stream(&record, follow));
        writer.write(&event(2)).unwrap();
        fs::remove_dir_all(&record).unwrap();
        let all: Vec<_> = all.try_collect().await.unwrap();
        assert_eq!(numbers(&all), [1]);
        let rest: Vec<_> = rest.try_collect().await.unwrap();
        assert_eq!(numbers(&rest), [1, 2]);
    }

    #[tokio::test]
    async fn the_end_is_told_while_others_have_the_record_open() {
        let state = tempfile::tempdir().unwrap();
        let record = state.path().join("record");
        fs::create_dir(&record).unwrap();
        let mut writer = Writer::open(&record).unwrap();
        let _open = File::open(&record).unwrap();
        let mut events = stream(&record, true);
        writer.write(&event(1)).unwrap();
        assert_eq!(events.try_next().await.unwrap().unwrap().connection, 1);
        fs::remove_dir_all(&record).unwrap();
        let end = tokio::time::timeout(std::time::Duration::from_secs(30), events.try_next());
        assert_eq!(end.await.unwrap().unwrap(), None);
    }

    #[test]
    fn what_could_not_be_written_is_told_as_lost() {
        let record = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(record.path());
        let mut kept = Kept::open(record.path()).unwrap();
        kept.add(&event(1));
        assert_eq!(numbers(&reader.read().unwrap()), [1]);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        kept.log.as_mut().unwrap().file = full;
        kept.add(&event(2));
        // It is not tried again at once.
        kept.again += Duration::from_secs(3600);
        kept.add(&event(3));
        assert_eq!(reader.read().unwrap(), []);
        kept.again = Instant::now();
        kept.add(&event(4));
        for mut reader in [reader, Reader::open(record.path())] {
            let told = reader.read().unwrap();
            assert_eq!(told.last().unwrap().connection, 4);
            let lost = told
                .iter()
                .filter(|event| event.kind == NetworkEventKind::Lost);
            assert_eq!(lost.count(), 1, "{told:?}");
        }
    }

    #[test]
    fn half_a_line_waits_for_its_end() {
        let record = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(record.path()).unwrap();
        let mut reader = Reader::open(record.path());
        let mut line = serde_json::to_vec(&event(1)).unwrap();
        line.push(b'\n');
        let (first, rest) = line.split_at(10);
        writer.file.write_all(first).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        writer.file.write_all(rest).unwrap();
        assert_eq!(numbers(&reader.read().unwrap()), [1]);
    }
}
