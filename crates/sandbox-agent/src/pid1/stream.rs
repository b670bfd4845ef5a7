//! One output stream of a process: how it gets from a pipe or terminal into the ring.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};

use super::ring::{MAX_APPEND, Ring};
use crate::sys::pipe;

/// A read of this length shows that the program writes faster than it is read.
const LARGE_READ: usize = 32 * 1024;

/// Bytes that the pipe of such a program holds, so that it and we can work at the same time.
///
/// Not more: what the pipes of one user hold beyond 64 MiB in all makes his next ones tiny.
const LARGE_PIPE: i32 = 256 * 1024;

/// Most bytes that a terminal can hold when its command ends. How many there are it does not say exactly.
const TERMINAL_RESIDUE: usize = 256 * 1024;

/// The reading end of an output stream.
#[derive(Debug)]
pub(super) struct Stream {
    number: u8,
    file: Option<File>,
    terminal: bool,
    /// There may be something to read.
    ready: bool,
    /// No more events will come, so that only reading tells where the end is.
    hung_up: bool,
    enlarged: bool,
    /// The command has ended, and this many bytes are still to be taken.
    owed: Option<usize>,
}

impl Stream {
    /// Reads the stream `number` from a descriptor that does not wait.
    pub(super) fn new(number: u8, fd: OwnedFd, terminal: bool) -> Self {
        let file = Some(fd.into());
        Self {
            number,
            file,
            terminal,
            ready: false,
            hung_up: false,
            enlarged: false,
            owed: None,
        }
    }

    /// The descriptor, unless its end was seen.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Gives the descriptor away, unless its end was seen.
    pub(super) fn take_file(&mut self) -> Option<File> {
        self.file.take()
    }

    /// An event has come.
    pub(super) fn wake(&mut self, hung_up: bool) {
        self.ready = true;
        self.hung_up |= hung_up;
    }

    /// The command has ended: what can be read right now is still taken, and no more than that. Somebody else may
    /// hold the stream open and go on writing.
    pub(super) fn conclude(&mut self) {
        self.ready = true;
        self.owed = Some(match &self.file {
            Some(_) if self.terminal => TERMINAL_RESIDUE,
            Some(file) => pipe::unread(file.as_fd()).unwrap_or(0),
            None => 0,
        });
    }

    /// Whether everything was taken, after [`Stream::conclude`].
    pub(super) fn is_settled(&self) -> bool {
        self.file.is_none() || self.owed == Some(0)
    }

    /// Reads once, at most `room` bytes. Returns whether there may be more to read.
    pub(super) fn fill(&mut self, ring: &mut Ring, room: usize) -> bool {
        let max = room.min(MAX_APPEND).min(self.owed.unwrap_or(usize::MAX));
        let Some(mut file) = self.file.as_ref().filter(|_| self.ready && max > 0) else {
            return false;
        };
        match ring.append_with(self.number, max, |parts| file.read_vectored(parts)) {
            Ok(0) => self.close(),
            Ok(count) => self.took(count, max),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.dry(),
            // A terminal says so when its last user has left.
            Err(_) => self.close(),
        }
        self.ready
    }

    fn took(&mut self, count: usize, max: usize) {
        self.owed = self.owed.map(|owed| owed - count);
        // A pipe that gave less than asked for was empty. A terminal gives what it likes.
        if count < max && !self.terminal && !self.hung_up {
            self.dry();
        }
        if count >= LARGE_READ && !self.enlarged && !self.terminal {
            self.enlarged = true;
            // Only a matter of speed, and the user may have as many large pipes as he is allowed already.
            let _ = self
                .file
                .as_ref()
                .map(|file| pipe::set_capacity(file.as_fd(), LARGE_PIPE));
        }
    }

    fn dry(&mut self) {
        self.ready = false;
        self.owed = self.owed.map(|_| 0);
    }

    fn close(&mut self) {
        self.ready = false;
        self.file = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn stream() -> (Stream, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        pipe::set_nonblocking(reader.as_fd(), true).unwrap();
        (Stream::new(1, reader.into(), false), writer)
    }

    fn take_all(stream: &mut Stream, ring: &mut Ring) -> u64 {
        let before = ring.end();
        while stream.fill(ring, usize::MAX) {}
        ring.end() - before
    }

    #[test]
    fn nothing_is_read_without_an_event_or_room() {
        let (mut stream, mut writer) = stream();
        let mut ring = Ring::new().unwrap();
        writer.write_all(b"abc").unwrap();
        assert_eq!(take_all(&mut stream, &mut ring), 0);
        stream.wake(false);
        assert!(!stream.fill(&mut ring, 0));
        assert_eq!(take_all(&mut stream, &mut ring), 3);
    }

    #[test]
    fn the_end_is_found_after_the_last_bytes() {
        let (mut stream, mut writer) = stream();
        let mut ring = Ring::new().unwrap();
        writer.write_all(&[1; 10_000]).unwrap();
        drop(writer);
        stream.wake(true);
        assert_eq!(take_all(&mut stream, &mut ring), 10_000);
        assert!(stream.file().is_none());
        assert!(stream.is_settled());
    }

    #[test]
    fn after_the_command_only_what_was_there_is_taken() {
        let (mut stream, mut writer) = stream();
        let mut ring = Ring::new().unwrap();
        writer.write_all(&[1; 100]).unwrap();
        stream.conclude();
        writer.write_all(&[2; 100]).unwrap();
        assert!(!stream.is_settled());
        assert_eq!(take_all(&mut stream, &mut ring), 100);
        assert!(stream.is_settled());
        assert!(stream.take_file().is_some());
    }

    #[test]
    fn a_silent_command_is_settled_at_once() {
        let (mut stream, _writer) = stream();
        stream.conclude();
        assert!(stream.is_settled());
    }
}
