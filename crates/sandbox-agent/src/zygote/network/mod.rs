//! Has all connections and all questions for names that leave a sandbox arrive at two sockets of it.
//!
//! The sandbox's network has no interface but loopback. A route makes every address there is local to that, so whatever
//! is sent comes back at once. A rule of the packet filter hands the first segment of each TCP connection to one socket
//! that listens, and what that accepts has the address that was meant as its own. The other one is bound to the port of
//! name servers on all addresses. What is sent anywhere else meets nobody, and is refused.

mod filter;
mod message;
mod route;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::failure::{During as _, Failure};
use crate::pid1::Caught;
use crate::sys::inet::{self, Family};
use crate::sys::netlink::Netlink;

/// The sandbox's own address: one that is nobody's on the internet (RFC 7335). Without it, programs would not ask for
/// names at all, since a machine with loopback addresses alone can reach nobody.
const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);

/// Likewise, of a private range (RFC 4193) that was chosen at random.
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd3b, 0x9c61, 0x52e7, 0, 0, 0, 0, 2);

/// The one interface, in every new namespace.
const LOOPBACK: u32 = 1;

/// Where connections are caught. Nobody else listens there.
const TCP_PORT: u16 = 1;

/// Where questions for names are sent.
const DNS_PORT: u16 = 53;

/// Connections that may wait to be accepted, if the kernel lets as many.
const BACKLOG: i32 = 4096;

/// Catches what leaves this network namespace from now on, whose loopback interface is up.
pub(crate) fn catch() -> Result<Caught, Failure> {
    let mut routing = Netlink::open(libc::NETLINK_ROUTE).during("reach the kernel's routes")?;
    route::messages(Family::V4).carry_out(&mut routing)?;
    let family = match route::messages(Family::V6).carry_out(&mut routing) {
        Ok(()) => Family::V6,
        // Then no program in there can send anything by it.
        Err(failure) if lacks_ipv6(&failure) => Family::V4,
        Err(failure) => return Err(failure),
    };
    let rules = match family {
        Family::V4 => &[Family::V4][..],
        Family::V6 => &[Family::V4, Family::V6],
    };
    let mut filter = Netlink::open(libc::NETLINK_NETFILTER).during(filter::STEP)?;
    filter::messages(rules).carry_out(&mut filter)?;
    let tcp = inet::listen_transparently(family, TCP_PORT, BACKLOG)
        .during("listen for what leaves the sandbox")?;
    let dns = inet::receive_for_all(family, DNS_PORT)
        .during("listen for the sandbox's questions for names")?;
    Ok(Caught { tcp, dns, family })
}

/// Whether the kernel has no IPv6, or it is switched off.
fn lacks_ipv6(failure: &Failure) -> bool {
    let reasons = [libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EACCES];
    reasons.contains(&failure.errno())
}

#[cfg(test)]
mod tests;
