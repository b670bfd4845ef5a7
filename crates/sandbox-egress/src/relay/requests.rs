//! Follows the requests of a connection, one after the other, each of which may be for another host.

use super::{
    connection::Connection,
    ear::MOST,
    held::Held,
    http::{self, Body, Head, Parsed},
    pump::Pump,
    sandbox::Heard,
};
use std::io;
use tokio::sync::Notify;

pub(super) struct Requests<'a> {
    connection: &'a Connection,
    up: &'a Pump<'a>,
    down: &'a Pump<'a>,
    /// What was read and not yet written.
    bytes: Held,
    /// The same of the other way, before somebody else reads there.
    answers: Held,
    /// The end of a chunk, to be written with what follows it.
    owed: &'static [u8],
    /// Whether no request was written yet, and no answer read.
    is_first: bool,
}

impl<'a> Requests<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        up: &'a Pump<'a>,
        down: &'a Pump<'a>,
        bytes: Held,
        answers: Held,
        is_first: bool,
    ) -> Self {
        Self {
            connection,
            up,
            down,
            bytes,
            answers,
            owed: &[],
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
            if head.is_upgrade {
                self.forward(&head.bytes, head.length, 0).await?;
                if self.is_upgraded().await? {
                    go.notify_one();
                    return self.rest().await;
                }
            }
            if self.is_first {
                self.is_first = false;
                go.notify_one();
            }
            let is_whole = match head.body {
                _ if head.is_upgrade => true,
                Body::Bytes(length) => self.forward(&head.bytes, head.length, length).await?,
                Body::Chunks => {
                    self.forward(&head.bytes, head.length, 0).await?;
                    self.chunks().await?
                }
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
        self.up.write(&self.bytes).await?;
        self.bytes.drop_first(self.bytes.len());
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
        // Who waits for the end of a chunk is not made to wait for the next.
        self.up.write(std::mem::take(&mut self.owed)).await?;
        self.bytes.read(self.up.from).await
    }

    /// Carries a body, after `written` in the place of the first `length` bytes; `false` if the program has ended before.
    async fn forward(&mut self, written: &[u8], length: usize, body: u64) -> io::Result<bool> {
        let rest = &self.bytes[length..];
        let here = usize::try_from(body).map_or(rest.len(), |most| most.min(rest.len()));
        let all = [std::mem::take(&mut self.owed), written, &rest[..here]].concat();
        self.up.write(&all).await?;
        drop(all);
        self.bytes.drop_first(length + here);
        let missing = self.up.bytes(body - here as u64).await?;
        Ok(missing == 0)
    }

    /// Carries chunks, with their lengths written anew, to the last; `false` if the program has ended before.
    async fn chunks(&mut self) -> io::Result<bool> {
        loop {
            let Some((line, length)) = self.find(http::chunk).await? else {
                return Ok(false);
            };
            let written = format!("{length:x}\r\n");
            if !self.forward(written.as_bytes(), line, length).await? {
                return Ok(false);
            }
            if length == 0 {
                break;
            }
            let Some((end, ())) = self.find(line_end).await? else {
                return Ok(false);
            };
            self.bytes.drop_first(end);
            self.owed = b"\r\n";
        }
        let Some((length, trailer)) = self.find(http::trailer).await? else {
            return Ok(false);
        };
        self.forward(&trailer, length, 0).await
    }

    /// What `parse` finds in the first bytes, and in how many; `None` if the program has ended before.
    async fn find<T>(
        &mut self,
        parse: fn(&[u8]) -> Parsed<(usize, T)>,
    ) -> io::Result<Option<(usize, T)>> {
        loop {
            match parse(&self.bytes) {
                Parsed::Whole(found) => return Ok(Some(found)),
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
    async fn is_upgraded(&mut self) -> io::Result<bool> {
        loop {
            let (length, status) = match http::status(&self.answers) {
                Parsed::Whole((length, status @ (100 | 102..200))) => (length, Some(status)),
                Parsed::Whole((_, status)) => (self.answers.len(), Some(status)),
                Parsed::More if self.answers.len() < MOST => (0, None),
                Parsed::More | Parsed::Bad => return Err(unreadable()),
            };
            self.down.write(&self.answers[..length]).await?;
            self.answers.drop_first(length);
            match status {
                Some(100 | 102..200) => {}
                Some(status) => return Ok(status == 101),
                None if self.answers.read(self.down.from).await? => {}
                None => {
                    self.down.write(&self.answers).await?;
                    return Ok(false);
                }
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
