//! The loop of PID 1: what it owns, what it waits for, and who handles it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::Config;
use super::begin::Stage;
use super::claim::Claim;
use super::connection::Connection;
use super::deadlines::{Deadlines, Due, after};
use super::group::Cgroups;
use super::launch::{Launcher, Recruit};
use super::network::Network;
use super::oom::OomCounter;
use super::pause::Rest;
use super::process::Process;
use super::refusal::Refusal;
use super::ring::Ring;
use super::sudo::Sudo;
use super::token::Token;
use super::workers::Farewell;
use crate::sys::epoll::{Epoll, Ready, Watch};
use crate::sys::program::exit;
use crate::sys::signal::ChildEnds;
use crate::sys::socket;
use crate::sys::timer::now;
use crate::view::{Machine, View};

/// Most connections at a time that follow a process: as many as the commands of a usual sandbox have of them, with one for
/// standard input beside each.
pub(super) const MAX_ATTACHED: usize = 1024;

/// Most connections at a time, so that some are left for other requests. Further ones wait to be accepted.
const MAX_CONNECTIONS: usize = MAX_ATTACHED + 64;

/// Milliseconds until connections are taken again, when there were too many descriptors.
const ACCEPT_AGAIN_MS: u64 = 100;

/// Something that goes on without an event, after others have had their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Requests of a connection wait to be served.
    Serve(u64),
    /// Output of a process waits to be read or delivered.
    Pump(u64),
    /// A stream whose command has ended waits to be emptied.
    Drain(Token),
    /// More children have ended.
    Reap,
    /// Cgroups may have become empty. Late, for nobody waits for that.
    Sweep,
    /// A process is to be ready for the next command. Last, after a cgroup is.
    Recruit,
}

/// Commands by their numbers.
pub(super) type Processes = BTreeMap<u64, Process>;

/// The state of PID 1.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) started: Duration,
    pub(super) stage: Stage,
    /// Of a sandbox of which it is not known yet what it may use.
    pub(super) view: Option<(View, Rc<Machine>)>,
    pub(super) launcher: Launcher,
    pub(super) oom: OomCounter,
    pub(super) cgroups: Cgroups,
    pub(super) deadlines: Deadlines,
    pub(super) rest: Rest,
    pub(super) claim: Claim,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) processes: Processes,
    /// Main processes that were not waited for yet, by PID.
    pub(super) pids: BTreeMap<u32, u64>,
    /// Processes that wait for others of their tree to end.
    pub(super) lingering: BTreeSet<u64>,
    /// Processes that have ended, oldest first.
    pub(super) ended: VecDeque<u64>,
    /// Those of them whose output is kept.
    pub(super) ended_rings: VecDeque<u64>,
    /// Of a command that wrote nothing, for the next one.
    pub(super) spare_ring: Option<Ring>,
    /// File workers, by PID.
    pub(super) workers: BTreeSet<u32>,
    /// Those of them that watch directories and do nothing else, by PID.
    pub(super) watchers: BTreeSet<u32>,
    /// Connections that wait for a file worker, in their order.
    pub(super) waiting_for_worker: VecDeque<u64>,
    /// Closed if workers without a request are to end.
    pub(super) farewell: Option<Farewell>,
    /// A process that waits to become the next command.
    pub(super) reserve: Option<Recruit>,
    /// `None` if the sandbox has no `sudo`.
    pub(super) sudo: Option<Sudo>,
    pub(super) network: Network,
    pub(super) next_process: u64,
    /// What is still written to streams of commands that have ended.
    drains: BTreeMap<Token, File>,
    next_connection: u64,
    pub(super) tasks: BTreeSet<Task>,
    epoll: Epoll,
    children: ChildEnds,
    listener: OwnedFd,
    lifeline: Option<OwnedFd>,
    /// Only held.
    _lock: OwnedFd,
}

impl Agent {
    /// Takes everything over.
    pub(super) fn new(config: Config) -> io::Result<Self> {
        let launcher = Launcher::new(&config)?;
        let mut agent = Self {
            name: config.name,
            started: now(),
            stage: Stage::New,
            view: config.view,
            launcher,
            oom: OomCounter::new(config.oom_counter),
            cgroups: Cgroups::new(config.cgroup)?,
            deadlines: Deadlines::new()?,
            rest: Rest::new(),
            claim: Claim::default(),
            connections: BTreeMap::new(),
            processes: BTreeMap::new(),
            pids: BTreeMap::new(),
            lingering: BTreeSet::new(),
            ended: VecDeque::new(),
            ended_rings: VecDeque::new(),
            spare_ring: None,
            workers: BTreeSet::new(),
            watchers: BTreeSet::new(),
            waiting_for_worker: VecDeque::new(),
            farewell: None,
            reserve: None,
            sudo: if config.is_alone { None } else { Sudo::open() },
            network: Network::new(config.network),
            next_process: 1,
            drains: BTreeMap::new(),
            next_connection: 1,
            tasks: BTreeSet::new(),
            epoll: Epoll::new()?,
            children: ChildEnds::take()?,
            listener: config.listener,
            lifeline: config.owned.then_some(config.lifeline),
            _lock: config.lock,
        };
        agent.set_lifetime(config.lifetime_ms);
        agent.watch(&agent.children, Token::Children, Watch::Readable)?;
        agent.watch(&agent.deadlines, Token::Timer, Watch::Readable)?;
        if let Some(lifeline) = &agent.lifeline {
            agent.watch(lifeline, Token::Lifeline, Watch::HangUp)?;
        }
        crate::sys::pipe::set_nonblocking(agent.listener.as_fd(), true)?;
        agent.watch(&agent.listener, Token::Listener, Watch::Readable)?;
        agent.await_sudo();
        agent.watch_network();
        Ok(agent)
    }

    /// Runs until the sandbox ends.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.deadlines.arm()?;
            self.epoll.wait(&mut ready, self.tasks.is_empty())?;
            for event in &ready {
                self.handle(*event);
            }
            for task in std::mem::take(&mut self.tasks) {
                match task {
                    Task::Serve(number) => self.serve(number),
                    Task::Pump(number) => self.pump(number),
                    Task::Drain(token) => self.drain(token),
                    Task::Reap => self.reap(),
                    Task::Sweep => self.cgroups.sweep(),
                    Task::Recruit => self.recruit(),
                }
            }
        }
    }

    /// Watches a descriptor for as long as it is open.
    pub(super) fn watch(&self, fd: &impl AsFd, token: Token, watch: Watch) -> io::Result<()> {
        self.epoll.add(fd.as_fd(), token.pack(), watch)
    }

    /// Watches a descriptor no longer.
    pub(super) fn unwatch(&self, fd: &impl AsFd) {
        // It was watched; there is nothing that could fail.
        let _ = self.epoll.remove(fd.as_fd());
    }

    /// Has something done after the events at hand.
    pub(super) fn later(&mut self, task: Task) {
        self.tasks.insert(task);
    }

    /// The sandbox no longer ends with its owner.
    pub(super) fn let_owner_go(&mut self) {
        self.lifeline = None;
    }

    /// Ends the sandbox.
    pub(super) fn end(&self) -> ! {
        exit(0)
    }

    fn handle(&mut self, event: Ready) {
        match Token::unpack(event.token) {
            Token::Listener => self.accept(),
            Token::Children => {
                self.children.clear();
                self.reap();
            }
            Token::Timer => self.pass_deadlines(),
            // After a detach in the same batch of events there is no lifeline any more.
            Token::Lifeline if self.lifeline.is_some() => self.end(),
            Token::Lifeline => {}
            Token::Sudo => self.serve_sudo(),
            Token::Frozen => self.check_frozen(),
            Token::Tcp => self.refuse_connections(),
            Token::Dns => self.refuse_questions(),
            Token::Connection(number) => self.connection_event(number, event),
            Token::Status(number) => self.resolve_start(number),
            Token::Stdin(number) => self.flush_stdin(number),
            token @ Token::Output(number, index) => {
                if self.drains.contains_key(&token) {
                    self.later(Task::Drain(token));
                } else {
                    self.output_event(number, index.into(), event.hung_up);
                }
            }
        }
    }

    fn connection_event(&mut self, number: u64, event: Ready) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        connection.wake(event.readable, event.writable, event.hung_up);
        if let Some(attachment) = &connection.attachment {
            let process = attachment.process;
            self.later(Task::Pump(process));
        } else {
            connection.flush();
        }
        self.later(Task::Serve(number));
    }

    fn accept(&mut self) {
        match socket::accept(self.listener.as_fd()) {
            Ok(socket) => self.take_connection(Connection::new(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Without descriptors or memory the listener would stay ready and keep the loop busy.
            Err(_) => {
                self.unwatch(&self.listener);
                if let Some(at) = after(ACCEPT_AGAIN_MS) {
                    self.deadlines.add(at, Due::Accept);
                }
            }
        }
    }

    fn take_connection(&mut self, mut connection: Connection) {
        let number = self.next_connection;
        self.next_connection += 1;
        if let Err(error) = self.watch(&connection, Token::Connection(number), Watch::Edges) {
            // Without a word it would look like the end of the sandbox.
            let refusal = Refusal::system("watch another connection", &error);
            return connection.send(&refusal.into_event());
        }
        self.connections.insert(number, connection);
        self.later(Task::Serve(number));
        if self.connections.len() == MAX_CONNECTIONS {
            self.unwatch(&self.listener);
        }
    }

    /// Takes a connection out, which makes room for one that waits.
    pub(super) fn remove_connection(&mut self, number: u64) -> Option<Connection> {
        let was_full = self.connections.len() == MAX_CONNECTIONS;
        let removed = self.connections.remove(&number)?;
        if was_full {
            self.accept_again();
        }
        self.release(number);
        self.release_network(number);
        Some(removed)
    }

    fn accept_again(&mut self) {
        let result = self.watch(&self.listener, Token::Listener, Watch::Readable);
        if result.is_err()
            && let Some(at) = after(ACCEPT_AGAIN_MS)
        {
            self.deadlines.add(at, Due::Accept);
        }
    }

    fn pass_deadlines(&mut self) {
        self.deadlines.fired();
        // What has ended by itself has not timed out.
        self.reap();
        while let Some(due) = self.deadlines.take_passed() {
            match due {
                Due::Lifetime => self.expire(),
                Due::Idle => self.check_idle(),
                Due::Pause => self.give_up_pause(),
                Due::Timeout(number) => self.time_out(number),
                Due::Grace(number) => self.end_grace(number),
                Due::Accept => self.accept_again(),
                Due::Sudo => self.await_sudo(),
                Due::Reserve => self.dismiss_reserve(),
                Due::Claim => self.refuse_claim(),
                Due::Network => self.watch_network(),
            }
        }
    }

    /// Goes on reading a stream whose command has ended, so that nobody who still writes to it waits or is killed.
    pub(super) fn drain_from_now_on(&mut self, token: Token, file: File) {
        self.drains.insert(token, file);
        self.later(Task::Drain(token));
    }

    fn drain(&mut self, token: Token) {
        let mut nowhere = [0; 16 * 1024];
        let Some(file) = self.drains.get_mut(&token) else {
            return;
        };
        match file.read(&mut nowhere) {
            Ok(count) if count > 0 => self.later(Task::Drain(token)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.later(Task::Drain(token))
            }
            _ => drop(self.drains.remove(&token)),
        }
    }
}
