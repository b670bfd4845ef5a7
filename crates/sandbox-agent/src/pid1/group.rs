//! The processes that belong to one command: its cgroup, or without one its process group.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::{cgroup, signal};

/// Longest list of processes that is read.
const MAX_LIST: u64 = 1024 * 1024;

/// How often a signal is sent to the processes that have been started meanwhile.
const ROUNDS: usize = 8;

/// How many left-over cgroups are tried to be removed at a time.
const SWEEP: usize = 16;

/// All processes of one command.
#[derive(Debug)]
pub(super) struct Group {
    /// The main process, which leads the process group.
    pid: i32,
    cgroup: Option<CommandCgroup>,
}

/// The cgroup of one command.
#[derive(Debug)]
pub(super) struct CommandCgroup {
    name: CString,
    directory: OwnedFd,
}

impl CommandCgroup {
    /// The directory, to start a process in.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
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

    /// Sends a signal to every process of the command. None is left is no error.
    pub(super) fn signal_tree(&self, number: i32) -> io::Result<()> {
        let Some(cgroup) = &self.cgroup else {
            return ignore_missing(signal::kill(-self.pid, number));
        };
        if number == libc::SIGKILL
            && cgroup::write(cgroup.directory(), c"cgroup.kill", b"1").is_ok()
        {
            return Ok(());
        }
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

    /// Whether no process of the command is left, the main one apart, which must just have been waited for.
    pub(super) fn is_empty(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.pids().map_or(true, |pids| pids.is_empty()),
            None => signal::kill(-self.pid, 0).is_err(),
        }
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// The name of a command's cgroup in what `/proc/PID/cgroup` says.
fn command_name(list: &[u8]) -> Option<&[u8]> {
    let path = list
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::/"))?;
    let number = path
        .strip_prefix(b"p")
        .filter(|number| !number.is_empty())?;
    number.iter().all(u8::is_ascii_digit).then_some(path)
}

/// Makes the cgroups of commands and removes them.
#[derive(Debug)]
pub(super) struct Cgroups {
    parent: Option<OwnedFd>,
    leftover: VecDeque<CString>,
}

impl Cgroups {
    /// Makes cgroups below `parent`; without one there are none.
    pub(super) fn new(parent: Option<OwnedFd>) -> Self {
        Self {
            parent,
            leftover: VecDeque::new(),
        }
    }

    /// Makes the cgroup of the command `number`.
    pub(super) fn make(&mut self, number: u64) -> io::Result<Option<CommandCgroup>> {
        let Some(parent) = &self.parent else {
            return Ok(None);
        };
        let name = CString::new(format!("p{number}"))?;
        let directory = cgroup::make(parent.as_fd(), &name)?;
        Ok(Some(CommandCgroup { name, directory }))
    }

    /// The cgroup that commands have theirs in.
    pub(super) fn parent(&self) -> Option<BorrowedFd<'_>> {
        self.parent.as_ref().map(AsFd::as_fd)
    }

    /// Opens the cgroup of the command that the process `pid` belongs to, if it belongs to one.
    pub(super) fn find(&self, pid: u32) -> Option<OwnedFd> {
        // A path in the sandbox's own namespace of cgroups, in which the parent is the root.
        let list = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
        let name = command_name(&list)?;
        cgroup::open(
            self.parent()?,
            &CString::new(name).ok()?,
            libc::O_DIRECTORY | libc::O_RDONLY,
        )
        .ok()
    }

    /// The command of `group` has ended. Its cgroup goes once its last process has.
    pub(super) fn retire(&mut self, group: Group) {
        self.discard(group.cgroup);
    }

    /// Removes a cgroup as soon as it is empty.
    pub(super) fn discard(&mut self, cgroup: Option<CommandCgroup>) {
        if let Some(cgroup) = cgroup {
            self.remove(cgroup.name);
        }
    }

    /// Some process has ended: removes cgroups that may have become empty, a bounded number each time.
    pub(super) fn sweep(&mut self) {
        for _ in 0..self.leftover.len().min(SWEEP) {
            if let Some(name) = self.leftover.pop_front() {
                self.remove(name);
            }
        }
    }

    fn remove(&mut self, name: CString) {
        let Some(parent) = &self.parent else { return };
        let result = cgroup::remove(parent.as_fd(), &name);
        if result.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
            self.leftover.push_back(name);
        }
    }
}
