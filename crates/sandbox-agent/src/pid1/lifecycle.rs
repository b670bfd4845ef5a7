//! The life of a command after its start: its output on the way to readers, its timeout, its end, and how long it is
//! remembered.

use sandbox_agent::protocol::agent::{Event, Exit};

use super::agent::{Agent, Processes, Task};
use super::connection::Delivered;
use super::deadlines::{Due, after};
use super::oom::OomCounter;
use super::process::{Phase, Process};
use super::stdin::Written;
use super::stream::Stream;
use super::token::Token;
use crate::sys::signal;

/// How often a process's output goes round before others have their turn.
const ROUNDS: usize = 16;

/// How many children are waited for before others have their turn.
const REAP_TURN: usize = 256;

/// Most ended processes whose exit is remembered.
const MAX_ENDED: usize = 1024;

/// Most ended processes whose output is kept.
const MAX_ENDED_RINGS: usize = 64;

/// Most bytes of output of ended processes that are kept.
const MAX_ENDED_BYTES: usize = 8 * 1024 * 1024;

impl Agent {
    /// There is output, or its end. Read at once, so that two streams come in the order of their events.
    pub(super) fn output_event(&mut self, number: u64, index: usize, hung_up: bool) {
        let keep = self.kept_for_foreground(number);
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        if let Some(stream) = process.streams.get_mut(index) {
            stream.wake(hung_up);
            process.fill_one(index, keep);
            self.later(Task::Pump(number));
        }
    }

    /// Moves output from the streams of a process to its ring and from there to its readers.
    pub(super) fn pump(&mut self, number: u64) {
        for _ in 0..ROUNDS {
            let delivered = self.deliver(number);
            let keep = self.kept_for_foreground(number);
            let Some(process) = self.processes.get_mut(&number) else {
                return;
            };
            let more = process.fill(keep);
            if process.is_settled() {
                self.finish(number);
            } else if !more && !delivered {
                return;
            }
        }
        self.later(Task::Pump(number));
    }

    /// What the only reader needs, if the program waits for it: from there on nothing may be dropped.
    fn kept_for_foreground(&self, number: u64) -> Option<u64> {
        let process = self.processes.get(&number)?;
        let foreground = process.foreground?;
        let needed = |id: &u64| self.connections.get(id)?.needed();
        let mut readers = process.attachments.iter().filter(|id| needed(id).is_some());
        match (readers.next(), readers.next()) {
            (Some(only), None) if *only == foreground => needed(only),
            _ => None,
        }
    }

    /// Sends what is in the ring. Returns whether something was sent and there may be more.
    fn deliver(&mut self, number: u64) -> bool {
        let Some(process) = self.processes.get_mut(&number) else {
            return false;
        };
        let mut more = false;
        let mut over = Vec::new();
        for id in &process.attachments {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            match connection.deliver(&process.ring, process.exit()) {
                Delivered::Nothing => {}
                Delivered::Some => more = true,
                Delivered::Everything => over.push(*id),
            }
        }
        process.attachments.retain(|id| !over.contains(id));
        if !over.is_empty() {
            self.rest.touch();
        }
        for id in over {
            self.later(Task::Serve(id));
        }
        more
    }

    /// Takes every child that has ended: main processes of commands, file workers, and orphans.
    pub(super) fn reap(&mut self) {
        let mut turn = 0..REAP_TURN;
        while let Some((pid, status)) = turn.next().and_then(|_| signal::reap()) {
            if let Some(number) = self.pids.remove(&pid) {
                self.main_ended(number, pid, status);
            } else if self
                .reserve
                .as_ref()
                .is_some_and(|recruit| recruit.pid == pid)
            {
                self.dismiss_reserve();
            } else if self.worker_ended(pid) {
                self.rest.touch();
            } else {
                self.sudo_ended(pid, status);
            }
        }
        while let Some(pid) = turn.next().and_then(|_| signal::take_stopped()) {
            self.resume_own(pid);
        }
        if turn.is_empty() {
            self.later(Task::Reap);
        }
        for number in self.lingering.clone() {
            let group = self
                .processes
                .get(&number)
                .and_then(|process| process.group.as_ref());
            if group.is_none_or(|group| group.is_empty()) {
                self.conclude_lingering(number);
            }
        }
        self.later(Task::Sweep);
        self.check_claim();
    }

    /// Lets a stopped child go on if it is one that the host waits for: a file worker, or a command before its program
    /// runs. The program itself may be stopped.
    fn resume_own(&mut self, pid: u32) {
        let is_starting = |number: &u64| {
            let process = self.processes.get(number);
            process.is_some_and(|process| !process.is_started())
        };
        let is_worker = self.workers.contains(&pid) || self.watchers.contains(&pid);
        if is_worker || self.pids.get(&pid).is_some_and(is_starting) {
            // It is a child that was not waited for, so it is there.
            let _ = signal::kill(pid.cast_signed(), libc::SIGCONT);
        }
    }

    fn main_ended(&mut self, number: u64, pid: u32, status: i32) {
        // Killed before it could run the program, perhaps; then the pipe is closed now.
        self.resolve_start(number);
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        if process.pid != pid {
            return;
        }
        let exit = exit_of(status, process, &mut self.oom);
        process.stdin.shut();
        if let Some(terminal) = &mut process.terminal {
            terminal.slave = None;
        }
        let in_grace = process.timed_out && !process.killed;
        if in_grace
            && process
                .group
                .as_ref()
                .is_some_and(|group| !group.is_empty())
        {
            process.phase = Phase::Lingering(exit);
            self.lingering.insert(number);
        } else {
            self.conclude(number, exit);
        }
    }

    /// The command is over. What can be read of its output right now is still taken.
    fn conclude(&mut self, number: u64, exit: Exit) {
        self.cancel_deadlines(number);
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        process.phase = Phase::Draining(exit);
        process.streams.iter_mut().for_each(Stream::conclude);
        if let Some(group) = process.group.take() {
            self.cgroups.retire(group);
        }
        // Requests that waited for room in standard input.
        for id in process.attachments.clone() {
            self.later(Task::Serve(id));
        }
        self.later(Task::Pump(number));
    }

    fn conclude_lingering(&mut self, number: u64) {
        self.lingering.remove(&number);
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        if let Phase::Lingering(exit) = &process.phase {
            let exit = exit.clone();
            self.conclude(number, exit);
        }
    }

    /// All output was taken: from here on the process has ended for everybody.
    fn finish(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let Phase::Draining(exit) = &process.phase else {
            return;
        };
        process.phase = Phase::Ended(exit.clone(), crate::sys::timer::now());
        process.terminal = None;
        match process.ring.reclaim() {
            Some(ring) => self.spare_ring = Some(ring),
            None => self.ended_rings.push_back(number),
        }
        let streams = std::mem::take(&mut process.streams);
        for (index, mut stream) in (0..).zip(streams) {
            if let Some(file) = stream.take_file() {
                self.drain_from_now_on(Token::Output(number, index), file);
            }
        }
        self.ended.push_back(number);
        self.trim_ended();
    }

    /// Forgets ended processes beyond the bounds, oldest first, unless somebody still reads them.
    fn trim_ended(&mut self) {
        let processes = &mut self.processes;
        let in_use = |process: &Process| !process.attachments.is_empty();
        let footprint = |number: &u64, processes: &Processes| {
            processes
                .get(number)
                .map_or(0, |process| process.ring.footprint())
        };
        let mut bytes: usize = self
            .ended_rings
            .iter()
            .map(|number| footprint(number, processes))
            .sum();
        while self.ended_rings.len() > MAX_ENDED_RINGS || bytes > MAX_ENDED_BYTES {
            let unused = |number: &u64| !processes.get(number).is_some_and(in_use);
            let Some(number) = self
                .ended_rings
                .iter()
                .position(unused)
                .and_then(|at| self.ended_rings.remove(at))
            else {
                break;
            };
            bytes -= footprint(&number, processes);
            if let Some(process) = processes.get_mut(&number) {
                process.ring.release();
            }
        }
        while self.ended.len() > MAX_ENDED {
            let unused = |number: &u64| !processes.get(number).is_some_and(in_use);
            let Some(number) = self
                .ended
                .iter()
                .position(unused)
                .and_then(|at| self.ended.remove(at))
            else {
                break;
            };
            processes.remove(&number);
            self.ended_rings.retain(|other| *other != number);
        }
    }

    /// The command's time is over: everything in it is asked to end.
    pub(super) fn time_out(&mut self, number: u64) {
        let Some(process) = self
            .processes
            .get_mut(&number)
            .filter(|process| process.is_alive())
        else {
            return;
        };
        process.timed_out = true;
        if let (Some(group), Some(at)) = (&process.group, after(process.grace_ms)) {
            // What cannot be asked is killed after the grace. A stopped process has to go on in order to end.
            let _ = group.signal_tree(libc::SIGTERM);
            let _ = group.signal_tree(libc::SIGCONT);
            self.deadlines.add(at, Due::Grace(number));
        } else {
            self.end_grace(number);
        }
    }

    /// What has not ended by now is made to.
    pub(super) fn end_grace(&mut self, number: u64) {
        self.kill(number);
        self.conclude_lingering(number);
    }

    /// Kills every process of a command.
    pub(super) fn kill(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        process.killed = true;
        if let Some(group) = &mut process.group {
            // It cannot fail for processes of this namespace, PID 1 being its root.
            let _ = group.kill();
        }
    }

    pub(super) fn cancel_deadlines(&mut self, number: u64) {
        self.deadlines.cancel(Due::Timeout(number));
        self.deadlines.cancel(Due::Grace(number));
    }

    /// Standard input may take more now.
    pub(super) fn flush_stdin(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        if process.stdin.is_waiting() {
            let written = process.stdin.flush();
            self.after_stdin(number, written);
        }
    }

    /// Goes on after bytes for standard input were written, or not.
    pub(super) fn after_stdin(&mut self, number: u64, written: Written) {
        let Some(process) = self.processes.get(&number) else {
            return;
        };
        if written == Written::Waiting {
            return;
        }
        for id in process.attachments.clone() {
            if let Some(connection) = self
                .connections
                .get_mut(&id)
                .filter(|_| written == Written::Unread)
            {
                connection.send(&Event::StdinClosed {});
            }
            self.later(Task::Serve(id));
        }
    }
}

/// How a command ended whose main process has this wait status.
fn exit_of(status: i32, process: &Process, oom: &mut OomCounter) -> Exit {
    const KILLED: i32 = 128 + libc::SIGKILL;
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal {
            signal: libc::WTERMSIG(status),
        }
    } else {
        Exit::Code {
            code: libc::WEXITSTATUS(status),
        }
    };
    let looks_killed = matches!(
        exit,
        Exit::Signal {
            signal: libc::SIGKILL
        } | Exit::Code { code: KILLED }
    );
    if process.timed_out {
        Exit::TimedOut {}
    } else if looks_killed && !process.killed && oom.explain(process.oom_kills) {
        Exit::OutOfMemory {}
    } else {
        exit
    }
}
