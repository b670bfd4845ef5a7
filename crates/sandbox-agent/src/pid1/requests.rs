//! What the host asks, request by request.

use std::io;
use std::os::fd::AsFd as _;

use sandbox_agent::protocol::agent::{Event, Failure, Position, Request, Spawn};
use sandbox_agent::protocol::{MAX_MESSAGE, VERSION, Wire as _};

use super::agent::{Agent, MAX_ATTACHED, Task};
use super::connection::{Attachment, Connection};
use super::deadlines::{Due, after, milliseconds};
use super::process::{Phase, Process};
use super::refusal::Refusal;
use super::token::Token;
use crate::sys::clone::{Forked, fork};
use crate::sys::epoll::Watch;
use crate::sys::timer::now;
use crate::sys::{inherit, pipe, program, pty, signal};

/// Requests that one connection may make before others have their turn.
const TURN: usize = 16;

/// Most processes that run at a time.
const MAX_RUNNING: usize = 4096;

/// Most file workers at a time. Further connections wait for one to end.
const MAX_WORKERS: usize = 64;

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

    /// Whether the next request of a connection may be taken: not while it, or standard input, is full, nor what is for
    /// a file worker to come, nor before a pause has come.
    fn may_serve(&self, id: u64) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        let process = connection
            .attachment
            .as_ref()
            .and_then(|attachment| self.processes.get(&attachment.process));
        connection.is_readable()
            && !process.is_some_and(|process| process.stdin.is_waiting())
            && !self.waiting_for_worker.contains(&id)
            && !self.rest.is_awaited_by(id)
    }

    /// Closes a connection that breaks the protocol.
    fn reject(&mut self, id: u64, message: &str) {
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
            Request::Stdin { .. } | Request::CloseStdin {} if late => return,
            Request::Stdin { .. } | Request::CloseStdin {} => {
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
            Request::Files {} => return self.files(id),
            Request::Shutdown {} => self.end(),
            Request::Pause {} => return self.pause(id),
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
            Request::Begin { env, lifetime_ms } => self.begin(env, lifetime_ms),
        };
        self.answer(id, &answer.unwrap_or_else(Refusal::into_event));
    }

    pub(super) fn answer(&mut self, id: u64, event: &Event) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send(event);
        }
    }

    fn attached_request(&mut self, id: u64, number: u64, request: Request) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        match request {
            Request::Stdin { data } => {
                let written = process.stdin.write(data.0);
                self.after_stdin(number, written);
            }
            Request::CloseStdin {} => {
                let written = process.stdin.close();
                self.after_stdin(number, written);
            }
            _ => self.reject(
                id,
                "this connection is attached to a process; use another one for other requests",
            ),
        }
    }

    fn info(&self, version: u32) -> Answer {
        if version != VERSION {
            let message = format!(
                "this sandbox speaks version {VERSION} of the protocol, not version {version}"
            );
            return Err(Refusal::invalid(message));
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
            paused: self.rest.is_asleep(),
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

    fn running(&self) -> usize {
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

    fn spawn(&mut self, id: u64, spawn: Spawn) -> Result<(), Refusal> {
        self.require_attachable()?;
        self.rest.require_awake()?;
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
            connection.attachment = Some(Attachment {
                process: number,
                position: Some(0),
                announced: false,
            });
        }
        if let Some(at) = timeout {
            self.deadlines.add(at, Due::Timeout(number));
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

    fn attach(&mut self, id: u64, number: u64, from: &Position) -> Result<(), Refusal> {
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
            connection.attachment = Some(Attachment {
                process: number,
                position,
                announced,
            });
        }
        self.later(Task::Pump(number));
        Ok(())
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

    /// Hands a connection to a new file worker, as soon as there may be one more.
    fn files(&mut self, id: u64) {
        if self.workers.len() >= MAX_WORKERS {
            self.waiting_for_worker.push_back(id);
        } else if let Err(error) = self.start_worker(id)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            let refusal = Refusal::system("start a file worker", &error);
            connection.send(&refusal.into_event());
            connection.is_refused = true;
            self.later(Task::Serve(id));
        }
    }

    /// Serves those who wait for a file worker, after one has ended.
    pub(super) fn start_waiting_workers(&mut self) {
        while self.workers.len() < MAX_WORKERS
            && let Some(id) = self.waiting_for_worker.pop_front()
        {
            self.files(id);
        }
    }

    fn start_worker(&mut self, id: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get(&id) else {
            return Ok(());
        };
        match fork(None)? {
            Forked::Child => become_worker(self.connections.remove(&id)),
            Forked::Parent(pid) => {
                self.workers.insert(pid);
                self.unwatch(connection);
                self.remove_connection(id);
                Ok(())
            }
        }
    }
}

/// Serves files on a connection, in a process of its own that keeps nothing else of PID 1.
fn become_worker(connection: Option<Connection>) -> ! {
    let prepare = |connection: Connection| {
        let socket = connection.into_socket();
        signal::reset()?;
        pipe::set_nonblocking(socket.as_fd(), false)?;
        inherit::close_all_but(&[socket.as_fd()])?;
        Ok::<_, io::Error>(socket)
    };
    match connection.map(prepare) {
        Some(Ok(socket)) => crate::files::serve(socket),
        _ => program::exit(1),
    }
}

fn unknown(number: u64) -> Refusal {
    Refusal::new(
        Failure::NotFound {},
        format!("the sandbox has no process {number}, or no longer knows it"),
    )
}
