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

/// Runs all tests but those that do not apply, named by the beginning of their names with the reason, and those that run
/// others again.
#[expect(clippy::print_stdout, reason = "what is left out is named")]
pub(crate) fn pass_without(program: &mut Command, lacking: &[(&str, &str)], least: u32) {
    let again = ["as_ordinary::", "as_subordinate::"];
    for (name, why) in lacking {
        println!("ignored: {name}: {why}");
    }
    let names = lacking.iter().map(|(name, _)| *name);
    let skips = names.chain(again).flat_map(|name| ["--skip", name]);
    pass(program.args(skips), least);
}
