//! File workers: the processes that connections for file work are handed to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sandbox_agent::protocol::agent::Failure;

use super::agent::{Agent, Task};
use super::connection::Connection;
use super::refusal::Refusal;
use crate::sys::clone::{Forked, fork};
use crate::sys::{inherit, pipe, program, signal};

/// Most file workers at a time. Further connections wait for one to end.
const MAX_WORKERS: usize = 64;

/// Most watches at a time. They last as long as somebody wants them, so nobody waits for the end of one.
const MAX_WATCHERS: usize = 64;

/// What workers without a request look at: they end when the one that writes is gone.
#[derive(Debug)]
pub(super) struct Farewell {
    reader: OwnedFd,
    _writer: OwnedFd,
}

impl Farewell {
    fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            reader: reader.into(),
            _writer: writer.into(),
        })
    }
}

impl Agent {
    /// Hands a connection to a new file worker, as soon as there may be one more.
    pub(super) fn files(&mut self, id: u64) {
        if self.workers.len() >= MAX_WORKERS {
            return self.waiting_for_worker.push_back(id);
        }
        match self.start_worker(id, false) {
            Ok(pid) => self.workers.extend(pid),
            Err(error) => self.refuse_worker(id, Refusal::system("start a file worker", &error)),
        }
    }

    /// Hands a connection to a new worker for a watch.
    pub(super) fn watcher(&mut self, id: u64) {
        if self.watchers.len() >= MAX_WATCHERS {
            let message = format!("{MAX_WATCHERS} directories are watched already, drop one");
            return self.refuse_worker(id, Refusal::new(Failure::Exhausted {}, message));
        }
        match self.start_worker(id, true) {
            Ok(pid) => self.watchers.extend(pid),
            Err(error) => self.refuse_worker(id, Refusal::system("start a file worker", &error)),
        }
    }

    fn refuse_worker(&mut self, id: u64, refusal: Refusal) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send(&refusal.into_event());
            connection.is_refused = true;
            self.later(Task::Serve(id));
        }
    }

    /// Whether a child that has ended was a worker. Serves those who wait for one.
    pub(super) fn worker_ended(&mut self, pid: u32) -> bool {
        if self.watchers.remove(&pid) {
            return true;
        }
        let was_worker = self.workers.remove(&pid);
        self.serve_workers();
        was_worker
    }

    /// Hands connections that wait for a worker to new ones.
    pub(super) fn serve_workers(&mut self) {
        while self.workers.len() < MAX_WORKERS
            && !self.claim.is_made()
            && let Some(id) = self.waiting_for_worker.pop_front()
        {
            self.files(id);
        }
    }

    /// The worker's PID; `None` if the connection is gone.
    fn start_worker(&mut self, id: u64, watch: bool) -> io::Result<Option<u32>> {
        let Some(connection) = self.connections.get(&id) else {
            return Ok(None);
        };
        let farewell = match &self.farewell {
            Some(farewell) => farewell,
            None => self.farewell.insert(Farewell::new()?),
        };
        match fork(None)? {
            Forked::Child => {
                let farewell = farewell.reader.try_clone().ok();
                become_worker(self.connections.remove(&id), farewell, watch)
            }
            Forked::Parent(pid) => {
                self.unwatch(connection);
                self.remove_connection(id);
                Ok(Some(pid))
            }
        }
    }
}

/// Serves files on a connection, in a process of its own that keeps nothing else of PID 1.
fn become_worker(connection: Option<Connection>, farewell: Option<OwnedFd>, watch: bool) -> ! {
    let prepare = |connection: Connection| {
        let socket = connection.into_socket();
        signal::reset()?;
        pipe::set_nonblocking(socket.as_fd(), false)?;
        let keep: Vec<_> = farewell.iter().map(AsFd::as_fd).collect();
        inherit::close_all_but(&[&keep[..], &[socket.as_fd()]].concat())?;
        Ok::<_, io::Error>(socket)
    };
    match connection.map(prepare) {
        Some(Ok(socket)) => crate::files::serve(socket, farewell, watch),
        _ => program::exit(1),
    }
}
