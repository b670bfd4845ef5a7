//! The tests of what sandboxes reach, once for each kind of user.

use crate::{ids, ordinary, pass::pass, world};
use std::{env, process::Command};

/// How many tests there are at least.
const TESTS: u32 = 21;

/// Each world has servers and sandboxes of its own; two tests at a time are enough for it.
#[rustfmt::skip]
const ARGUMENTS: [&str; 6] = [
    "--ignored", "--test-threads=2",
    // These are programs of other tests.
    "--skip", "detached::relay", "--skip", "detached::owner",
];

#[test]
fn as_root() {
    let program = Command::new(env::current_exe().unwrap());
    pass(world::behind(&program).args(ARGUMENTS), TESTS);
}

#[test]
fn as_ordinary() {
    let program = ordinary::this_program(None);
    pass(world::behind(&program).args(ARGUMENTS), TESTS);
}

#[test]
fn as_subordinate() {
    let program = ordinary::this_program(Some(ids::IDS));
    pass(world::behind(&program).args(ARGUMENTS), TESTS);
}
