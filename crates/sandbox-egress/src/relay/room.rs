//! How many connections this process can hold, and that no sandbox takes what the others need.

use rustix::process::{Resource, getrlimit};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Descriptors of one connection: that of the program, and that of the other side.
const EACH: usize = 2;

/// Most that are kept back from who has many. They are also for queries, pipes, and whatever else this process does.
const MOST_KEPT: usize = 896;

/// Of those that are kept back, a sandbox gets this part of what is left.
const PART: usize = 8;

/// What all connections of this process take, of whichever relay.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Room for one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Room(());

impl Room {
    /// Takes room for one more connection of a sandbox that has so many.
    pub(super) fn take(own: usize) -> Option<Self> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if !is_free(own, TAKEN.load(Ordering::Relaxed), limit) {
            return None;
        }
        TAKEN.fetch_add(EACH, Ordering::Relaxed);
        Some(Self(()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        TAKEN.fetch_sub(EACH, Ordering::Relaxed);
    }
}

/// Whether a sandbox with so many connections may have another, when so many descriptors are taken of those there may be.
fn is_free(own: usize, taken: usize, limit: usize) -> bool {
    let left = limit.saturating_sub(taken);
    left > MOST_KEPT.min(limit / 2) || own.saturating_mul(EACH * PART) < left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_almost_all_and_always_leaves_something() {
        for (limit, first) in [(1024, 256), (20_000, 9552), (1_000_000, 499_552)] {
            let mut taken = 0;
            let shares: Vec<_> = (0..20)
                .map(|_| {
                    let own = (0..).find(|own| !is_free(*own, taken + own * EACH, limit));
                    taken += own.unwrap() * EACH;
                    own.unwrap()
                })
                .collect();
            assert_eq!(shares[0], first);
            assert!(shares.is_sorted_by(|one, next| one >= next), "{shares:?}");
            assert!(shares[9] > 0, "{shares:?}");
        }
    }
}
