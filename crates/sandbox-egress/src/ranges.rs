//! Addresses that are no part of the public internet, by the registries of special addresses that IANA keeps (RFC 6890
//! and what has updated it).

use ipnet::{Ipv4Net, Ipv6Net};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Why an address is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Of whoever asks: `127.0.0.0/8`, `::1`, `0.0.0.0/8`.
    Loopback,
    /// Of a private network.
    Private,
    /// Of the same link.
    LinkLocal,
    /// Where a cloud tells its machines who they are, and what their keys are.
    Metadata,
    /// Of a provider's own network, behind which its customers are (RFC 6598).
    Shared,
    /// Of many at once.
    Multicast,
    /// For examples.
    Documentation,
    /// For measurements of networks.
    Benchmark,
    /// For another purpose than reaching a host, or none yet.
    Reserved,
    /// An address of this host.
    Host,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata service",
            Self::Shared => "an address behind a provider's translation",
            Self::Multicast => "a multicast address",
            Self::Documentation => "an address for documentation",
            Self::Benchmark => "an address for benchmarks",
            Self::Reserved => "a reserved address",
            Self::Host => "an address of this host",
        })
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// The first that fits names the class. The metadata services are within other ranges, or outside of all.
const CLOSED_V4: [(Ipv4Net, Class); 18] = [
    // Amazon, Google, Azure and most others; Alibaba; Azure's second; Oracle's first.
    (v4(169, 254, 169, 254, 32), Class::Metadata),
    (v4(100, 100, 100, 200, 32), Class::Metadata),
    (v4(168, 63, 129, 16, 32), Class::Metadata),
    (v4(192, 0, 0, 192, 32), Class::Metadata),
    // "This network" means this host to the kernel.
    (v4(0, 0, 0, 0, 8), Class::Loopback),
    (v4(127, 0, 0, 0, 8), Class::Loopback),
    (v4(10, 0, 0, 0, 8), Class::Private),
    (v4(172, 16, 0, 0, 12), Class::Private),
    (v4(192, 168, 0, 0, 16), Class::Private),
    (v4(169, 254, 0, 0, 16), Class::LinkLocal),
    (v4(100, 64, 0, 0, 10), Class::Shared),
    (v4(192, 0, 2, 0, 24), Class::Documentation),
    (v4(198, 51, 100, 0, 24), Class::Documentation),
    (v4(203, 0, 113, 0, 24), Class::Documentation),
    (v4(198, 18, 0, 0, 15), Class::Benchmark),
    (v4(192, 0, 0, 0, 24), Class::Reserved),
    // Relays of 6to4, given up (RFC 7526).
    (v4(192, 88, 99, 0, 24), Class::Reserved),
    (v4(224, 0, 0, 0, 4), Class::Multicast),
];

/// The rest of the former class E, with the broadcast address.
const LAST_V4: Ipv4Net = v4(240, 0, 0, 0, 4);

const CLOSED_V6: [(Ipv6Net, Class); 12] = [
    // Amazon's by IPv6, and Google's.
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
        Class::Metadata,
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
        Class::Metadata,
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128),
        Class::Loopback,
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128),
        Class::Loopback,
    ),
    (v6(0xfc00, 0, 0, 7), Class::Private),
    // Site-local addresses, given up (RFC 3879).
    (v6(0xfec0, 0, 0, 10), Class::Private),
    (v6(0xfe80, 0, 0, 10), Class::LinkLocal),
    (v6(0xff00, 0, 0, 8), Class::Multicast),
    (v6(0x2001, 2, 0, 48), Class::Benchmark),
    (v6(0x2001, 0xdb8, 0, 32), Class::Documentation),
    (v6(0x3fff, 0, 0, 20), Class::Documentation),
    // Protocol assignments, Teredo among them, whose addresses hold others.
    (v6(0x2001, 0, 0, 23), Class::Reserved),
];

/// 6to4, whose addresses hold others.
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);

/// All that is given to hosts of the internet.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Translation to IPv4 by gateways of the internet (RFC 6052).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// The address that is meant: that of IPv4 where it is only written as one of IPv6.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if NAT64.contains(&v6) => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        address => address.to_canonical(),
    }
}

/// Why a canonical address is closed, if it is.
pub(crate) fn class(address: IpAddr) -> Option<Class> {
    match address {
        IpAddr::V4(address) => {
            let mut closed = CLOSED_V4.iter();
            let found = closed.find(|(net, _)| net.contains(&address));
            let last = LAST_V4.contains(&address).then_some(Class::Reserved);
            found.map(|(_, class)| *class).or(last)
        }
        IpAddr::V6(address) => {
            let mut closed = CLOSED_V6.iter();
            let found = closed.find(|(net, _)| net.contains(&address));
            let is_other = SIX_TO_FOUR.contains(&address) || !GLOBAL_V6.contains(&address);
            let other = is_other.then_some(Class::Reserved);
            found.map(|(_, class)| *class).or(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Class> {
        class(canonical(text.parse().unwrap()))
    }

    #[test]
    fn special_addresses_are_closed_however_they_are_written() {
        use Class::*;
        for (text, expected) in [
            ("0.0.0.0", Loopback),
            ("0.1.2.3", Loopback),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("169.254.0.1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("192.0.0.192", Metadata),
            ("100.64.0.1", Shared),
            ("100.127.255.255", Shared),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("192.0.2.1", Documentation),
            ("198.51.100.7", Documentation),
            ("203.0.113.7", Documentation),
            ("198.18.0.1", Benchmark),
            ("198.19.255.255", Benchmark),
            ("192.0.0.8", Reserved),
            ("192.88.99.1", Reserved),
            ("240.0.0.1", Reserved),
            ("255.255.255.255", Reserved),
        ] {
            assert_eq!(of(text), Some(expected), "{text}");
            assert_eq!(
                of(&format!("::ffff:{text}")),
                Some(expected),
                "mapped {text}"
            );
            assert_eq!(
                of(&format!("64:ff9b::{text}")),
                Some(expected),
                "NAT64 {text}"
            );
            // These hold other addresses, and none of them is open.
            let IpAddr::V4(v4) = text.parse().unwrap() else {
                unreachable!()
            };
            let [a, b, c, d] = v4.octets();
            assert!(of(&format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1")).is_some());
            assert!(of(&format!("::{text}")).is_some(), "compatible {text}");
            assert!(of(&format!("64:ff9b:1::{text}")).is_some());
        }
        for (text, expected) in [
            ("::", Loopback),
            ("::1", Loopback),
            ("fc00::1", Private),
            ("fdff::1", Private),
            ("fec0::1", Private),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("ff02::1", Multicast),
            ("2001:db8::1", Documentation),
            ("3fff::1", Documentation),
            ("2001:2::1", Benchmark),
            ("2001::1", Reserved),
            ("2001:1ff::1", Reserved),
            ("100::1", Reserved),
            ("5f00::1", Reserved),
            ("4000::1", Reserved),
        ] {
            assert_eq!(of(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn neighbours_of_closed_ranges_are_open() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "168.63.129.17",
            "2606:4700::1111",
            "2001:200::1",
            "2a00::1",
            "64:ff9b::1.1.1.1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
