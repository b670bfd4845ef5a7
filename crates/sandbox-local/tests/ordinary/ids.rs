//! Subordinate ids for tests.

/// First one and number, as `/etc/subuid` has them. Nobody has these.
pub(crate) const IDS: &str = "1600000000:65536";

/// The first one.
pub(crate) fn first() -> u32 {
    let first = IDS.split(':').next();
    first.and_then(|first| first.parse().ok()).unwrap()
}
