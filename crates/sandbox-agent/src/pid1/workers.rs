//! File workers: the processes that connections for file work are handed to.

use std::io;
use std::os::fd::AsFd as _;

use super::agent::{Agent, Task};
use super::connection::Connection;
use super::refusal::Refusal;
use crate::sys::clone::{Forked, fork};
use crate::sys::{inherit, pipe, program, signal};

/// Most file workers at a time. Further connections wait for one to end.
const MAX_WORKERS: usize = 64;

impl Agent {
    /// Hands a connection to a new file worker, as soon as there may be one more.
    pub(super) fn files(&mut self, id: u64) {
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
