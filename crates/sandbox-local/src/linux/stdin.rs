//! Standard input of a command: a connection of its own, opened by the first byte.
//!
//! It is apart from the one that carries output, so that a writer learns that nobody reads any more even while no task
//! takes the output.

use super::{
    sandbox::{Link, unexpected},
    socket::Connection,
};
use sandbox_agent::protocol::{
    Blob, MAX_CHUNK,
    agent::{Event, Position, Request},
};
use sandbox_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

/// What a command has for standard input, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    None,
    Pipe,
    Terminal,
    /// Somebody else has started it.
    Unknown,
}

/// The way to a command's standard input.
#[derive(Debug)]
pub(crate) struct StdinLine {
    kind: Stdin,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Unopened,
    Open(Connection),
    Closed,
}

impl StdinLine {
    pub(crate) fn new(kind: Stdin) -> Self {
        let state = if kind == Stdin::None {
            State::Closed
        } else {
            State::Unopened
        };
        Self {
            kind,
            state: Mutex::new(state),
        }
    }

    /// Sends bytes; waits while the program does not read.
    pub(crate) async fn write(&self, link: &Link, process: u64, data: &[u8]) -> Result<()> {
        let mut state = self.state.lock().await;
        for piece in data.chunks(MAX_CHUNK) {
            let connection = state.open(link, process).await?;
            let request = Request::Stdin {
                data: Blob(piece.to_vec()),
            };
            connection
                .send(&request)
                .await
                .map_err(|error| link.failed(error))?;
        }
        // The program may have read it all and ended since; only what stays unread is an error.
        match &*state {
            State::Open(connection) if news(link, connection)? == News::Unread => {
                *state = State::Closed;
                Err(closed())
            }
            _ => Ok(()),
        }
    }

    /// Ends standard input. A terminal stays open for more.
    pub(crate) async fn close(&self, link: &Link, process: u64) -> Result<()> {
        let mut state = self.state.lock().await;
        let connection = state.open(link, process).await?;
        connection
            .send(&Request::CloseStdin {})
            .await
            .map_err(|error| link.failed(error))?;
        if self.kind == Stdin::Pipe {
            *state = State::Closed;
        }
        Ok(())
    }
}

impl State {
    /// The connection, unless it is known that nobody reads.
    async fn open(&mut self, link: &Link, process: u64) -> Result<&Connection> {
        if let Self::Unopened = self {
            let connection = link.open().await?;
            let request = Request::Attach {
                process,
                from: Position::Nothing {},
            };
            connection
                .send(&request)
                .await
                .map_err(|error| link.failed(error))?;
            match link.receive(&connection).await? {
                Event::Started { .. } => {}
                other => return Err(unexpected(other)),
            }
            match link.receive(&connection).await? {
                Event::Done {} => *self = Self::Open(connection),
                Event::StdinClosed {} => *self = Self::Closed,
                other => return Err(unexpected(other)),
            }
        }
        match self {
            Self::Open(connection) if news(link, connection)? == News::None => {}
            _ => *self = Self::Closed,
        }
        match self {
            Self::Open(connection) => Ok(connection),
            _ => Err(closed()),
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::new(
        ErrorKind::InvalidState,
        "standard input is closed: it was not asked for, has been closed, or nobody reads it",
    )
}

/// What PID 1 has said since.
#[derive(Debug, PartialEq, Eq)]
enum News {
    None,
    /// Nobody reads any more.
    Unread,
    /// The command has ended.
    Ended,
}

fn news(link: &Link, connection: &Connection) -> Result<News> {
    while let Some(event) = connection
        .try_receive()
        .map_err(|error| link.failed(error))?
    {
        match event {
            Event::StdinClosed {} => return Ok(News::Unread),
            Event::Exited { .. } => return Ok(News::Ended),
            Event::Failed { .. } => return Err(unexpected(event)),
            _ => {}
        }
    }
    Ok(News::None)
}
