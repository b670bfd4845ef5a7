//! Follows the requests of a connection, one after the other, each of which may be for another host.

use super::{
    connection::Connection,
    ear::MOST,
    http::{self, Body, Head, Parsed},
    pump::Pump,
    sandbox::Heard,
};
use std::io;
use tokio::{net::TcpStream, sync::Notify};

pub(super) struct Requests<'a> {
    connection: &'a Connection,
    up: &'a Pump<'a>,
    down: &'a Pump<'a>,
    /// What was read and not yet written.
    bytes: Vec<u8>,
    /// Whether no request was written yet, and no answer read.
    is_first: bool,
}

impl<'a> Requests<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        up: &'a Pump<'a>,
        down: &'a Pump<'a>,
        bytes: Vec<u8>,
        is_first: bool,
    ) -> Self {
        Self {
            connection,
            up,
            down,
            bytes,
            is_first,
        }
    }

    /// Carries requests until there are no more. The answers are carried by somebody else, once `go` says so.
    pub(super) async fn follow(&mut self, go: &Notify) -> io::Result<()> {
        loop {
            let head = match self.head().await? {
                Next::End => return self.up.finish(),
                Next::Request(head) => head,
                Next::Unreadable => return self.follow_no_more(go).await,
            };
            let Some(name) = head.name else {
                return self.follow_no_more(go).await;
            };
            self.connection.must(Heard::Name(name))?;
            self.bytes.drain(..head.length);
            self.up.write(&head.bytes).await?;
            if head.is_upgrade && self.is_upgraded().await? {
                go.notify_one();
                return self.rest().await;
            }
            if self.is_first {
                self.is_first = false;
                go.notify_one();
            }
            let is_whole = match head.body {
                Body::Bytes(length) => self.body(length).await?,
                Body::Chunks => self.chunks().await?,
            };
            if !is_whole {
                return self.up.finish();
            }
        }
    }

    /// A request that names no host is judged as one that hides it; if even that may pass, then all that follows may.
    async fn follow_no_more(&mut self, go: &Notify) -> io::Result<()> {
        self.connection.must(Heard::Hidden)?;
        go.notify_one();
        self.rest().await
    }

    async fn rest(&mut self) -> io::Result<()> {
        self.up.write(&std::mem::take(&mut self.bytes)).await?;
        self.up.run().await
    }

    /// The next request, if there is one.
    async fn head(&mut self) -> io::Result<Next> {
        loop {
            match http::head(&self.bytes, self.is_first) {
                Parsed::Whole(head) => return Ok(Next::Request(head)),
                Parsed::Bad => return Ok(Next::Unreadable),
                Parsed::More if self.bytes.len() >= MOST => return Ok(Next::Unreadable),
                Parsed::More => {}
            }
            if !self.more().await? {
                return Ok(Next::End);
            }
        }
    }

    /// Reads more; `false` at the end.
    async fn more(&mut self) -> io::Result<bool> {
        if self.bytes.is_empty() {
            // Many connections wait here for long.
            self.bytes = Vec::new();
        }
        read(self.up.from, &mut self.bytes).await
    }

    /// Carries so many bytes; `false` if the program has ended before.
    async fn body(&mut self, length: u64) -> io::Result<bool> {
        let here =
            usize::try_from(length).map_or(self.bytes.len(), |most| most.min(self.bytes.len()));
        self.up.write(&self.bytes[..here]).await?;
        self.bytes.drain(..here);
        let missing = self.up.bytes(length - here as u64).await?;
        Ok(missing == 0)
    }

    /// Carries chunks, with their lengths written anew, to the last; `false` if the program has ended before.
    async fn chunks(&mut self) -> io::Result<bool> {
        loop {
            let Some(length) = self.take(http::chunk).await? else {
                return Ok(false);
            };
            self.up.write(format!("{length:x}\r\n").as_bytes()).await?;
            if length == 0 {
                break;
            }
            if !self.body(length).await? || self.take(line_end).await?.is_none() {
                return Ok(false);
            }
            self.up.write(b"\r\n").await?;
        }
        let Some(trailer) = self.take(http::trailer).await? else {
            return Ok(false);
        };
        self.up.write(&trailer).await?;
        Ok(true)
    }

    /// Takes what `parse` finds; `None` if the program has ended before.
    async fn take<T>(&mut self, parse: fn(&[u8]) -> Parsed<(usize, T)>) -> io::Result<Option<T>> {
        loop {
            match parse(&self.bytes) {
                Parsed::Whole((length, found)) => {
                    self.bytes.drain(..length);
                    return Ok(Some(found));
                }
                Parsed::More if self.bytes.len() < MOST => {}
                // It is in the midst of a request, so that nothing else can be made of it.
                Parsed::More | Parsed::Bad => return Err(unreadable()),
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Carries the answer to a request for a WebSocket, to the end of its fields, and what has come with it. Whether the
    /// connection is one from then on.
    async fn is_upgraded(&self) -> io::Result<bool> {
        let mut bytes = Vec::new();
        loop {
            match http::status(&bytes) {
                Parsed::Whole((length, 100 | 102..200)) => {
                    self.down.write(&bytes[..length]).await?;
                    bytes.drain(..length);
                    continue;
                }
                Parsed::Whole((_, status)) => {
                    self.down.write(&bytes).await?;
                    return Ok(status == 101);
                }
                Parsed::More if bytes.len() < MOST => {}
                Parsed::More | Parsed::Bad => return Err(unreadable()),
            }
            if !read(self.down.from, &mut bytes).await? {
                self.down.write(&bytes).await?;
                return Ok(false);
            }
        }
    }
}

/// What comes next on a connection.
enum Next {
    Request(Head),
    /// What is not understood here, and may be a request to others.
    Unreadable,
    End,
}

/// The end of a chunk.
fn line_end(bytes: &[u8]) -> Parsed<(usize, ())> {
    match bytes {
        [b'\r', b'\n', ..] => Parsed::Whole((2, ())),
        [] | [b'\r'] => Parsed::More,
        _ => Parsed::Bad,
    }
}

fn unreadable() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is no HTTP that can be followed",
    )
}

/// Reads some bytes more; `false` at the end.
async fn read(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        stream.readable().await?;
        bytes.reserve(2048);
        match stream.try_read_buf(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Ok(read? > 0),
        }
    }
}
