//! Which names the resolver has given addresses for, as far as one sandbox was told.

use crate::{Name, ranges};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Most pairs of address and name that are remembered; the oldest goes first.
const MOST: usize = 4096;

/// Most names of an address that a connection to it is judged by; those that were asked for last.
const MOST_NAMES: usize = 32;

/// How long a pair is remembered at least: programs use addresses for longer than they were given for.
const AT_LEAST: Duration = Duration::from_secs(60 * 60);

/// Addresses, canonical, and the names they were given for.
#[derive(Debug, Default)]
pub(super) struct Given {
    names: HashMap<IpAddr, Vec<Entry>>,
    /// By when they were given last.
    order: BTreeMap<u64, (IpAddr, Name)>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    until: Instant,
    number: u64,
}

impl Given {
    /// Remembers that an address was given for a name.
    pub(super) fn add(&mut self, address: IpAddr, name: &Name, ttl: Duration, now: Instant) {
        let address = ranges::canonical(address);
        let mut until = now + ttl.max(AT_LEAST);
        let entries = self.names.entry(address).or_default();
        if let Some(at) = entries.iter().position(|entry| entry.name == *name) {
            let before = entries.swap_remove(at);
            self.order.remove(&before.number);
            until = until.max(before.until);
        }
        let number = self.next;
        self.next += 1;
        let name = name.clone();
        self.order.insert(number, (address, name.clone()));
        entries.push(Entry {
            name,
            until,
            number,
        });
        if self.order.len() > MOST {
            self.forget_oldest();
        }
    }

    /// The names for which an address was given, the last one first.
    pub(super) fn names(&mut self, address: IpAddr, now: Instant) -> Vec<Name> {
        let Some(entries) = self.names.get_mut(&ranges::canonical(address)) else {
            return Vec::new();
        };
        entries.retain(|entry| {
            let is_valid = now < entry.until;
            if !is_valid {
                self.order.remove(&entry.number);
            }
            is_valid
        });
        entries.sort_unstable_by_key(|entry| Reverse(entry.number));
        let last = entries.iter().take(MOST_NAMES);
        last.map(|entry| entry.name.clone()).collect()
    }

    fn forget_oldest(&mut self) {
        let Some((number, (address, _))) = self.order.pop_first() else {
            return;
        };
        if let Some(entries) = self.names.get_mut(&address) {
            entries.retain(|entry| entry.number != number);
            if entries.is_empty() {
                self.names.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn an_address_has_all_names_it_was_given_for() {
        let (mut given, now) = (Given::default(), Instant::now());
        let address = IpAddr::from([1, 1, 1, 1]);
        for text in ["a.example", "b.example", "a.example"] {
            given.add(address, &name(text), Duration::ZERO, now);
        }
        let mapped: IpAddr = "::ffff:1.1.1.1".parse().unwrap();
        let names = given.names(mapped, now);
        assert_eq!(names, [name("a.example"), name("b.example")]);
        assert_eq!(given.names(IpAddr::from([1, 1, 1, 2]), now), []);
    }

    #[test]
    fn of_many_names_the_last_are_taken() {
        let (mut given, now) = (Given::default(), Instant::now());
        let address = IpAddr::from([1, 1, 1, 1]);
        for number in 0..100 {
            given.add(
                address,
                &name(&format!("a{number}.example")),
                Duration::ZERO,
                now,
            );
        }
        let names = given.names(address, now);
        assert_eq!(names.len(), MOST_NAMES);
        assert_eq!(names[0], name("a99.example"));
    }

    #[test]
    fn it_lasts_as_long_as_it_was_given_for_and_an_hour_at_least() {
        let (mut given, now) = (Given::default(), Instant::now());
        let address = IpAddr::from([1, 1, 1, 1]);
        let day = Duration::from_secs(24 * 60 * 60);
        given.add(address, &name("short.example"), Duration::ZERO, now);
        given.add(address, &name("long.example"), day, now);
        given.add(address, &name("long.example"), Duration::ZERO, now);
        let almost = now + AT_LEAST - Duration::from_secs(1);
        assert_eq!(given.names(address, almost).len(), 2);
        let names = given.names(address, now + AT_LEAST);
        assert_eq!(names, [name("long.example")]);
        assert_eq!(given.names(address, now + day), []);
        assert!(given.order.is_empty());
    }

    #[test]
    fn the_oldest_is_forgotten_and_no_more_is_kept_than_that() {
        let (mut given, now) = (Given::default(), Instant::now());
        let address = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        let add = |given: &mut Given, number| {
            given.add(address(number), &name("a.example"), Duration::ZERO, now);
        };
        for number in 0..MOST {
            add(&mut given, number);
        }
        // Given again, it is no longer the oldest.
        add(&mut given, 0);
        add(&mut given, MOST);
        assert_eq!(given.names(address(0), now).len(), 1);
        assert_eq!(given.names(address(1), now).len(), 0);
        assert_eq!(given.names(address(2), now).len(), 1);
        assert_eq!(given.names(address(MOST), now).len(), 1);
        assert_eq!(given.order.len(), MOST);
        assert_eq!(given.names.len(), MOST);
    }
}
