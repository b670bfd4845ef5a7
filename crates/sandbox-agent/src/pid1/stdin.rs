//! Standard input of a process: bytes on their way into a pipe or terminal that may be full.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

/// What a terminal takes for the end of input.
const END_OF_TRANSMISSION: u8 = 4;

/// The writing end of standard input.
#[derive(Debug)]
pub(super) struct Stdin {
    file: Option<File>,
    terminal: bool,
    pending: Vec<u8>,
    written: usize,
    /// Whether [`Written::Unread`] was answered once.
    told: bool,
}

/// What became of bytes for standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// They were taken.
    All,
    /// Some wait for room; send no more until then.
    Waiting,
    /// Nobody reads them, and nobody was told so yet.
    Unread,
}

impl Stdin {
    /// Writes to a descriptor that does not wait.
    pub(super) fn new(fd: OwnedFd, terminal: bool) -> Self {
        Self {
            file: Some(fd.into()),
            terminal,
            pending: Vec::new(),
            written: 0,
            told: false,
        }
    }

    /// There is no standard input.
    pub(super) fn none() -> Self {
        Self {
            file: None,
            terminal: false,
            pending: Vec::new(),
            written: 0,
            told: false,
        }
    }

    /// The descriptor, while it is open.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Whether bytes wait for room.
    pub(super) fn is_waiting(&self) -> bool {
        self.written < self.pending.len()
    }

    /// Takes bytes. Only to be called while nothing waits.
    pub(super) fn write(&mut self, data: Vec<u8>) -> Written {
        self.pending = data;
        self.written = 0;
        self.flush()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Written {
        while self.is_waiting() {
            let Some(mut file) = self.file.as_ref() else {
                return self.unread();
            };
            match file.write(&self.pending[self.written..]) {
                Ok(0) => return Written::Waiting,
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Waiting,
                Err(_) => return self.unread(),
            }
        }
        self.pending = Vec::new();
        self.written = 0;
        Written::All
    }

    /// Ends standard input. Only to be called while nothing waits. A terminal stays open for more.
    pub(super) fn close(&mut self) -> Written {
        if self.terminal {
            return self.write(vec![END_OF_TRANSMISSION]);
        }
        self.shut();
        Written::All
    }

    /// The process has ended: there is nothing to write to any more.
    pub(super) fn shut(&mut self) {
        self.file = None;
        self.pending = Vec::new();
        self.written = 0;
    }

    fn unread(&mut self) -> Written {
        self.shut();
        if std::mem::replace(&mut self.told, true) {
            Written::All
        } else {
            Written::Unread
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    fn stdin(terminal: bool) -> (Stdin, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        pipe::set_nonblocking(writer.as_fd(), true).unwrap();
        (Stdin::new(writer.into(), terminal), reader)
    }

    #[test]
    fn a_full_pipe_makes_the_rest_wait() {
        let (mut stdin, mut reader) = stdin(false);
        let data: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        assert_eq!(stdin.write(data.clone()), Written::Waiting);
        assert!(stdin.is_waiting());
        let mut got = vec![0; 65_536];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(stdin.flush(), Written::All);
        assert!(!stdin.is_waiting());
        assert_eq!(stdin.close(), Written::All);
        reader.read_to_end(&mut got).unwrap();
        assert!(got == data);
    }

    #[test]
    fn that_nobody_reads_is_said_once() {
        let (mut stdin, reader) = stdin(false);
        drop(reader);
        assert_eq!(stdin.write(vec![1]), Written::Unread);
        assert_eq!(stdin.write(vec![1]), Written::All);
        assert_eq!(Stdin::none().write(vec![1]), Written::Unread);
    }

    #[test]
    fn a_terminal_gets_its_end_character_and_stays_open() {
        let (mut stdin, mut reader) = stdin(true);
        assert_eq!(stdin.close(), Written::All);
        let mut got = [0];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(got, [END_OF_TRANSMISSION]);
        assert_eq!(stdin.write(vec![9]), Written::All);
    }
}
