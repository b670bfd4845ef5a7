//! The thread that listens where a PID 1 would.

use super::answers::{Answers, FdKind, Packet};
use crate::linux::{record::Locked, socket};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{CWD, FileType, MemfdFlags, Mode, OFlags},
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketFlags, SocketType,
    },
};
use sandbox_agent::protocol::{MAX_PACKET, Wire, agent::Request};
use std::{
    fs::File,
    io::{IoSlice, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread::JoinHandle,
};

/// Answers every connection alike, until it is asked to end or dropped.
pub(super) struct Peer {
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Serves `listener`, and holds the lock of the record as a PID 1 does.
    pub(super) fn start(listener: OwnedFd, locked: Locked, answers: Answers) -> Self {
        let (stopped, stop) = rustix::pipe::pipe().unwrap();
        let serve = move || {
            let locked = locked;
            let fds = Descriptors::new(&locked.path);
            while wait(&[listener.as_fd(), stopped.as_fd()]) == Some(0) {
                let connection = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC);
                if connection.is_ok_and(|connection| serve(&connection, &answers, &fds)) {
                    break;
                }
            }
        };
        Self {
            stop: Some(stop),
            thread: Some(std::thread::spawn(serve)),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()), "the peer panicked");
    }
}

/// Takes the request, says all there is to say as far as it is taken at once, and vanishes. Returns whether
/// it was asked to end: then the lock has to be free, or a kill would wait for it.
fn serve(connection: &OwnedFd, answers: &Answers, fds: &Descriptors) -> bool {
    let mut said = &answers.events;
    let asked = request(connection, answers.reads);
    if let Some(Request::Files { .. }) = asked {
        said = &answers.replies;
        if answers.reads {
            request(connection, true);
        }
    }
    for packet in said {
        if send(connection, packet, fds).is_err() {
            break;
        }
    }
    matches!(asked, Some(Request::Shutdown {}))
}

/// Takes the next message, or looks at it and leaves it unread.
fn request(connection: &OwnedFd, take: bool) -> Option<Request> {
    wait(&[connection.as_fd()])?;
    let mut bytes = vec![0; MAX_PACKET];
    let flags = if take {
        RecvFlags::empty()
    } else {
        RecvFlags::PEEK
    };
    let (count, _) = rustix::net::recv(connection, &mut bytes[..], flags).ok()?;
    Request::decode(&bytes[..count]).ok()
}

fn send(connection: &OwnedFd, packet: &Packet, fds: &Descriptors) -> rustix::io::Result<()> {
    let body = packet.sealed.map(|sealed| match sealed {
        true => socket::sealed(&packet.bytes).unwrap(),
        false => unsealed(&packet.bytes),
    });
    let mut all: Vec<BorrowedFd<'_>> = body.iter().map(AsFd::as_fd).collect();
    all.extend(packet.fds.iter().map(|kind| fds.get(*kind)));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(all.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(&all)));
    let bytes: &[u8] = if body.is_some() { &[] } else { &packet.bytes };
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(connection, &[IoSlice::new(bytes)], &mut ancillary, flags).map(drop)
}

/// Bytes in memory that the peer could still change.
fn unsealed(bytes: &[u8]) -> OwnedFd {
    let memory = rustix::fs::memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
    let mut memory = File::from(memory);
    memory.write_all(bytes).unwrap();
    memory.into()
}

/// One open descriptor of each kind.
struct Descriptors {
    kinds: Vec<(FdKind, OwnedFd)>,
    _other_end: OwnedFd,
}

impl Descriptors {
    fn new(directory: &Path) -> Self {
        let (socket, other_end) = socket::pair().unwrap();
        let (file, fifo) = (directory.join("file"), directory.join("fifo"));
        std::fs::write(&file, [b'x'; 3000]).unwrap();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let open = |path: &Path, flags| rustix::fs::open(path, flags, Mode::empty()).unwrap();
        let (read, write) = (OFlags::RDONLY, OFlags::RDWR);
        let kinds = vec![
            (FdKind::File, open(&file, write)),
            (FdKind::ReadOnlyFile, open(&file, read)),
            (FdKind::WriteOnlyFile, open(&file, OFlags::WRONLY)),
            (FdKind::SealedMemory, socket::sealed(b"sealed").unwrap()),
            (FdKind::Directory, open(directory, read)),
            (FdKind::Fifo, open(&fifo, write)),
            (FdKind::Socket, socket),
            (FdKind::Proc, open(Path::new("/proc/self/status"), read)),
            (FdKind::Null, open(Path::new("/dev/null"), write)),
            (FdKind::Zero, open(Path::new("/dev/zero"), write)),
            (FdKind::Path, open(&file, OFlags::PATH)),
            (FdKind::TcpListener, internet(SocketType::STREAM, true)),
            (FdKind::TcpSocket, internet(SocketType::STREAM, false)),
            (FdKind::UdpSocket, internet(SocketType::DGRAM, false)),
        ];
        Self {
            kinds,
            _other_end: other_end,
        }
    }

    fn get(&self, kind: FdKind) -> BorrowedFd<'_> {
        let found = self.kinds.iter().find(|(known, _)| *known == kind);
        found.unwrap().1.as_fd()
    }
}

/// An internet socket that nobody is connected to.
fn internet(kind: SocketType, listens: bool) -> OwnedFd {
    let socket = rustix::net::socket(AddressFamily::INET, kind, None).unwrap();
    if listens {
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
    }
    socket
}

/// The first of these that can be read or has ended; `None` if none is within some seconds.
fn wait(fds: &[BorrowedFd<'_>]) -> Option<usize> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let patience = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut polled, Some(&patience)).unwrap();
    polled.iter().position(|fd| !fd.revents().is_empty())
}
