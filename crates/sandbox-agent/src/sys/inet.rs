//! Internet sockets of the sandbox's own network namespace.

#![expect(unsafe_code, reason = "socket(2) and its kin")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;

/// Room for the control messages that come with a datagram, aligned as `cmsghdr` wants it.
const CONTROL_WORDS: usize = 16;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 alone.
    V4,
    /// IPv6; where it is bound to all addresses IPv4 as well.
    V6,
}

/// Who has sent a datagram, and the address that it was sent to.
#[derive(Debug)]
pub(crate) struct Sender {
    address: libc::sockaddr_storage,
    address_len: libc::socklen_t,
    control: [usize; CONTROL_WORDS],
    control_len: usize,
}

/// Listens on `port` of all addresses there are, for connections to any address that the kernel hands to it.
pub(crate) fn listen_transparently(family: Family, port: u16, backlog: i32) -> io::Result<OwnedFd> {
    let socket = bind_for_all(family, libc::SOCK_STREAM, port)?;
    // What it accepts has a port of far hosts as its own. A server inside can have that as well, as if it were not taken.
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
    // SAFETY: a call with a descriptor and an integer.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// Receives datagrams to `port` of all addresses there are, and can answer from each.
pub(crate) fn receive_for_all(family: Family, port: u16) -> io::Result<OwnedFd> {
    let socket = bind_for_all(family, libc::SOCK_DGRAM, port)?;
    let (level, name) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    set(&socket, level, name, &1)?;
    Ok(socket)
}

/// Starts a connection to `port` of the loopback address, and does not wait for it.
pub(crate) fn connect_to_loopback(family: Family, port: u16) -> io::Result<OwnedFd> {
    let socket = new_socket(family, libc::SOCK_STREAM)?;
    let result = with_address(family, port, true, |address, len| {
        // SAFETY: `address` is a whole one of the given length.
        check(unsafe { libc::connect(socket.as_raw_fd(), address, len) })
    });
    match result {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Takes one connection that waits, and ends it such that its peer hears of it at once.
///
/// # Errors
/// `WouldBlock` if there is none.
pub(crate) fn refuse(listener: BorrowedFd<'_>) -> io::Result<()> {
    let socket = super::socket::accept(listener)?;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // If it fails the connection ends in the usual way.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    Ok(())
}

/// Takes one datagram that waits; of one that is longer than `buffer` the beginning. Returns its length.
///
/// # Errors
/// `WouldBlock` if there is none.
pub(crate) fn receive_from(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Sender)> {
    let mut sender = Sender {
        // SAFETY: plain numbers, for which all zeros is a value.
        address: unsafe { std::mem::zeroed() },
        address_len: 0,
        control: [0; CONTROL_WORDS],
        control_len: 0,
    };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = header(&mut part, &mut sender);
    header.msg_namelen = size_of_val(&sender.address) as libc::socklen_t;
    header.msg_controllen = size_of_val(&sender.control);
    // SAFETY: `header` points to a buffer, an address and control space of the lengths it names.
    let len =
        check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) })?;
    sender.address_len = header.msg_namelen;
    sender.control_len = header.msg_controllen;
    Ok((len.unsigned_abs(), sender))
}

/// Answers a datagram from the address that it was sent to.
///
/// # Errors
/// `WouldBlock` if there is no room for more.
pub(crate) fn send_back(
    socket: BorrowedFd<'_>,
    answer: &[u8],
    sender: &mut Sender,
) -> io::Result<()> {
    let mut part = libc::iovec {
        iov_base: answer.as_ptr().cast_mut().cast(),
        iov_len: answer.len(),
    };
    let (address_len, control_len) = (sender.address_len, sender.control_len);
    let mut header = header(&mut part, sender);
    header.msg_namelen = address_len;
    header.msg_controllen = control_len;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: as above; the kernel only reads, and what it reads as control messages it has written itself.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) }).map(drop)
}

fn header(part: &mut libc::iovec, sender: &mut Sender) -> libc::msghdr {
    // SAFETY: a C struct for which all zeros is the empty value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut sender.address).cast();
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header.msg_control = sender.control.as_mut_ptr().cast();
    header
}

/// Binds to `port` of all addresses, also to those that are not this machine's.
fn bind_for_all(family: Family, kind: libc::c_int, port: u16) -> io::Result<OwnedFd> {
    let socket = new_socket(family, kind)?;
    match family {
        Family::V4 => set(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, &1)?,
        Family::V6 => {
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0)?;
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, &1)?;
        }
    }
    with_address(family, port, false, |address, len| {
        // SAFETY: `address` is a whole one of the given length.
        check(unsafe { libc::bind(socket.as_raw_fd(), address, len) })
    })?;
    Ok(socket)
}

fn new_socket(family: Family, kind: libc::c_int) -> io::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the returned descriptor is new.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(domain, kind, 0))?)) }
}

/// Does something with the loopback address or the one that stands for all.
fn with_address<T>(
    family: Family,
    port: u16,
    is_loopback: bool,
    work: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> T,
) -> T {
    match family {
        Family::V4 => {
            let number = if is_loopback {
                libc::INADDR_LOOPBACK
            } else {
                libc::INADDR_ANY
            };
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr {
                    s_addr: number.to_be(),
                },
                sin_zero: [0; 8],
            };
            work(
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        }
        Family::V6 => {
            let mut bytes = [0; 16];
            bytes[15] = u8::from(is_loopback);
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: bytes },
                sin6_scope_id: 0,
            };
            work(
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        }
    }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    let value = (&raw const *value).cast();
    // SAFETY: `value` points to as many bytes as are named.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, len) }).map(drop)
}
