//! What this host is in its network: its addresses, which the floor closes, and where it has a route to.

use crate::Floor;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink},
};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

/// The name by which programs reach the loopback address of this host, whose own name leads to themselves.
pub const HOST_NAME: &str = "host.sandbox.internal";

/// The address of that name in sandboxes. It is nobody's on the internet.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 3);

/// Changes of addresses of IPv4 and of IPv6 (`RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`).
const ADDRESSES: u32 = 0x10 | 0x100;

/// Most notices that are taken at once.
const MOST_NOTICES: usize = 256;

/// What the operator has said, with the host's addresses as they are now.
pub(super) struct LiveFloor {
    base: Floor,
    current: Mutex<Arc<Floor>>,
    /// Readable when an address has come or gone.
    changes: OwnedFd,
}

impl LiveFloor {
    /// Reads the addresses.
    ///
    /// # Errors
    /// `Unavailable` if the kernel does not tell them, or what becomes of them.
    pub(super) fn new(base: Floor) -> Result<Self> {
        let changes = watch().map_err(|error| unknown(error.into()))?;
        let current = with_host(&base).map_err(unknown)?;
        Ok(Self {
            base,
            current: Mutex::new(Arc::new(current)),
            changes,
        })
    }

    /// The floor as it is now.
    ///
    /// # Errors
    /// `Unavailable` if the addresses have changed and cannot be read: nothing may be reached then.
    pub(super) fn now(&self) -> Result<Arc<Floor>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_changed() {
            *current = Arc::new(with_host(&self.base).map_err(unknown)?);
        }
        Ok(Arc::clone(&current))
    }

    /// Takes the notices that have come.
    fn has_changed(&self) -> bool {
        let mut has_changed = false;
        let mut notice = [0; 1024];
        // Others can send to it, too, and are not listened to for ever.
        for _ in 0..MOST_NOTICES {
            match rustix::net::recv(&self.changes, &mut notice, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => return has_changed,
                Err(Errno::INTR) => {}
                // There were more than could be kept.
                Ok(_) | Err(Errno::NOBUFS) => has_changed = true,
                Err(_) => return true,
            }
        }
        true
    }
}

impl fmt::Debug for LiveFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveFloor").finish_non_exhaustive()
    }
}

fn unknown(error: io::Error) -> Error {
    let message = "the addresses of this host cannot be read";
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

fn watch() -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        // The protocol of number 0, which is that of routes and addresses.
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, ADDRESSES))?;
    Ok(socket)
}

fn with_host(base: &Floor) -> io::Result<Floor> {
    let addresses = getifaddrs()?.filter_map(|interface| address(&interface.address?));
    Ok(base.clone().host(addresses))
}

fn address(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The address that is meant by the one that a program has connected to.
pub(super) fn meant(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(HOST_ADDRESS) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address,
    }
}

/// Those of the addresses to which this host has a route, by asking the kernel; nothing is sent.
pub(super) fn routed(addresses: Vec<Ipv6Addr>) -> Vec<Ipv6Addr> {
    let Ok(socket) = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
        return Vec::new();
    };
    let from = |to: &Ipv6Addr| {
        socket.connect((*to, 53)).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V6(from) => Some(from),
            IpAddr::V4(_) => None,
        }
    };
    // A router may have been heard of without having given an address that the internet could answer to.
    let is_usable = |from: Ipv6Addr| !from.is_unicast_link_local() && !from.is_unspecified();
    let mut addresses = addresses;
    addresses.retain(|to| from(to).is_some_and(is_usable));
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    #[test]
    fn the_floor_has_the_addresses_of_this_host() {
        let floor = LiveFloor::new(Floor::new()).unwrap().now().unwrap();
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(floor.closes(loopback, 80), Some(Class::Host));
    }

    #[test]
    fn a_notice_is_taken_once() {
        let floor = LiveFloor::new(Floor::new()).unwrap();
        while floor.has_changed() {}
        let first = floor.now().unwrap();
        assert!(Arc::ptr_eq(&first, &floor.now().unwrap()));
    }

    #[test]
    fn only_what_has_a_route_is_kept() {
        let loopback = Ipv6Addr::LOCALHOST;
        let has_loopback = UdpSocket::bind((loopback, 0)).is_ok();
        let kept = routed(vec![loopback]);
        assert_eq!(kept.contains(&loopback), has_loopback);
    }
}
