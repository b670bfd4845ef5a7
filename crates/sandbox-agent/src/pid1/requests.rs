//! What the host asks, request by request.

use std::io;

use sandbox_agent::protocol::agent::{Event, Failure, Request};
use sandbox_agent::protocol::{MAX_MESSAGE, VERSION, Wire as _};

use super::agent::{Agent, Task};
use super::deadlines::{Due, milliseconds};
use super::process::Process;
use super::refusal::Refusal;
use crate::sys::timer::now;
use crate::sys::{pty, signal};

/// Requests that one connection may make before others have their turn.
const TURN: usize = 16;

/// Bytes of each command line in a list of processes, if it would be too long otherwise.
const SHORT_COMMAND_LINE: usize = 128;

/// What is known after a request.
pub(super) type Answer = Result<Event, Refusal>;

impl Agent {
    /// Serves the requests of a connection, as many as may be served now.
    pub(super) fn serve(&mut self, id: u64) {
        for _ in 0..TURN {
            if !self.may_serve(id) {
                return;
            }
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            let message = match connection.receive() {
                Ok(Some(message)) => message,
                Ok(None) => return self.close(id),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.reject(id, &error.to_string()),
            };
            if connection.is_refused {
                continue;
            }
            match Request::decode(&message.bytes) {
                Ok(request) => self.request(id, request),
                Err(error) => return self.reject(id, &error.to_string()),
            }
        }
        if self.may_serve(id) {
            self.later(Task::Serve(id));
        }
    }

    /// Whether the next request of a connection may be taken: not while it, or standard input that it may bring
    /// more for, is full, nor what is for a file worker to come, nor before a pause has come, nor while another one has
    /// the sandbox for itself.
    fn may_serve(&self, id: u64) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        let process = connection
            .attachment
            .as_ref()
            .and_then(|attachment| self.processes.get(&attachment.process));
        connection.is_readable()
            && (connection.shares() || !process.is_some_and(|process| process.stdin.is_waiting()))
            && !self.waiting_for_worker.contains(&id)
            && !self.rest.is_awaited_by(id)
            && !self.claim.is_awaited_by(id)
            && self.claim.lets(id)
    }

    /// Closes a connection that breaks the protocol.
    pub(super) fn reject(&mut self, id: u64, message: &str) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.fail(Failure::Invalid {}, message);
        }
        self.close(id);
    }

    /// Closes a connection. The process that it was attached to goes on, and no longer waits for it.
    fn close(&mut self, id: u64) {
        let Some(connection) = self.remove_connection(id) else {
            return;
        };
        if connection.reaches_ports {
            self.rest.touch();
        }
        let Some(attachment) = connection.attachment else {
            return;
        };
        self.rest.touch();
        if let Some(process) = self.processes.get_mut(&attachment.process) {
            process.attachments.retain(|other| *other != id);
            if process.foreground == Some(id) {
                process.foreground = None;
            }
            self.later(Task::Pump(attachment.process));
        }
    }

    fn request(&mut self, id: u64, request: Request) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if let Some(attachment) = &connection.attachment {
            return self.attached_request(id, attachment.process, request);
        }
        let late = connection.was_attached;
        if let Err(refusal) = self.admit(&request) {
            return self.answer(id, &refusal.into_event());
        }
        let answer = match request {
            Request::Stdin { .. }
            | Request::CloseStdin {}
            | Request::Share {}
            | Request::Taken { .. }
                if late =>
            {
                return;
            }
            Request::Stdin { .. }
            | Request::CloseStdin {}
            | Request::Share {}
            | Request::Taken { .. } => {
                return self.reject(id, "this connection is not attached to a process");
            }
            Request::Spawn { spawn } => match self.spawn(id, spawn) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Attach { process, from } => match self.attach(id, process, &from) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Network {} => match self.serve_network(id) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Connect { port, v6 } => match self.connect(id, port, v6) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Files { watch: false } => return self.files(id),
            Request::Files { watch: true } => return self.watcher(id),
            Request::Shutdown {} => self.end(),
            Request::Pause {} => return self.pause(id),
            Request::Hold {} => return self.hold(id),
            Request::Claim {} => return self.claim(id),
            Request::Places {} => return self.hand_out_places(id),
            Request::Resume {} => self.resume(),
            Request::SetExpiry { pauses, idle_ms } => self.set_expiry(pauses, idle_ms),
            Request::Info { version } => self.info(version),
            Request::List {} => Ok(self.list()),
            Request::Usage {} => Ok(self.usage()),
            Request::Signal {
                process,
                signal,
                tree,
            } => self.signal(process, signal, tree),
            Request::Resize {
                process,
                rows,
                columns,
            } => self.resize(process, rows, columns),
            Request::SetLifetime { remaining_ms } => {
                self.set_lifetime(remaining_ms);
                Ok(Event::Done {})
            }
            Request::Detach {} => {
                self.let_owner_go();
                Ok(Event::Done {})
            }
            Request::Wait {} => {
                self.later(Task::Recruit);
                Ok(Event::Done {})
            }
            Request::Begin {
                env,
                lifetime_ms,
                max_processes,
                limits,
            } => self.begin(env, lifetime_ms, max_processes, &limits),
        };
        self.answer(id, &answer.unwrap_or_else(Refusal::into_event));
    }

    pub(super) fn answer(&mut self, id: u64, event: &Event) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send(event);
        }
    }

    fn info(&mut self, version: u32) -> Answer {
        if version != VERSION {
            let message = format!(
                "this sandbox speaks version {VERSION} of the protocol, not version {version}"
            );
            return Err(Refusal::invalid(message));
        }
        if self.next_process == 1 {
            // Its maker's first question. The first command is not far.
            self.later(Task::Recruit);
        }
        let remaining = self
            .deadlines
            .when(Due::Lifetime)
            .map(|at| milliseconds(at.saturating_sub(now())));
        Ok(Event::Info {
            version: VERSION,
            name: self.name.clone(),
            uptime_ms: milliseconds(now().saturating_sub(self.started)),
            remaining_ms: remaining,
            running: u32::try_from(self.running()).unwrap_or(u32::MAX),
            paused: self.rest.is_paused(),
        })
    }

    fn usage(&self) -> Event {
        let groups = self.processes.values().filter_map(|p| p.group.as_ref());
        let running: usize = groups.filter_map(|group| group.population()).sum();
        let count = running + self.cgroups.leftovers();
        let is_known = self.cgroups.parent().is_some();
        Event::Usage {
            processes: is_known.then_some(count as u64),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.processes.len() - self.ended.len()
    }

    fn list(&self) -> Event {
        let list = |command_line| {
            let entry = |(number, process): (&u64, &Process)| process.entry(*number, command_line);
            Event::Processes {
                processes: self.processes.iter().map(entry).collect(),
            }
        };
        let event = list(usize::MAX);
        if event.encode().len() <= MAX_MESSAGE {
            event
        } else {
            list(SHORT_COMMAND_LINE)
        }
    }

    fn signal(&mut self, number: u64, signal: i32, tree: bool) -> Answer {
        if !(1..=signal::LAST).contains(&signal) {
            let message = format!(
                "{signal} is not a signal; those are numbered 1 to {}",
                signal::LAST
            );
            return Err(Refusal::invalid(message));
        }
        let process = self
            .processes
            .get_mut(&number)
            .ok_or_else(|| unknown(number))?;
        // While others of its tree have the rest of their grace, only the end of it can be hastened.
        let lasts = process.is_alive() || signal == libc::SIGKILL;
        let group = process.group.as_ref().filter(|_| lasts).ok_or_else(|| {
            Refusal::new(Failure::State {}, format!("process {number} has ended"))
        })?;
        if signal == libc::SIGKILL {
            self.kill(number);
            return Ok(Event::Done {});
        }
        let result = if tree {
            group.signal_tree(signal)
        } else {
            group.signal(signal)
        };
        result
            .map(|()| Event::Done {})
            .map_err(|error| Refusal::system("send the signal", &error))
    }

    fn resize(&self, number: u64, rows: u16, columns: u16) -> Answer {
        let process = self.processes.get(&number).ok_or_else(|| unknown(number))?;
        let terminal = process.terminal.as_ref().ok_or_else(|| {
            Refusal::new(
                Failure::State {},
                format!("process {number} has ended or has no terminal"),
            )
        })?;
        let result = pty::resize(&terminal.master, rows, columns);
        result
            .map(|()| Event::Done {})
            .map_err(|error| Refusal::system("resize the terminal", &error))
    }
}

pub(super) fn unknown(number: u64) -> Refusal {
    Refusal::new(
        Failure::NotFound {},
        format!("the sandbox has no process {number}, or no longer knows it"),
    )
}
