//! The tests of what sandboxes reach, once for each kind of user.

use crate::{ids, ordinary, pass::pass, world};
use std::{env, process::Command};

/// How many tests there are at least.
const TESTS: u32 = 15;

/// Each world has servers and sandboxes of its own; two tests at a time are enough for it.
const ARGUMENTS: [&str; 2] = ["--ignored", "--test-threads=2"];

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
