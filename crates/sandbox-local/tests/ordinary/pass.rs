//! Runs tests of a program again, and sees to it that they pass.

use std::process::Command;

/// Runs tests, all of which must pass. A filter that fits too much or nothing would leave nothing to fail.
pub(crate) fn pass(program: &mut Command, least: u32) {
    let output = program.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let counted = text
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "));
    let passed = counted.and_then(|line| line.split(' ').next()?.parse::<u32>().ok());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(passed.is_some_and(|passed| passed >= least), "{text}");
}
