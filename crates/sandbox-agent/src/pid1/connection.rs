//! One connection from the host: what waits to be sent on it, and where it reads a process's output.
//!
//! Nothing here waits for the peer. What cannot be sent at once is kept if it is an answer, of which there is one
//! at a time, and stays in the ring if it is output.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sandbox_agent::protocol::agent::{Event, Exit, Failure, shared};
use sandbox_agent::protocol::{MAX_CHUNK, Wire as _};

use super::ring::{Chunk, Ring};
use crate::sys::socket::{self, Message};

/// Most bytes of output that are sent before others have their turn.
const TURN: usize = 256 * 1024;

/// Bytes that may be on their way to the peer, so that it and we can work at the same time; not so many that they leave the
/// processor's caches before they are read.
const SEND_BUFFER: i32 = 256 * 1024;

/// Least bytes that a reader who shares the ring is sent to fetch; fewer are sent to it.
const LEAST_KEPT: usize = 16 * 1024;

/// What happened to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    /// The peer has not read enough yet.
    Full,
    /// The peer will not read it.
    Gone,
}

/// A connection's interest in a process.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) process: u64,
    /// Cursor of the next byte to send; `None` if output is not wanted.
    pub(super) position: Option<u64>,
    /// Whether [`Event::Started`] was sent or is about to be.
    pub(super) announced: bool,
    /// Of a reader that shares the ring: cursor of the first byte that it may not have taken yet.
    pub(super) taken: Option<u64>,
}

impl Attachment {
    /// Follows a process, with output from `position` on, before the start was announced.
    pub(super) fn new(process: u64, position: Option<u64>) -> Self {
        Self {
            process,
            position,
            announced: false,
            taken: None,
        }
    }
}

/// What a call of [`Connection::deliver`] achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// Nothing: there is no more, or the peer has to read first.
    Nothing,
    /// Something, and there may be more.
    Some,
    /// Everything, the exit included. The attachment is over.
    Everything,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    readable: bool,
    writable: bool,
    /// The peer takes nothing any more.
    gone: bool,
    /// Whether it was attached before: requests that only make sense for an attachment may then still come in.
    pub(super) was_attached: bool,
    /// It was to be a file worker's, and there is none: what it brings is for nobody.
    pub(super) is_refused: bool,
    /// Sockets to ports of the sandbox have come by it, and are in use as long as it is open, for all that is known.
    pub(super) reaches_ports: bool,
    pub(super) attachment: Option<Attachment>,
}

impl Connection {
    /// Talks over a socket that does not wait.
    pub(super) fn new(socket: OwnedFd) -> Self {
        socket::set_send_buffer(socket.as_fd(), SEND_BUFFER);
        Self {
            socket,
            outbox: VecDeque::new(),
            readable: true,
            writable: true,
            gone: false,
            was_attached: false,
            is_refused: false,
            reaches_ports: false,
            attachment: None,
        }
    }

    /// An event has come.
    pub(super) fn wake(&mut self, readable: bool, writable: bool, hung_up: bool) {
        self.readable |= readable;
        self.writable |= writable;
        if hung_up {
            self.abandon();
        }
    }

    /// Whether a request may wait that can be answered.
    pub(super) fn is_readable(&self) -> bool {
        self.readable && (self.attachment.is_some() || self.outbox.is_empty() || self.gone)
    }

    /// Cursor of the next byte of output to send, if output is wanted.
    pub(super) fn position(&self) -> Option<u64> {
        self.attachment.as_ref()?.position
    }

    /// Cursor of the oldest byte of output that the reader may still need, if output is wanted.
    pub(super) fn needed(&self) -> Option<u64> {
        let attachment = self.attachment.as_ref()?;
        let position = attachment.position?;
        Some(attachment.taken.unwrap_or(position))
    }

    /// The reader shares the ring from now on, by `memory`.
    pub(super) fn share(&mut self, memory: OwnedFd) {
        if let Some(attachment) = &mut self.attachment {
            attachment.taken = attachment.position;
            self.send_with(&Event::Shared {}, vec![memory]);
        }
    }

    /// The reader has taken what comes before `at`. Returns whether that can be.
    #[must_use]
    pub(super) fn take(&mut self, at: u64) -> bool {
        let attachment = self.attachment.as_mut();
        let Some((attachment, taken)) = attachment.and_then(|a| a.taken.map(|taken| (a, taken)))
        else {
            return false;
        };
        attachment.taken = Some(taken.max(at));
        attachment.position.is_none_or(|position| at <= position)
    }

    /// Takes the next request. `Ok(None)`: the peer has closed the connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; anything else breaks the protocol.
    pub(super) fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            let received = socket::receive(self.socket.as_fd());
            match received.as_ref().map_err(io::Error::kind) {
                // Said once, if the peer has left without reading all; then comes what it sent before, or the end.
                Err(io::ErrorKind::ConnectionReset) => continue,
                Err(io::ErrorKind::WouldBlock) => self.readable = false,
                _ => {}
            }
            return received;
        }
    }

    /// Gives the socket away.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends an event, now or as soon as the peer has read what was sent before.
    pub(super) fn send(&mut self, event: &Event) {
        self.send_with(event, Vec::new());
    }

    /// As [`Self::send`], with descriptors.
    pub(super) fn send_with(&mut self, event: &Event, fds: Vec<OwnedFd>) {
        if self.gone {
            return;
        }
        self.outbox.push_back((event.encode(), fds));
        self.flush();
    }

    /// Sends the refusal of a request.
    pub(super) fn fail(&mut self, failure: Failure, message: impl Into<String>) {
        self.send(&Event::Failed {
            failure,
            message: message.into(),
        });
    }

    /// Sends what waits. Returns whether nothing does any more.
    pub(super) fn flush(&mut self) -> bool {
        while let Some((message, fds)) = self.outbox.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let result = socket::send(self.socket.as_fd(), message, &fds);
            match self.sent(result) {
                Sent::Yes => drop(self.outbox.pop_front()),
                Sent::Full | Sent::Gone => break,
            }
        }
        self.outbox.is_empty()
    }

    /// Sends output from `ring`, and `exit` after the last of it.
    pub(super) fn deliver(&mut self, ring: &Ring, exit: Option<&Exit>) -> Delivered {
        if !self.writable || !self.flush() || !self.attachment.as_ref().is_some_and(|a| a.announced)
        {
            return Delivered::Nothing;
        }
        let before = self.position();
        let result = self.deliver_output(ring);
        match (result, exit) {
            (Sent::Yes, Some(exit)) if self.position().is_none_or(|at| at == ring.end()) => {
                let event = Event::Exited {
                    exit: exit.clone(),
                    at: ring.end(),
                };
                self.detach();
                self.send(&event);
                Delivered::Everything
            }
            _ if self.position() == before => Delivered::Nothing,
            _ => Delivered::Some,
        }
    }

    /// Sends output for one turn. `Yes`: there may be more, unless the position is the end.
    fn deliver_output(&mut self, ring: &Ring) -> Sent {
        let mut turn = 0;
        while let Some(position) = self.position()
            && turn < TURN
        {
            let lost = ring.start().saturating_sub(position);
            if lost > 0 {
                let event = Event::Lost { bytes: lost }.encode();
                let result = socket::send(self.socket.as_fd(), &event, &[]);
                match self.sent(result) {
                    Sent::Yes => self.advance(lost),
                    other => return other,
                }
                continue;
            }
            let Some(chunk) = ring.chunk(position, self.most_at_once()) else {
                break;
            };
            let result = self.send_chunk(&chunk, position);
            match self.sent(result) {
                Sent::Yes => self.advance(chunk.len() as u64),
                other => return other,
            }
            turn += chunk.len();
        }
        Sent::Yes
    }

    /// Whether the reader fetches output from the ring by itself.
    pub(super) fn shares(&self) -> bool {
        self.attachment
            .as_ref()
            .is_some_and(|attachment| attachment.taken.is_some())
    }

    fn most_at_once(&self) -> usize {
        if self.shares() {
            shared::MAX_KEPT
        } else {
            MAX_CHUNK
        }
    }

    /// Sends output, or where it lies.
    fn send_chunk(&self, chunk: &Chunk<'_>, at: u64) -> io::Result<()> {
        if self.shares() && chunk.len() >= LEAST_KEPT {
            let event = Event::Kept {
                stream: chunk.stream,
                at,
                // At most MAX_KEPT.
                len: chunk.len() as u32,
            };
            return socket::send(self.socket.as_fd(), &event.encode(), &[]);
        }
        let header = output_header(chunk.stream, at, chunk.len());
        let [first, second] = chunk.parts;
        let parts = [
            IoSlice::new(&header),
            IoSlice::new(first),
            IoSlice::new(second),
        ];
        socket::send_packet(self.socket.as_fd(), &parts, &[])
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(Attachment {
            position: Some(position),
            ..
        }) = &mut self.attachment
        {
            *position += bytes;
        }
    }

    fn sent(&mut self, result: io::Result<()>) -> Sent {
        match result {
            Ok(()) => Sent::Yes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Sent::Full
            }
            Err(_) => {
                self.abandon();
                Sent::Gone
            }
        }
    }

    /// The peer takes nothing any more. What it has sent before may still be read.
    fn abandon(&mut self) {
        self.gone = true;
        self.outbox.clear();
        if let Some(attachment) = &mut self.attachment {
            attachment.position = None;
        }
    }

    /// Ends the attachment; the connection takes other requests again.
    pub(super) fn detach(&mut self) {
        self.attachment = None;
        self.was_attached = true;
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The encoding of an [`Event::Output`] up to its data, so that those need not be copied.
fn output_header(stream: u8, at: u64, len: usize) -> [u8; 14] {
    let mut header = [0; 14];
    header[0] = 2;
    header[1] = stream;
    header[2..10].copy_from_slice(&at.to_le_bytes());
    // At most MAX_CHUNK.
    header[10..].copy_from_slice(&(len as u32).to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_agent::protocol::Blob;

    #[test]
    fn output_is_encoded_as_the_protocol_says() {
        let (stream, at, data) = (2, 0x0102_0304_0506, vec![7; 300]);
        let mut bytes = output_header(stream, at, data.len()).to_vec();
        bytes.extend_from_slice(&data);
        assert_eq!(
            Event::decode(&bytes),
            Ok(Event::Output {
                stream,
                at,
                data: Blob(data)
            })
        );
    }
}
