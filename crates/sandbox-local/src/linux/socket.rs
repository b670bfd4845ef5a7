//! Packets between the library and its helpers: one message each, with descriptors beside it.

use super::made::wait;
use crate::sys;
use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType,
    },
};
use sandbox_agent::protocol::{MAX_MESSAGE, MAX_PACKET, Wire};
use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Most descriptors that come along with one message.
const MAX_FDS: usize = 8;
/// Seals without which memory could still change while it is read.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK)
    .union(SealFlags::SEAL);

/// A new pair of connected sockets.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A socket at `dir/name`, listening. Works for directories whose path is longer than a socket address.
pub(crate) fn listen(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = new_socket(SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &address(dir, name)?)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Connects to the socket at `dir/name`; `WouldBlock` if too many connections wait there to be accepted.
pub(crate) fn connect(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = new_socket(SocketFlags::NONBLOCK)?;
    rustix::net::connect(&socket, &address(dir, name)?)?;
    Ok(socket)
}

fn new_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(
        Path::new("/proc/self/fd")
            .join(dir.as_raw_fd().to_string())
            .join(name),
    )?)
}

/// Sends one message and its descriptors.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Wire,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    Packet::of(message)?.send(socket, fds)
}

/// Bytes in memory that nobody can change any more.
pub(crate) fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let memory =
        rustix::fs::memfd_create("sandbox", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Sends a request and waits for the one answer to it.
pub(crate) fn ask<A: Wire>(
    socket: BorrowedFd<'_>,
    request: &impl Wire,
    within: Duration,
) -> io::Result<A> {
    ask_with_fds(socket, request, within).map(|(answer, _)| answer)
}

/// As [`ask`], with the descriptors beside the answer.
pub(crate) fn ask_with_fds<A: Wire>(
    socket: BorrowedFd<'_>,
    request: &impl Wire,
    within: Duration,
) -> io::Result<(A, Vec<OwnedFd>)> {
    send(socket, request, &[])?;
    if !wait(socket, within) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let received = receive(socket, &mut vec![0; MAX_PACKET])?;
    received.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one message",
        ));
    }
    loop {
        match rustix::net::sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one message and its descriptors, in whichever way it travels; `None` when the peer has closed. `buffer` holds [`MAX_PACKET`] bytes.
pub(crate) fn receive<M: Wire>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut iov = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.contains(ReturnFlags::TRUNC) || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(invalid("packet is longer than the protocol allows"));
    }
    let decoded = if received.bytes > 0 {
        M::decode(&buffer[..received.bytes])
    } else if fds.is_empty() {
        return Ok(None);
    } else {
        M::decode(&read_sealed(fds.remove(0))?)
    };
    Ok(Some((decoded.map_err(invalid)?, fds)))
}

/// Reads a long message, after making sure that its bytes can neither change nor be waited for.
fn read_sealed(memory: OwnedFd) -> io::Result<Vec<u8>> {
    let seals = rustix::fs::fcntl_get_seals(&memory).unwrap_or(SealFlags::empty());
    if !seals.contains(SEALS) {
        return Err(invalid("a long message is not in sealed memory"));
    }
    let file = File::from(memory);
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(invalid("message is longer than the protocol allows"));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A connection that tasks share: one sends while another receives.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: AsyncFd<OwnedFd>,
    buffer: Mutex<Vec<u8>>,
}

impl Connection {
    /// Takes over a connected, non-blocking socket. Needs a tokio runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: sys::watch(socket, Interest::READABLE | Interest::WRITABLE)?,
            buffer: Mutex::new(Vec::new()),
        })
    }

    /// Gives the socket back, to be used in another runtime.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket.into_inner()
    }

    /// Sends one message; waits while the peer does not read.
    ///
    /// # Cancel safety
    /// A packet is sent whole or not at all.
    pub(crate) async fn send(&self, message: &(impl Wire + Sync)) -> io::Result<()> {
        let packet = Packet::of(message)?;
        self.socket
            .async_io(Interest::WRITABLE, |socket| {
                packet.send(socket.as_fd(), &[])
            })
            .await
    }

    /// Receives the next message if it is there. The end of the connection is an error.
    pub(crate) fn try_receive<M: Wire>(&self) -> io::Result<Option<M>> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.resize(MAX_PACKET, 0);
        match receive(self.socket.get_ref().as_fd(), &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            received => Ok(received?.map(|(message, _)| message)),
        }
    }

    /// Receives the next message; `None` when the peer has closed.
    ///
    /// # Cancel safety
    /// A message that has not been returned has not been taken.
    pub(crate) async fn receive<M: Wire + Send>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        self.socket
            .async_io(Interest::READABLE, |socket| {
                let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
                buffer.resize(MAX_PACKET, 0);
                receive(socket.as_fd(), &mut buffer)
            })
            .await
    }
}

/// An encoded message: in the packet itself, or in a memfd where it is too long for one.
struct Packet {
    bytes: Vec<u8>,
    body: Option<OwnedFd>,
}

impl Packet {
    fn of(message: &impl Wire) -> io::Result<Self> {
        let bytes = message.encode();
        if bytes.len() <= MAX_PACKET {
            return Ok(Self { bytes, body: None });
        }
        if bytes.len() > MAX_MESSAGE {
            let text = format!("message is longer than {MAX_MESSAGE} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Self {
            body: Some(sealed(&bytes)?),
            bytes: Vec::new(),
        })
    }

    fn send(&self, socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let all: Vec<BorrowedFd<'_>> = self
            .body
            .iter()
            .map(AsFd::as_fd)
            .chain(fds.iter().copied())
            .collect();
        send_packet(socket, &self.bytes, &all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_agent::protocol::{Blob, agent::Request};

    fn stdin(len: usize) -> Request {
        let data = Blob(vec![7; len]);
        Request::Stdin { data }
    }

    #[test]
    fn messages_of_every_length_arrive_with_their_descriptors() {
        let (a, b) = pair().unwrap();
        let mut buffer = vec![0; MAX_PACKET];
        let most = MAX_MESSAGE - stdin(0).encode().len();
        for len in [0, 1, MAX_PACKET, 4 * MAX_PACKET, most] {
            let message = stdin(len);
            send(a.as_fd(), &message, &[a.as_fd(), b.as_fd()]).unwrap();
            let (received, fds) = receive::<Request>(b.as_fd(), &mut buffer).unwrap().unwrap();
            assert!(received == message, "{len}");
            assert_eq!(fds.len(), 2, "{len}");
        }
        let error = send(a.as_fd(), &stdin(most + 1), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        drop(a);
        assert!(
            receive::<Request>(b.as_fd(), &mut buffer)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_long_message_must_be_in_sealed_memory() {
        let (a, b) = pair().unwrap();
        let (mut buffer, bytes) = (vec![0; MAX_PACKET], stdin(9).encode());
        let unsealed: OwnedFd = {
            let memory = rustix::fs::memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
            let mut memory = File::from(memory);
            memory.write_all(&bytes).unwrap();
            memory.into()
        };
        let too_long = sealed(&vec![0; MAX_MESSAGE + 1]).unwrap();
        let (pipe, _end) = rustix::pipe::pipe().unwrap();
        for wrong in [
            unsealed,
            too_long,
            pipe,
            File::open("/dev/zero").unwrap().into(),
        ] {
            send_packet(a.as_fd(), &[], &[wrong.as_fd()]).unwrap();
            let error = receive::<Request>(b.as_fd(), &mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
