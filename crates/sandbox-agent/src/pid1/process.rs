//! One command: its main process, output and readers, from the start until nobody asks for it any more.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::agent::{Exit, ProcessEntry, Spawn};

use super::deadlines::milliseconds;
use super::group::Group;
use super::launch::Order;
use super::ring::Ring;
use super::stdin::Stdin;
use super::stream::Stream;
use crate::sys::flag::Flag;
use crate::sys::timer::now;

/// Most bytes of a command line that are remembered.
const MAX_COMMAND_LINE: usize = 4096;

/// How far a command has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Told what to become.
    Starting(Start),
    /// The program runs.
    Running,
    /// The timeout has passed and the main process has ended; others have the rest of the grace.
    Lingering(Exit),
    /// It has ended, but not all its output was taken.
    Draining(Exit),
    /// It has ended.
    Ended(Exit, Duration),
}

/// A process on its way to the program.
#[derive(Debug)]
pub(super) struct Start {
    /// Says why it cannot run the program, or closes when it does.
    pub(super) status: OwnedFd,
    /// What to tell another process, unless this flag says that the first one has heard it.
    pub(super) again: Option<(Flag, Order)>,
}

impl Start {
    /// Takes the order if it was never heard.
    pub(super) fn take_unheard(&mut self) -> Option<Order> {
        let (heard, order) = self.again.take()?;
        (!heard.take()).then_some(order)
    }
}

/// What becomes a [`Process`] once it has a number.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: u32,
    pub(super) group: Group,
    pub(super) start: Start,
    pub(super) streams: Vec<Stream>,
    pub(super) stdin: Stdin,
    /// Kept open so that the terminal lives as long as the command, whatever the program closes.
    pub(super) terminal: Option<Terminal>,
    pub(super) ring: Ring,
}

/// The two ends of a command's terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: Option<Rc<OwnedFd>>,
}

/// A command.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) phase: Phase,
    pub(super) group: Option<Group>,
    pub(super) streams: Vec<Stream>,
    pub(super) stdin: Stdin,
    pub(super) terminal: Option<Terminal>,
    pub(super) ring: Ring,
    /// The connections that are attached.
    pub(super) attachments: Vec<u64>,
    /// The connection for whose reading the program waits, as long as it is the only reader.
    pub(super) foreground: Option<u64>,
    pub(super) grace_ms: u64,
    pub(super) timed_out: bool,
    /// We have sent it SIGKILL.
    pub(super) killed: bool,
    /// OOM kills in the sandbox before it was started.
    pub(super) oom_kills: u64,
    tag: Option<String>,
    argv: Vec<Blob>,
    has_terminal: bool,
    started: Duration,
}

impl Process {
    /// Takes over what was started for `spawn`.
    pub(super) fn new(launched: Launched, spawn: Spawn, oom_kills: u64) -> Self {
        Self {
            pid: launched.pid,
            phase: Phase::Starting(launched.start),
            group: Some(launched.group),
            streams: launched.streams,
            stdin: launched.stdin,
            has_terminal: launched.terminal.is_some(),
            terminal: launched.terminal,
            ring: launched.ring,
            attachments: Vec::new(),
            foreground: None,
            grace_ms: spawn.grace_ms,
            timed_out: false,
            killed: false,
            oom_kills,
            tag: spawn.tag,
            argv: cut(spawn.argv, MAX_COMMAND_LINE),
            started: now(),
        }
    }

    /// Whether the program was started, or found not to be startable in a way that a shell reports too.
    pub(super) fn is_started(&self) -> bool {
        !matches!(self.phase, Phase::Starting(_))
    }

    /// Whether the main process has not been waited for yet.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting(_) | Phase::Running)
    }

    /// How it ended, once all its output was taken.
    pub(super) fn exit(&self) -> Option<&Exit> {
        match &self.phase {
            Phase::Ended(exit, _) => Some(exit),
            _ => None,
        }
    }

    /// Whether the command has ended and the last of its output was taken.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Draining(_)) && self.streams.iter().all(Stream::is_settled)
    }

    /// Reads each stream once. `keep` is the cursor of the oldest byte that must not be dropped. Returns whether
    /// there may be more to read.
    pub(super) fn fill(&mut self, keep: Option<u64>) -> bool {
        let mut more = false;
        for index in 0..self.streams.len() {
            more |= self.fill_one(index, keep);
        }
        more
    }

    /// As [`Process::fill`], for one stream.
    pub(super) fn fill_one(&mut self, index: usize, keep: Option<u64>) -> bool {
        let room = keep.map_or(usize::MAX, |keep| self.ring.room(keep));
        self.streams
            .get_mut(index)
            .is_some_and(|stream| stream.fill(&mut self.ring, room))
    }

    /// What a list of processes says of it, with at most `command_line` bytes of arguments.
    pub(super) fn entry(&self, process: u64, command_line: usize) -> ProcessEntry {
        let end = match &self.phase {
            Phase::Ended(_, at) => *at,
            _ => now(),
        };
        ProcessEntry {
            process,
            pid: self.pid,
            tag: self.tag.clone(),
            argv: cut(self.argv.clone(), command_line),
            pty: self.has_terminal,
            exit: self.exit().cloned(),
            elapsed_ms: milliseconds(end.saturating_sub(self.started)),
            cursor: self.ring.end(),
        }
    }
}

/// Cuts a command line to `limit` bytes; an argument counts one more than it is long.
fn cut(mut argv: Vec<Blob>, limit: usize) -> Vec<Blob> {
    let mut left = limit;
    let mut kept = 0;
    for argument in &mut argv {
        if left == 0 {
            break;
        }
        argument.0.truncate(left - 1);
        argument.0.shrink_to_fit();
        left -= argument.0.len() + 1;
        kept += 1;
    }
    argv.truncate(kept);
    argv.shrink_to_fit();
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_command_lines_are_cut() {
        let argv = |lens: &[usize]| {
            lens.iter()
                .map(|len| Blob(vec![b'x'; *len]))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(argv(&[3, 4]), 4096), argv(&[3, 4]));
        assert_eq!(cut(argv(&[5000, 4]), 4096), argv(&[4095]));
        assert_eq!(cut(argv(&[10, 10, 10]), 13), argv(&[10, 1]));
        assert_eq!(cut(argv(&[0; 5000]), 4096), argv(&[0; 4096]));
        assert_eq!(cut(Vec::new(), 10), Vec::new());
    }
}
