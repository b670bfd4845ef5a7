//! What no policy opens, but for what the operator has opened.

use crate::ranges::{self, Class};
use ipnet::IpNet;
use std::{collections::BTreeSet, net::IpAddr};

/// The addresses that are closed beneath every policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floor {
    /// Of this host, canonical.
    host: BTreeSet<IpAddr>,
    opened: Vec<(IpNet, Option<u16>)>,
}

impl Floor {
    /// Closes all that is no part of the public internet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes the addresses of this host as well. They change: the caller gives the floor anew when they do.
    #[must_use]
    pub fn host(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.host
            .extend(addresses.into_iter().map(ranges::canonical));
        self
    }

    /// Opens a network for one port, or for all; a policy must still allow it.
    #[must_use]
    pub fn open(mut self, network: IpNet, port: Option<u16>) -> Self {
        self.opened.push((network, port));
        self
    }

    /// Why an address is closed for this port, if it is.
    #[must_use]
    pub fn closes(&self, address: IpAddr, port: u16) -> Option<Class> {
        self.closes_unless(address, |opened| opened.is_none_or(|opened| opened == port))
    }

    /// Why an address is closed for every port, if it is.
    pub(crate) fn closes_all(&self, address: IpAddr) -> Option<Class> {
        self.closes_unless(address, |_| true)
    }

    fn closes_unless(&self, address: IpAddr, fits: impl Fn(Option<u16>) -> bool) -> Option<Class> {
        let address = ranges::canonical(address);
        let host = self.host.contains(&address).then_some(Class::Host);
        let class = host.or_else(|| ranges::class(address))?;
        let mut opened = self.opened.iter();
        let is_open = opened.any(|(network, port)| network.contains(&address) && fits(*port));
        (!is_open).then_some(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_host_is_closed_by_all_its_addresses() {
        let floor = Floor::new().host([
            address("8.8.4.4"),
            address("::ffff:9.9.9.9"),
            address("2a00::5"),
        ]);
        for text in [
            "8.8.4.4",
            "::ffff:8.8.4.4",
            "64:ff9b::8.8.4.4",
            "9.9.9.9",
            "2a00::5",
        ] {
            assert_eq!(
                floor.closes(address(text), 443),
                Some(Class::Host),
                "{text}"
            );
        }
        assert_eq!(floor.closes(address("8.8.8.8"), 443), None);
        assert_eq!(
            floor.closes(address("127.0.0.1"), 443),
            Some(Class::Loopback)
        );
    }

    #[test]
    fn the_operator_opens_no_more_than_was_said() {
        let floor = Floor::new()
            .host([address("127.0.0.1")])
            .open("127.0.0.1/32".parse().unwrap(), Some(11434))
            .open("203.0.113.0/24".parse().unwrap(), None);
        assert_eq!(floor.closes(address("127.0.0.1"), 11434), None);
        assert_eq!(floor.closes(address("::ffff:127.0.0.1"), 11434), None);
        assert_eq!(floor.closes(address("127.0.0.1"), 11435), Some(Class::Host));
        assert_eq!(
            floor.closes(address("127.0.0.2"), 11434),
            Some(Class::Loopback)
        );
        assert_eq!(floor.closes(address("203.0.113.9"), 1), None);
        assert_eq!(floor.closes(address("203.0.114.9"), 1), None);
        assert_eq!(
            floor.closes(address("198.51.100.9"), 1),
            Some(Class::Documentation)
        );
        assert_eq!(floor.closes_all(address("127.0.0.1")), None);
    }
}
