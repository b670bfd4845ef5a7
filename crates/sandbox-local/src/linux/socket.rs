//! Packets between the library and its helpers: one message each, with descriptors beside it.

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
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Mutex,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Most descriptors that come along with one message.
const MAX_FDS: usize = 8;

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

/// Connects to the socket at `dir/name`.
pub(crate) fn connect(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = new_socket(SocketFlags::empty())?;
    rustix::net::connect(&socket, &address(dir, name)?)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
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
    let mut file = std::fs::File::from(memory);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
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

/// Receives one message and its descriptors; `None` when the peer has closed. `buffer` holds [`MAX_PACKET`] bytes.
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
    let fds: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.contains(ReturnFlags::TRUNC) || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "packet is longer than the protocol allows",
        ));
    }
    if received.bytes == 0 && fds.is_empty() {
        return Ok(None);
    }
    let message = M::decode(&buffer[..received.bytes])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((message, fds)))
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

    /// Sends one message if that is possible at once.
    pub(crate) fn try_send(&self, message: &impl Wire) {
        let _ = send(self.socket.get_ref().as_fd(), message, &[]);
    }

    /// Receives the next message; `None` when the peer has closed.
    ///
    /// # Cancel safety
    /// A message that has not been returned has not been taken.
    pub(crate) async fn receive<M: Wire + Send>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        self.socket
            .async_io(Interest::READABLE, |socket| {
                let mut buffer = self
                    .buffer
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
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
