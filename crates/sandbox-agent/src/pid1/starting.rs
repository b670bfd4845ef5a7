//! The first moments of a command: whether it has started, and the process that is ready for the next one.

use std::io;
use std::os::fd::AsFd as _;

use sandbox_agent::protocol::Wire as _;
use sandbox_agent::protocol::agent::{Event, Failure};

use super::agent::{Agent, Task};
use super::begin::Stage;
use super::deadlines::{Due, after};
use super::launch::Order;
use super::process::{Phase, Start};
use super::refusal::Refusal;
use super::token::Token;
use crate::sys::epoll::Watch;
use crate::sys::socket;

/// Milliseconds without a new command after which no process is kept ready for one.
const RESERVE_MS: u64 = 10_000;

/// As [`RESERVE_MS`], where no command has come yet: who makes many sandboxes at once may leave them idle.
const FIRST_RESERVE_MS: u64 = 1_000;

impl Agent {
    /// A new process says why it cannot run the program, or has closed the socket because it does.
    pub(super) fn resolve_start(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let Phase::Starting(start) = &mut process.phase else {
            return;
        };
        let failed = match socket::receive(start.status.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => match start.take_unheard() {
                // It was killed before it heard what to become, perhaps before it was told.
                Some(order) if !process.killed && !process.timed_out => {
                    match self.start_again(number, &order) {
                        Ok(()) => return,
                        Err(refusal) => Some(refusal.into_event()),
                    }
                }
                // It runs, or was killed on its way to the program.
                _ => None,
            },
            Ok(Some(message)) => Some(failure_in(&message.bytes)),
        };
        match failed {
            Some(event) => self.announce_failure(number, &event),
            None => self.announce_start(number),
        }
    }

    /// Tells the attachments of a process that it has started.
    fn announce_start(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        process.phase = Phase::Running;
        for id in &process.attachments {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            connection.send(&Event::Started {
                process: number,
                pid: process.pid,
                at: connection.position().unwrap_or(0),
            });
            if let Some(attachment) = &mut connection.attachment {
                attachment.announced = true;
            }
        }
        self.later(Task::Pump(number));
        // Most sandboxes run only one command.
        if number > 1 {
            self.later(Task::Recruit);
        }
    }

    /// Tells the attachments of a process why it has not started, and forgets it. Its child is reaped when it ends.
    fn announce_failure(&mut self, number: u64, event: &Event) {
        let Some(process) = self.processes.remove(&number) else {
            return;
        };
        self.rest.touch();
        self.pids.remove(&process.pid);
        self.cancel_deadlines(number);
        for id in process.attachments {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.send(event);
                connection.detach();
            }
            self.later(Task::Serve(id));
        }
        if let Some(group) = process.group {
            self.cgroups.retire(group);
        }
    }

    /// Has another process become a command that the first one never came to.
    fn start_again(&mut self, number: u64, order: &Order) -> Result<(), Refusal> {
        let recruit = self.launcher.execute(order, &mut self.cgroups)?;
        let start = Start {
            status: recruit.orders,
            again: None,
        };
        self.watch(&start.status, Token::Status(number), Watch::Readable)
            .map_err(|error| Refusal::system("watch another command", &error))?;
        let Some(process) = self.processes.get_mut(&number) else {
            return Ok(());
        };
        self.pids.remove(&process.pid);
        self.pids.insert(recruit.pid, number);
        process.pid = recruit.pid;
        process.phase = Phase::Starting(start);
        if let Some(group) = process.group.replace(recruit.group) {
            self.cgroups.retire(group);
        }
        Ok(())
    }

    /// Forks the process that becomes the next command. If that fails, it is tried again when a command comes.
    pub(super) fn recruit(&mut self) {
        if self.reserve.is_none() && self.rest.is_awake() {
            self.reserve = self.launcher.recruit(&mut self.cgroups).ok();
        }
        self.deadlines.cancel(Due::Reserve);
        let patience = if self.next_process == 1 {
            FIRST_RESERVE_MS
        } else {
            RESERVE_MS
        };
        if let Some(at) = after(patience).filter(|_| self.stage != Stage::Waits) {
            self.deadlines.add(at, Due::Reserve);
        }
    }

    /// Lets the process go that waits to become a command.
    pub(super) fn dismiss_reserve(&mut self) {
        if let Some(recruit) = self.reserve.take() {
            self.cgroups.retire(recruit.group);
        }
    }
}

/// Why a command was not started, as its process has put it.
fn failure_in(message: &[u8]) -> Event {
    match Event::decode(message) {
        Ok(event @ Event::Failed { .. }) => event,
        _ => Event::Failed {
            failure: Failure::Internal {},
            message: "the command could not be started".into(),
        },
    }
}
