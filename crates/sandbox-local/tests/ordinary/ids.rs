//! Subordinate ids for tests.

/// First one and number, as `/etc/subuid` has them. Nobody has these.
pub(crate) const IDS: &str = "1600000000:65536";
