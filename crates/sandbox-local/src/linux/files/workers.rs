//! The workers inside a sandbox that carry out file calls: each call has one for itself, and they are used again.

use super::refused;
use crate::linux::{
    sandbox::{Link, unexpected},
    socket::{self, Connection},
};
use sandbox_agent::protocol::{
    DecodeError, Reader, Wire,
    agent::{Event, Request},
    files::{FileReply, FileRequest},
};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Workers that wait for the next call. They end by themselves when there is none.
const IDLE_WORKERS: usize = 4;
/// Calls that are under way at a time; further ones wait for their turn.
const BUSY_WORKERS: usize = 64;
/// Watches of one handle at a time. The sandbox has as many again for others.
const WATCHES: usize = 32;
/// How long a call waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(60);

/// The way to the workers of one sandbox.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    link: Arc<Link>,
    /// Connections to those that are free.
    idle: Arc<Mutex<Vec<OwnedFd>>>,
    turns: Arc<Semaphore>,
    /// Watches last, and must leave room for those of others.
    watches: Arc<Semaphore>,
}

/// A worker that carries out a call.
pub(super) struct Worker {
    connection: Connection,
    _turn: OwnedSemaphorePermit,
}

/// What comes from the other end of a worker's connection.
enum Answer {
    Worker(FileReply),
    /// PID 1 could not start a worker.
    Refusal(Event),
}

impl Wire for Answer {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Worker(reply) => reply.put(out),
            Self::Refusal(event) => event.put(out),
        }
    }

    fn take(input: &mut Reader<'_>) -> std::result::Result<Self, DecodeError> {
        FileReply::take(input).map(Self::Worker)
    }

    fn decode(input: &[u8]) -> std::result::Result<Self, DecodeError> {
        let reply = FileReply::decode(input).map(Self::Worker);
        reply.or_else(|error| match Event::decode(input) {
            Ok(event @ Event::Failed { .. }) => Ok(Self::Refusal(event)),
            _ => Err(error),
        })
    }
}

impl Workers {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            idle: Arc::default(),
            turns: Arc::new(Semaphore::new(BUSY_WORKERS)),
            watches: Arc::new(Semaphore::new(WATCHES)),
        }
    }

    /// A worker, sent `request` already.
    pub(super) async fn send(&self, request: &FileRequest) -> Result<Worker> {
        self.link.check_user(request.user())?;
        let turn = Arc::clone(&self.turns).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(TURN_WITHIN, turn).await else {
            let message =
                format!("{BUSY_WORKERS} file calls are under way, and none has ended for a while");
            return Err(Error::new(ErrorKind::QuotaExceeded, message));
        };
        let connection = self.send_on_any(request).await?;
        Ok(Worker {
            connection,
            _turn: turn,
        })
    }

    async fn send_on_any(&self, request: &FileRequest) -> Result<Connection> {
        let idle = || {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        };
        while let Some(socket) = idle() {
            let connection = Connection::new(socket).map_err(|error| self.link.failed(error))?;
            if connection.send(request).await.is_ok() {
                return Ok(connection);
            }
        }
        self.send_on_new(request, false).await
    }

    async fn send_on_new(&self, request: &FileRequest, watch: bool) -> Result<Connection> {
        let socket = self.link.connect().await?;
        socket::send(socket.as_fd(), &Request::Files { watch }, &[])
            .map_err(|error| self.link.failed(error))?;
        let connection = Connection::new(socket).map_err(|error| self.link.failed(error))?;
        connection
            .send(request)
            .await
            .map_err(|error| self.link.failed(error))?;
        Ok(connection)
    }

    /// A worker for a watch, sent `request` already. It is not used again.
    pub(super) async fn send_to_new(&self, request: &FileRequest) -> Result<Worker> {
        self.link.check_user(request.user())?;
        let turn = Arc::clone(&self.watches).try_acquire_owned().map_err(|_| {
            let message = format!("{WATCHES} directories are watched already, drop one");
            Error::new(ErrorKind::QuotaExceeded, message)
        })?;
        let connection = self.send_on_new(request, true).await?;
        Ok(Worker {
            connection,
            _turn: turn,
        })
    }

    /// The worker's next answer; its refusal is an error.
    pub(super) async fn receive(&self, worker: &Worker) -> Result<(FileReply, Option<OwnedFd>)> {
        let answer = worker
            .connection
            .receive()
            .await
            .map_err(|error| self.link.failed(error))?;
        match answer {
            Some((Answer::Refusal(event), _)) => Err(unexpected(event)),
            Some((Answer::Worker(FileReply::Failed { errno, message }), _)) => {
                Err(refused(errno, message))
            }
            Some((Answer::Worker(reply), fds)) => Ok((reply, fds.into_iter().next())),
            None if self.link.connect().await.is_ok() => Err(Error::new(
                ErrorKind::Unavailable,
                "the sandbox's file worker ended, try again",
            )),
            None => Err(self.link.gone()),
        }
    }

    /// Keeps a worker that has answered for the next call.
    pub(super) fn release(&self, worker: Worker) {
        let socket = worker.connection.into_socket();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_WORKERS {
            idle.push(socket);
        }
    }

    /// One request, one answer.
    pub(super) async fn call(&self, request: FileRequest) -> Result<(FileReply, Option<OwnedFd>)> {
        let worker = self.send(&request).await?;
        let answer = self.receive(&worker).await;
        // After a failure the worker is as good as before; a connection that broke is not kept.
        if answer.as_ref().is_ok()
            || answer
                .as_ref()
                .is_err_and(|error| error.context("errno").is_some())
        {
            self.release(worker);
        }
        answer
    }
}
