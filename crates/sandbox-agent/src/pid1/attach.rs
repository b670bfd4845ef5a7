//! Connections that follow a command: how they begin, and what comes in on them.

use std::io;

use sandbox_agent::protocol::agent::{Event, Failure, Position, Request, Spawn};

use super::agent::{Agent, MAX_ATTACHED, Task};
use super::connection::{Attachment, Connection};
use super::deadlines::{Due, after};
use super::process::{Phase, Process};
use super::refusal::Refusal;
use super::requests::unknown;
use super::token::Token;
use crate::sys::epoll::Watch;

/// Most processes that run at a time.
const MAX_RUNNING: usize = 4096;

impl Agent {
    /// Whether one more connection may follow a process.
    fn require_attachable(&self) -> Result<(), Refusal> {
        let attached = || self.connections.values().filter(|c| c.attachment.is_some());
        // Counted only where it can matter.
        if self.connections.len() > MAX_ATTACHED && attached().count() >= MAX_ATTACHED {
            let message = format!("{MAX_ATTACHED} connections follow commands already");
            return Err(Refusal::new(Failure::Exhausted {}, message));
        }
        Ok(())
    }

    pub(super) fn spawn(&mut self, id: u64, spawn: Spawn) -> Result<(), Refusal> {
        self.require_attachable()?;
        self.rest.require_unpaused()?;
        if self.running() >= MAX_RUNNING {
            let message = format!("the sandbox has {MAX_RUNNING} commands running already");
            return Err(Refusal::new(Failure::Exhausted {}, message));
        }
        let number = self.next_process;
        let oom_kills = self.oom.read();
        let launched = self.launcher.start(
            &spawn,
            self.spare_ring.take(),
            &mut self.reserve,
            &mut self.cgroups,
        )?;
        self.next_process += 1;
        let timeout = after(spawn.timeout_ms);
        let mut process = Process::new(launched, spawn, oom_kills);
        if let Err(error) = self.watch_process(number, &process) {
            return Err(self.give_up(process, &error));
        }
        process.foreground = Some(id);
        process.attachments.push(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.attachment = Some(Attachment::new(number, Some(0)));
        }
        if let Some(at) = timeout {
            self.deadlines.add(at, Due::Timeout(number));
            if !self.rest.is_awake() {
                // Somebody holds all commands, and this one begins only afterwards.
                self.hold_clocks();
            }
        }
        self.pids.insert(process.pid, number);
        self.processes.insert(number, process);
        Ok(())
    }

    fn watch_process(&self, number: u64, process: &Process) -> io::Result<()> {
        if let Phase::Starting(start) = &process.phase {
            self.watch(&start.status, Token::Status(number), Watch::Readable)?;
        }
        if let Some(stdin) = process.stdin.file() {
            self.watch(stdin, Token::Stdin(number), Watch::Edges)?;
        }
        for (index, stream) in (0..).zip(&process.streams) {
            if let Some(file) = stream.file() {
                self.watch(file, Token::Output(number, index), Watch::Edges)?;
            }
        }
        Ok(())
    }

    /// Ends a process that cannot be looked after.
    fn give_up(&mut self, process: Process, error: &io::Error) -> Refusal {
        if let Some(group) = process.group {
            // It is a child of ours that was not waited for, so it is there.
            let _ = group.signal(libc::SIGKILL);
            self.cgroups.retire(group);
        }
        Refusal::system("watch another command", error)
    }

    pub(super) fn attach(&mut self, id: u64, number: u64, from: &Position) -> Result<(), Refusal> {
        self.require_attachable()?;
        let process = self
            .processes
            .get_mut(&number)
            .ok_or_else(|| unknown(number))?;
        let position = match from {
            Position::Now {} => Some(process.ring.end()),
            Position::Cursor { at } => Some(process.ring.end().min(*at)),
            Position::Nothing {} => None,
        };
        let announced = process.is_started();
        if position.is_none() && !announced {
            let message = format!("process {number} has not started yet");
            return Err(Refusal::new(Failure::State {}, message));
        }
        process.attachments.push(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            if announced {
                connection.send(&Event::Started {
                    process: number,
                    pid: process.pid,
                    at: position.unwrap_or(process.ring.end()),
                });
                if position.is_none() {
                    let is_open = process.stdin.file().is_some();
                    let event = if is_open {
                        Event::Done {}
                    } else {
                        Event::StdinClosed {}
                    };
                    connection.send(&event);
                }
            }
            let mut attachment = Attachment::new(number, position);
            attachment.announced = announced;
            connection.attachment = Some(attachment);
        }
        self.later(Task::Pump(number));
        Ok(())
    }

    /// Carries out what may be asked on a connection that follows a process.
    pub(super) fn attached_request(&mut self, id: u64, number: u64, request: Request) {
        let shares = self.connections.get(&id).is_some_and(Connection::shares);
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        match request {
            Request::Stdin { .. } | Request::CloseStdin {} if shares => {
                self.reject(
                    id,
                    "this connection shares the output; use another one for input",
                );
            }
            Request::Stdin { data } => {
                let written = process.stdin.write(data.0);
                self.after_stdin(number, written);
            }
            Request::CloseStdin {} => {
                let written = process.stdin.close();
                self.after_stdin(number, written);
            }
            Request::Share {} => self.share(id, number),
            Request::Taken { at } => self.take(id, number, at),
            _ => self.reject(
                id,
                "this connection is attached to a process; use another one for other requests",
            ),
        }
    }

    /// Lets a reader fetch the output from the ring by itself.
    fn share(&mut self, id: u64, number: u64) {
        let process = self.processes.get_mut(&number);
        let connection = self.connections.get_mut(&id);
        let (Some(process), Some(connection)) = (process, connection) else {
            return;
        };
        if connection.shares() || connection.position().is_none() {
            return self.reject(
                id,
                "this connection shares the output already, or wants none",
            );
        }
        // Without memory for it output comes as before.
        if let Ok(memory) = process.ring.share() {
            connection.share(memory);
        }
    }

    /// A reader that shares the ring has taken what comes before `at`.
    fn take(&mut self, id: u64, number: u64, at: u64) {
        let connection = self.connections.get_mut(&id);
        if connection.is_some_and(|connection| connection.take(at)) {
            self.later(Task::Pump(number));
        } else {
            self.reject(id, "this connection was not given that output");
        }
    }
}
