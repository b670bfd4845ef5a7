//! What a process has written last, kept for readers that come late or fall behind.
//!
//! A ring holds the newest bytes of all streams of one process in order of arrival, tagged by stream. Positions are
//! cursors: the number of bytes that came before, dropped ones included. The ring knows nothing of readers.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;

use sandbox_agent::protocol::agent::shared;

use crate::sys::memory::Area;

/// Most bytes that a ring keeps.
pub(crate) const CAPACITY: usize = 1024 * 1024;

/// Most bytes that one [`Ring::append_with`] takes.
pub(crate) const MAX_APPEND: usize = 64 * 1024;

/// Most changes from one stream to another that a ring keeps, so that their tags are bounded too.
const MAX_SEGMENTS: usize = 32 * 1024;

/// Bytes are read into the memory after the newest one, so it must not hold the oldest.
const MEMORY: usize = shared::LEN;
const _: () = assert!(
    MEMORY == CAPACITY + MAX_APPEND,
    "the protocol says otherwise"
);

/// Bytes of one stream that came one after the other; they end where the next segment starts.
#[derive(Debug, Clone, Copy)]
struct Segment {
    stream: u8,
    start: u64,
}

/// Bytes of one stream, in two parts where the memory of the ring ends between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    pub(crate) stream: u8,
    pub(crate) parts: [&'a [u8]; 2],
}

impl Chunk<'_> {
    pub(crate) fn len(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }
}

/// The newest output of one process.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: Option<Area>,
    /// For those who read the memory themselves.
    shared: Option<OwnedFd>,
    segments: VecDeque<Segment>,
    start: u64,
    end: u64,
}

impl Ring {
    /// Makes an empty ring. Its memory is taken from the system as it fills.
    ///
    /// # Errors
    /// `OutOfMemory` if there is no room for it.
    pub(crate) fn new() -> io::Result<Self> {
        let memory = Some(Area::new(MEMORY)?);
        Ok(Self {
            memory,
            shared: None,
            segments: VecDeque::new(),
            start: 0,
            end: 0,
        })
    }

    /// Takes the memory for another ring if nothing was ever appended, and leaves nothing to append to.
    pub(crate) fn reclaim(&mut self) -> Option<Self> {
        (self.end == 0 && self.shared.is_none()).then(|| Self {
            memory: self.memory.take(),
            shared: None,
            segments: VecDeque::new(),
            start: 0,
            end: 0,
        })
    }

    /// Cursor of the oldest byte that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Cursor after the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes of memory the ring takes.
    pub(crate) fn footprint(&self) -> usize {
        let used = usize::try_from(self.end).unwrap_or(MEMORY).min(MEMORY);
        if self.memory.is_some() { used } else { 0 }
    }

    /// How many bytes can be appended without dropping one at or after the cursor `keep`.
    pub(crate) fn room(&self, keep: u64) -> usize {
        if self.segments.len() >= MAX_SEGMENTS && keep < self.segments[1].start {
            return 0;
        }
        let kept = usize::try_from(self.end.saturating_sub(keep)).unwrap_or(CAPACITY);
        CAPACITY.saturating_sub(kept)
    }

    /// Appends what `read` puts into the memory it is given, at most `max` bytes or [`MAX_APPEND`]. The oldest bytes
    /// are dropped for it. Returns how many bytes came.
    pub(crate) fn append_with(
        &mut self,
        stream: u8,
        max: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let max = max.min(MAX_APPEND);
        let Some(memory) = &mut self.memory else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        if self.shared.is_some() {
            let oldest = (self.end + max as u64).saturating_sub(MEMORY as u64);
            memory.publish(shared::OLDEST, self.start.max(oldest));
        }
        let (before, after) = memory[..MEMORY].split_at_mut(offset(self.end));
        let first = max.min(after.len());
        let parts = &mut [
            IoSliceMut::new(&mut after[..first]),
            IoSliceMut::new(&mut before[..max - first]),
        ];
        let count = read(parts)?.min(max);
        if count > 0
            && self
                .segments
                .back()
                .is_none_or(|last| last.stream != stream)
        {
            self.segments.push_back(Segment {
                stream,
                start: self.end,
            });
        }
        self.end += count as u64;
        self.trim();
        Ok(count)
    }

    /// Drops what is too old.
    fn trim(&mut self) {
        self.start = self.start.max(self.end.saturating_sub(CAPACITY as u64));
        if self.segments.len() > MAX_SEGMENTS {
            self.start = self.start.max(self.segments[1].start);
        }
        while self
            .segments
            .get(1)
            .is_some_and(|second| second.start <= self.start)
        {
            self.segments.pop_front();
        }
    }

    /// The bytes from the cursor `at` on, as far as they are of one stream, at most `max`. `None`: `at` is the end,
    /// or not kept any more.
    pub(crate) fn chunk(&self, at: u64, max: usize) -> Option<Chunk<'_>> {
        let memory = self.memory.as_ref()?;
        if at < self.start || at >= self.end {
            return None;
        }
        let next = self.segments.partition_point(|segment| segment.start <= at);
        let stream = self.segments.get(next.checked_sub(1)?)?.stream;
        let end = self
            .segments
            .get(next)
            .map_or(self.end, |segment| segment.start);
        let len = usize::try_from(end - at).unwrap_or(max).min(max);
        let from = offset(at);
        let first = len.min(MEMORY - from);
        Some(Chunk {
            stream,
            parts: [&memory[from..from + first], &memory[..len - first]],
        })
    }

    /// A descriptor of the memory, laid out as the protocol says, for somebody who reads it there from now on.
    ///
    /// # Errors
    /// `OutOfMemory` if the memory was given back; or there is none of that kind.
    pub(crate) fn share(&mut self) -> io::Result<OwnedFd> {
        let Some(memory) = &mut self.memory else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        if let Some(shared) = &self.shared {
            return shared.try_clone();
        }
        let (mut area, fd) = Area::shared(MEMORY + size_of::<u64>())?;
        let used = usize::try_from(self.end).unwrap_or(MEMORY).min(MEMORY);
        area[..used].copy_from_slice(&memory[..used]);
        area.publish(shared::OLDEST, self.start);
        *memory = area;
        self.shared = Some(fd.try_clone()?);
        Ok(fd)
    }

    /// Drops everything and gives the memory back. Nothing can be appended after that.
    pub(crate) fn release(&mut self) {
        self.memory = None;
        self.shared = None;
        self.segments = VecDeque::new();
        self.start = self.end;
    }
}

/// Where in memory the byte at a cursor lies.
fn offset(cursor: u64) -> usize {
    // The remainder is below MEMORY, which is a `usize`.
    usize::try_from(cursor % MEMORY as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn append(ring: &mut Ring, stream: u8, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = ring
                .append_with(stream, rest.len(), |parts| {
                    let mut count = 0;
                    for part in parts {
                        let len = part.len().min(rest.len() - count);
                        part[..len].copy_from_slice(&rest[count..count + len]);
                        count += len;
                    }
                    Ok(count)
                })
                .unwrap();
            rest = &rest[count..];
        }
    }

    /// All that `ring` keeps from `at` on: the bytes, and how many of them in a row are of which stream.
    fn contents(ring: &Ring, mut at: u64) -> (Vec<u8>, Vec<(u8, usize)>) {
        let (mut bytes, mut runs) = (Vec::new(), Vec::new());
        while let Some(chunk) = ring.chunk(at, 50_000) {
            at += chunk.len() as u64;
            bytes.extend(chunk.parts.concat());
            extend_run(&mut runs, chunk.stream, chunk.len());
        }
        assert_eq!(at, ring.end());
        (bytes, runs)
    }

    fn extend_run(runs: &mut Vec<(u8, usize)>, stream: u8, len: usize) {
        match runs.last_mut() {
            Some((last, total)) if *last == stream => *total += len,
            _ if len > 0 => runs.push((stream, len)),
            _ => {}
        }
    }

    #[test]
    fn an_empty_ring_has_nothing() {
        let ring = Ring::new().unwrap();
        assert_eq!((ring.start(), ring.end(), ring.footprint()), (0, 0, 0));
        assert_eq!(ring.chunk(0, 10), None);
        assert_eq!(ring.room(0), CAPACITY);
    }

    #[test]
    fn streams_stay_apart_and_in_order() {
        let mut ring = Ring::new().unwrap();
        append(&mut ring, 1, b"ab");
        append(&mut ring, 1, b"c");
        append(&mut ring, 2, b"d");
        append(&mut ring, 1, b"e");
        assert_eq!(
            ring.chunk(0, 10),
            Some(Chunk {
                stream: 1,
                parts: [b"abc", b""]
            })
        );
        assert_eq!(
            ring.chunk(1, 1),
            Some(Chunk {
                stream: 1,
                parts: [b"b", b""]
            })
        );
        assert_eq!(
            ring.chunk(3, 10),
            Some(Chunk {
                stream: 2,
                parts: [b"d", b""]
            })
        );
        assert_eq!(
            ring.chunk(4, 10),
            Some(Chunk {
                stream: 1,
                parts: [b"e", b""]
            })
        );
        assert_eq!(ring.chunk(5, 10), None);
    }

    #[test]
    fn a_short_read_into_a_full_ring_drops_no_more_than_it_brings() {
        let mut ring = Ring::new().unwrap();
        append(&mut ring, 1, &vec![7; CAPACITY]);
        assert_eq!((ring.start(), ring.room(0)), (0, 0));
        let came = ring.append_with(1, MAX_APPEND, |_| Ok(0)).unwrap();
        assert_eq!((came, ring.start()), (0, 0));
        append(&mut ring, 1, &[8]);
        assert_eq!((ring.start(), ring.end()), (1, CAPACITY as u64 + 1));
        let (bytes, runs) = contents(&ring, 1);
        assert_eq!((bytes.last(), runs), (Some(&8), vec![(1, CAPACITY)]));
        assert_eq!(ring.chunk(0, 1), None);
        assert_eq!(ring.room(ring.end()), CAPACITY);
    }

    #[test]
    fn changes_between_streams_are_bounded() {
        let mut ring = Ring::new().unwrap();
        for n in 0..MAX_SEGMENTS {
            append(&mut ring, u8::from(n % 2 == 0), b"xy");
        }
        assert_eq!((ring.start(), ring.room(0)), (0, 0));
        assert_eq!(
            ring.room(2),
            CAPACITY - 2 * MAX_SEGMENTS + 2,
            "the oldest segment is not wanted"
        );
        append(&mut ring, 1, b"z");
        assert_eq!(ring.start(), 2, "the oldest segment is gone");
        assert_eq!(contents(&ring, 2).0.len(), 2 * MAX_SEGMENTS - 1);
    }

    #[test]
    fn only_an_unused_ring_is_used_again() {
        let mut ring = Ring::new().unwrap();
        let mut other = ring.reclaim().unwrap();
        assert!(ring.append_with(1, 1, |_| Ok(1)).is_err());
        append(&mut other, 1, b"abc");
        assert!(other.reclaim().is_none());
        assert_eq!(contents(&other, 0).0, b"abc");
    }

    #[test]
    fn a_released_ring_keeps_its_cursor() {
        let mut ring = Ring::new().unwrap();
        append(&mut ring, 1, b"abc");
        ring.release();
        assert_eq!((ring.start(), ring.end(), ring.footprint()), (3, 3, 0));
        assert_eq!(ring.chunk(0, 1), None);
        assert!(ring.append_with(1, 1, |_| Ok(1)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is appended, a reader at any pace gets every byte in order or knows exactly what it missed.
        #[test]
        fn readers_account_for_every_byte(
            steps in prop::collection::vec((1_u8..4, 0_usize..200_000, any::<bool>()), 1..30),
        ) {
            let source: Vec<u8> = (0..200_251_u32).map(|n| (n % 251) as u8).collect();
            let mut ring = Ring::new().unwrap();
            let mut written: Vec<u8> = Vec::new();
            // What the reader has not seen yet: how many bytes in a row are of which stream.
            let mut unseen = Vec::new();
            let (mut position, mut seen, mut lost) = (0, 0, 0);
            for (stream, len, read) in steps {
                let from = written.len() % 251;
                written.extend_from_slice(&source[from..from + len]);
                append(&mut ring, stream, &source[from..from + len]);
                extend_run(&mut unseen, stream, len);
                prop_assert_eq!(ring.end(), written.len() as u64);
                prop_assert_eq!(ring.start(), ring.end().saturating_sub(CAPACITY as u64));
                if read {
                    let mut skipped = usize::try_from(ring.start().saturating_sub(position)).unwrap();
                    lost += skipped as u64;
                    position += skipped as u64;
                    let (bytes, runs) = contents(&ring, position);
                    prop_assert!(bytes == written[usize::try_from(position).unwrap()..]);
                    unseen.retain_mut(|(_, len)| {
                        let cut = skipped.min(*len);
                        skipped -= cut;
                        *len -= cut;
                        *len > 0
                    });
                    prop_assert_eq!(&runs, &std::mem::take(&mut unseen));
                    seen += bytes.len() as u64;
                    position = ring.end();
                }
            }
            prop_assert_eq!(seen + lost, position);
        }
    }
}
