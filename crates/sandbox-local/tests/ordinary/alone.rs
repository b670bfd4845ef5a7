//! Whether sandboxes have one user, since this program runs as an ordinary user without subordinate ids.

use super::ordinary;
use std::env;

/// Whether they do.
pub(crate) fn is_alone() -> bool {
    let has_ids = env::var_os("SANDBOX_TEST_IDS").is_some_and(|etc| !etc.is_empty());
    ordinary::is_ordinary() && !has_ids
}
