//! The processes that belong to one command: its cgroup, or without one its process group.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use crate::sys::{cgroup, signal};

/// Longest list of processes that is read.
const MAX_LIST: u64 = 1024 * 1024;

/// How often a signal is sent to the processes that have been started meanwhile.
const ROUNDS: usize = 8;

/// How many cgroups of ended commands are looked at each time.
const SWEEP: usize = 16;

/// How many empty cgroups are kept.
const SPARE: usize = 4;

/// All processes of one command.
#[derive(Debug)]
pub(super) struct Group {
    /// The main process, which leads the process group.
    pid: i32,
    cgroup: Option<CommandCgroup>,
}

/// A cgroup for one command at a time.
#[derive(Debug)]
pub(super) struct CommandCgroup {
    name: CString,
    directory: OwnedFd,
    /// Its `cgroup.events`.
    events: File,
    /// It was killed once. Linux from 6.14 on then kills whatever is started in it from outside: it compares how often
    /// the two cgroups were killed.
    killed: bool,
}

impl CommandCgroup {
    /// The directory, to start a process in.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Whether it has processes, those included that are on their way out.
    fn is_populated(&self) -> bool {
        // A file that cannot be read is that of a cgroup which somebody else has removed, so it has none.
        says(&self.events, b"populated 1")
    }

    fn pids(&self) -> io::Result<BTreeSet<i32>> {
        let list = cgroup::read(self.directory(), c"cgroup.procs", MAX_LIST)?;
        let text = String::from_utf8_lossy(&list);
        // 0 stands for a process outside this PID namespace; 1 is this one.
        Ok(text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 1)
            .collect())
    }
}

impl Group {
    /// The processes of the command whose main process is `pid`.
    pub(super) fn new(pid: u32, cgroup: Option<CommandCgroup>) -> Self {
        Self {
            pid: pid.cast_signed(),
            cgroup,
        }
    }

    /// Sends a signal to the process group of the main process, which must not have been waited for.
    pub(super) fn signal(&self, number: i32) -> io::Result<()> {
        // Between its start and its first steps the process does not lead its group yet.
        signal::kill(-self.pid, number).or_else(|_| signal::kill(self.pid, number))
    }

    /// Kills every process of the command, those included that are just being started. None is left is no error.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.killed = true;
            if cgroup::write(cgroup.directory(), c"cgroup.kill", b"1").is_ok() {
                return Ok(());
            }
        }
        // Linux has that file from 5.14 on.
        self.signal_tree(libc::SIGKILL)
    }

    /// Sends a signal to every process of the command. None is left is no error.
    pub(super) fn signal_tree(&self, number: i32) -> io::Result<()> {
        let Some(cgroup) = &self.cgroup else {
            return ignore_missing(signal::kill(-self.pid, number));
        };
        let mut done = BTreeSet::new();
        for _ in 0..ROUNDS {
            let fresh: Vec<i32> = cgroup.pids()?.difference(&done).copied().collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                ignore_missing(signal::kill(pid, number))?;
                done.insert(pid);
            }
        }
        Ok(())
    }

    /// How many processes the command has, if that can be told.
    pub(super) fn population(&self) -> Option<usize> {
        let pids = self.cgroup.as_ref()?.pids();
        pids.ok().map(|pids| pids.len())
    }

    /// Whether no process of the command is left, the main one apart, which must just have been waited for.
    pub(super) fn is_empty(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.pids().map_or(true, |pids| pids.is_empty()),
            None => signal::kill(-self.pid, 0).is_err(),
        }
    }
}

/// Whether the `cgroup.events` of a cgroup has this line.
fn says(events: &File, wanted: &[u8]) -> bool {
    let mut text = [0; 256];
    let len = events.read_at(&mut text, 0).unwrap_or(0);
    text[..len]
        .split(|byte| *byte == b'\n')
        .any(|line| line == wanted)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// The name of the cgroup that those of all commands are in, so that they can be stopped at once and PID 1 not.
pub(crate) const COMMANDS: &CStr = c"commands";

/// The name of a command's cgroup in what `/proc/PID/cgroup` says.
fn command_name(list: &[u8]) -> Option<&[u8]> {
    let path = list
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::/commands/"))?;
    let number = path
        .strip_prefix(b"p")
        .filter(|number| !number.is_empty())?;
    number.iter().all(u8::is_ascii_digit).then_some(path)
}

/// Makes the cgroups of commands and removes them.
///
/// Making and removing one takes longer than anything else that starts a command, so a few empty ones are kept for
/// the next commands.
#[derive(Debug)]
pub(super) struct Cgroups {
    parent: Option<OwnedFd>,
    /// Its `cgroup.events`.
    events: Option<File>,
    /// How many were made so far.
    made: u64,
    /// Empty, and ready for the next command.
    spare: Vec<CommandCgroup>,
    /// Of commands that have ended, but perhaps not all their processes.
    leftover: VecDeque<CommandCgroup>,
}

impl Cgroups {
    /// Makes cgroups in one below `top`; without it there are none.
    pub(super) fn new(top: Option<OwnedFd>) -> io::Result<Self> {
        let parent = top.map(|top| match cgroup::make(top.as_fd(), COMMANDS) {
            // The zygote has made it, where it is to be another user's.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                cgroup::open(top.as_fd(), COMMANDS, libc::O_DIRECTORY | libc::O_RDONLY)
            }
            made => made,
        });
        let parent = parent.transpose()?;
        let events = |parent: &OwnedFd| {
            cgroup::open(parent.as_fd(), c"cgroup.events", libc::O_RDONLY).map(File::from)
        };
        Ok(Self {
            events: parent.as_ref().map(events).transpose()?,
            parent,
            made: 0,
            spare: Vec::new(),
            leftover: VecDeque::new(),
        })
    }

    /// Has all commands stop, those included that are started later, or go on.
    ///
    /// # Errors
    /// `Unsupported` without cgroups.
    pub(super) fn freeze(&self, freeze: bool) -> io::Result<()> {
        let parent = self.parent().ok_or(io::ErrorKind::Unsupported)?;
        let text = if freeze { b"1" } else { b"0" };
        cgroup::write(parent, c"cgroup.freeze", text)
    }

    /// The file that changes when all commands have stopped.
    pub(super) fn events(&self) -> Option<&File> {
        self.events.as_ref()
    }

    /// Whether all commands have stopped.
    pub(super) fn are_frozen(&self) -> bool {
        self.events
            .as_ref()
            .is_some_and(|events| says(events, b"frozen 1"))
    }

    /// An empty cgroup for a command.
    pub(super) fn take(&mut self) -> io::Result<Option<CommandCgroup>> {
        let Some(parent) = &self.parent else {
            return Ok(None);
        };
        if let Some(spare) = self.spare.pop() {
            return Ok(Some(spare));
        }
        let name = CString::new(format!("p{}", self.made))?;
        self.made += 1;
        let directory = cgroup::make(parent.as_fd(), &name)?;
        let events = cgroup::open(directory.as_fd(), c"cgroup.events", libc::O_RDONLY)?.into();
        Ok(Some(CommandCgroup {
            name,
            directory,
            events,
            killed: false,
        }))
    }

    /// How many processes are left of commands that have ended.
    pub(super) fn leftovers(&self) -> usize {
        let counts = self.leftover.iter().map(|cgroup| cgroup.pids());
        counts.flatten().map(|pids| pids.len()).sum()
    }

    /// The cgroup that commands have theirs in.
    pub(super) fn parent(&self) -> Option<BorrowedFd<'_>> {
        self.parent.as_ref().map(AsFd::as_fd)
    }

    /// Opens the cgroup of the command that the process `pid` belongs to, if it belongs to one.
    pub(super) fn find(&self, pid: u32) -> Option<OwnedFd> {
        // A path in the sandbox's own namespace of cgroups, in which the cgroup of PID 1 is the root.
        let list = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
        let name = command_name(&list)?;
        cgroup::open(
            self.parent()?,
            &CString::new(name).ok()?,
            libc::O_DIRECTORY | libc::O_RDONLY,
        )
        .ok()
    }

    /// The command of `group` has ended. Its cgroup is looked after once its last process has.
    pub(super) fn retire(&mut self, group: Group) {
        self.leftover.extend(group.cgroup);
    }

    /// A command was not started in `cgroup`.
    pub(super) fn put_back(&mut self, cgroup: Option<CommandCgroup>) {
        self.spare.extend(cgroup);
    }

    /// Keeps or removes cgroups that have become empty. Looks at a bounded number of them, at others the next time.
    pub(super) fn sweep(&mut self) {
        for _ in 0..self.leftover.len().min(SWEEP) {
            match self.leftover.pop_front() {
                Some(cgroup) if cgroup.is_populated() => self.leftover.push_back(cgroup),
                Some(cgroup) if self.spare.len() < SPARE && !cgroup.killed => {
                    self.spare.push(cgroup);
                }
                Some(cgroup) => self.remove(&cgroup),
                None => {}
            }
        }
    }

    fn remove(&self, cgroup: &CommandCgroup) {
        if let Some(parent) = &self.parent {
            // It is empty and stays so. What could not be removed all the same goes with the sandbox.
            let _ = cgroup::remove(parent.as_fd(), &cgroup.name);
        }
    }
}
