//! Messages over `SOCK_SEQPACKET` sockets, with descriptors, as the protocol lays them out.
//!
//! One packet is one message. A message longer than [`MAX_PACKET`] travels in a sealed memfd: the packet is then
//! empty and carries that descriptor first. What a peer sends is checked here (length, seals, number of
//! descriptors); what a message means is the caller's business.

#![expect(unsafe_code, reason = "sendmsg(2), recvmsg(2) and memfds")]

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::ptr;
use std::time::Duration;

use sandbox_agent::protocol::{MAX_MESSAGE, MAX_PACKET};

/// Most descriptors that one message carries, without the memfd of a long one.
pub(crate) const MAX_FDS: usize = 8;

/// Room for the control message of `MAX_FDS + 1` descriptors, aligned as `cmsghdr` wants it.
const CONTROL_WORDS: usize = 16;

/// Seals without which a memfd could still change while it is read.
const SEALS: libc::c_int =
    libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Makes two connected sockets, close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors, which are new.
    unsafe {
        super::check(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Lets a [`receive`] that has waited this long fail with `WouldBlock`.
pub(crate) fn set_receive_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: timeout.subsec_micros().into(),
    };
    let size = size_of::<libc::timeval>() as libc::socklen_t;
    let value = (&raw const time).cast();
    // SAFETY: `value` points to a `timeval` of the given size.
    super::check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            value,
            size,
        )
    })
    .map(drop)
}

/// Takes nothing more from the peer, whose sending fails from then on. What has arrived before can still be received.
pub(crate) fn shut_reading(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is passed.
    super::check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) }).map(drop)
}

/// A received message.
#[derive(Debug)]
pub(crate) struct Message {
    /// The encoded message.
    pub(crate) bytes: Vec<u8>,
    /// The descriptors that came along, close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
}

/// Sends one message of any length up to [`MAX_MESSAGE`], with at most [`MAX_FDS`] descriptors.
///
/// # Errors
/// `WouldBlock` if the socket is non-blocking and full: nothing was sent then. `InvalidInput` if the message is too
/// long or carries too many descriptors, `BrokenPipe` if the peer is gone.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if fds.len() > MAX_FDS || message.len() > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "message is longer than the protocol allows",
        ));
    }
    if message.len() <= MAX_PACKET {
        return send_packet(socket, &[IoSlice::new(message)], fds);
    }
    let memfd = sealed_memfd(message)?;
    let mut all = vec![memfd.as_fd()];
    all.extend_from_slice(fds);
    send_packet(socket, &[], &all)
}

/// Sends one packet that is put together from `parts`, at most [`MAX_PACKET`] bytes in all.
///
/// # Errors
/// As [`send`].
pub(crate) fn send_packet(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut control = [0_usize; CONTROL_WORDS];
    let mut header = empty_header();
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len();
    if !fds.is_empty() {
        let raw: Vec<RawFd> = fds
            .iter()
            .take(MAX_FDS + 1)
            .map(AsRawFd::as_raw_fd)
            .collect();
        let bytes = u32::try_from(size_of_val(raw.as_slice())).unwrap_or(0);
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: `control` is aligned for `cmsghdr` and holds CMSG_SPACE of MAX_FDS + 1 descriptors (a unit test
        // says so), and `raw` has at most that many, so header and data are written inside of it.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
            let cmsg = libc::CMSG_FIRSTHDR(&raw const header);
            (*cmsg).cmsg_level = libc::SOL_SOCKET;
            (*cmsg).cmsg_type = libc::SCM_RIGHTS;
            (*cmsg).cmsg_len = libc::CMSG_LEN(bytes) as usize;
            ptr::copy_nonoverlapping(
                raw.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(cmsg),
                bytes as usize,
            );
        }
    }
    loop {
        // SAFETY: `header` points to slices and control data that live until the call returns.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
        match super::check(sent) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// Accepts a connection that does not wait.
///
/// # Errors
/// `WouldBlock` if there is none.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the peer's address is not asked for, and the returned descriptor is new.
    unsafe {
        let fd = libc::accept4(
            listener.as_raw_fd(),
            ptr::null_mut(),
            ptr::null_mut(),
            flags,
        );
        Ok(OwnedFd::from_raw_fd(super::check(fd)?))
    }
}

/// Lets as much as possible of `bytes` be sent before the peer has to read.
pub(crate) fn set_send_buffer(socket: BorrowedFd<'_>, bytes: i32) {
    let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    let value = (&raw const bytes).cast();
    // Only a matter of speed: it is cut to what the system allows, and cannot fail otherwise.
    // SAFETY: `value` points to an int of that length.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            value,
            len,
        );
    }
}

/// Receives one message. `None`: the peer has closed the connection.
///
/// # Errors
/// `WouldBlock` if the socket is non-blocking and empty. `InvalidData` if the packet breaks the rules of the
/// protocol (too long, too many descriptors, a memfd that is not sealed): close the connection then.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut bytes: Vec<u8> = Vec::with_capacity(MAX_PACKET);
    let Some((len, mut fds)) = receive_packet(socket, bytes.spare_capacity_mut())? else {
        return Ok(None);
    };
    if len > 0 {
        // SAFETY: the kernel has written the first `len` bytes, and `len` is at most the capacity it was given.
        unsafe { bytes.set_len(len) };
        bytes.shrink_to_fit();
        return Ok(Some(Message { bytes, fds }));
    }
    let bytes = read_sealed_memfd(fds.remove(0))?;
    Ok(Some(Message { bytes, fds }))
}

/// Receives one packet into `buffer`. `None` is the end of the connection; an empty packet has descriptors.
fn receive_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut control = [0_usize; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = empty_header();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let len = loop {
        // SAFETY: `header` points to a buffer and control space of the lengths it names.
        let len =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        match super::check(len) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break usize::try_from(result?).unwrap_or(0),
        }
    };
    let fds = take_fds(&header);
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(invalid("packet is longer than the protocol allows"));
    }
    // An empty packet without descriptors cannot be told from the end of the connection, and means nothing.
    Ok(if len == 0 && fds.is_empty() {
        None
    } else {
        Some((len, fds))
    })
}

/// Takes ownership of all descriptors that came with a packet.
fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg(2) has filled the control buffer of `header`; the CMSG macros stay inside of it, and each
    // descriptor in it is new and belongs to nobody else.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            if (*cmsg).cmsg_level == libc::SOL_SOCKET && (*cmsg).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(cmsg);
                let len = (*cmsg).cmsg_len - libc::CMSG_LEN(0) as usize;
                for index in 0..len / size_of::<RawFd>() {
                    let fd = ptr::read_unaligned(data.cast::<RawFd>().add(index));
                    fds.push(OwnedFd::from_raw_fd(fd));
                }
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    fds
}

/// Makes a memfd of `contents` that nobody can change any more.
fn sealed_memfd(contents: &[u8]) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string, and the returned descriptor is new.
    let memfd = unsafe {
        OwnedFd::from_raw_fd(super::check(libc::memfd_create(
            c"message".as_ptr(),
            flags,
        ))?)
    };
    let mut file = File::from(memfd);
    file.write_all(contents)?;
    // SAFETY: a plain call on an open descriptor.
    super::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(file.into())
}

/// Reads a message that came in a memfd, after making sure that it is one and can neither change nor block.
fn read_sealed_memfd(memfd: OwnedFd) -> io::Result<Vec<u8>> {
    // SAFETY: a plain call on an open descriptor.
    let seals = unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_GET_SEALS) };
    if seals < 0 || seals & SEALS != SEALS {
        return Err(invalid("long message is not in a sealed memfd"));
    }
    let file = File::from(memfd);
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(invalid("message is longer than the protocol allows"));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn empty_header() -> libc::msghdr {
    // SAFETY: `msghdr` is a C struct for which all zeros is the empty value.
    unsafe { std::mem::zeroed() }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _};

    fn pair() -> (OwnedFd, OwnedFd) {
        let mut fds = [0; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `fds` has room for the two new descriptors.
        unsafe {
            super::super::check(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))
                .unwrap();
            (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
        }
    }

    fn received(socket: &OwnedFd) -> Message {
        receive(socket.as_fd()).unwrap().unwrap()
    }

    #[test]
    fn control_space_holds_every_descriptor() {
        let bytes = u32::try_from((MAX_FDS + 1) * size_of::<RawFd>()).unwrap();
        // SAFETY: computes a length.
        let space = unsafe { libc::CMSG_SPACE(bytes) } as usize;
        assert!(space <= CONTROL_WORDS * size_of::<usize>());
    }

    #[test]
    fn messages_of_every_length_arrive_whole() {
        let (a, b) = pair();
        for len in [
            1,
            2,
            1000,
            MAX_PACKET - 1,
            MAX_PACKET,
            MAX_PACKET + 1,
            MAX_MESSAGE,
        ] {
            let message: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            send(a.as_fd(), &message, &[]).unwrap();
            let got = received(&b);
            assert!(got.bytes == message, "length {len}");
            assert!(got.fds.is_empty());
        }
    }

    #[test]
    fn a_message_too_long_is_refused() {
        let (a, b) = pair();
        let error = send(a.as_fd(), &vec![0; MAX_MESSAGE + 1], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            receive(b.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn descriptors_come_along_with_short_and_long_messages() {
        for len in [1, MAX_PACKET + 1] {
            let (a, b) = pair();
            let files: Vec<File> = (0..MAX_FDS)
                .map(|n| {
                    let mut file = tempfile::tempfile().unwrap();
                    write!(file, "{n}").unwrap();
                    file
                })
                .collect();
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            send(a.as_fd(), &vec![7; len], &fds).unwrap();
            let got = received(&b);
            assert_eq!(got.bytes.len(), len);
            assert_eq!(got.fds.len(), MAX_FDS);
            for (n, fd) in got.fds.into_iter().enumerate() {
                let mut file = File::from(fd);
                file.rewind().unwrap();
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, n.to_string());
            }
        }
    }

    #[test]
    fn the_end_is_not_a_message() {
        let (a, b) = pair();
        assert_eq!(
            receive(b.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        send(a.as_fd(), b"last", &[]).unwrap();
        drop(a);
        assert_eq!(received(&b).bytes, b"last");
        assert!(receive(b.as_fd()).unwrap().is_none());
        assert_eq!(
            send(b.as_fd(), b"x", &[]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_full_socket_would_block() {
        let (a, _b) = pair();
        let error = loop {
            if let Err(error) = send(a.as_fd(), &[0; 1000], &[]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn packets_outside_the_protocol_are_errors() {
        let (a, b) = pair();
        send_packet(a.as_fd(), &[IoSlice::new(&[0; MAX_PACKET + 1])], &[]).unwrap();
        assert_eq!(
            receive(b.as_fd()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );

        // Something else than a sealed memfd where a long message is expected.
        let (reader, writer) = io::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        let too_long = sealed_memfd(&vec![0; MAX_MESSAGE + 1]).unwrap();
        for fd in [
            reader.as_fd(),
            writer.as_fd(),
            file.as_fd(),
            a.as_fd(),
            too_long.as_fd(),
        ] {
            send_packet(a.as_fd(), &[], &[fd]).unwrap();
            assert_eq!(
                receive(b.as_fd()).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }

    #[test]
    fn parts_are_joined() {
        let (a, b) = pair();
        send_packet(
            a.as_fd(),
            &[
                IoSlice::new(b"one "),
                IoSlice::new(b""),
                IoSlice::new(b"two"),
            ],
            &[],
        )
        .unwrap();
        assert_eq!(received(&b).bytes, b"one two");
    }
}
