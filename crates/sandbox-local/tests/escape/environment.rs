//! The host's environment, and that of the processes which make a sandbox.

use crate::{attempt::attempt, lab::Who};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, DUMPABLE};
use std::env;

/// Cargo tells this program a lot; a sandbox must know nothing of it.
fn own_variable() -> String {
    let mut names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names
        .find(|name| name.starts_with("CARGO_"))
        .expect("cargo runs this test")
}

#[test]
fn in_a_commands_environment() {
    attempt("return given('NAME') in os.environ")
        .given("NAME", own_variable())
        .fails("False")
        .works_on_host("True");
}

#[test]
fn in_the_environment_of_any_process() {
    let code = r#"
        for entry in os.listdir("/proc"):
            try:
                if given("NAME").encode() + b"=" in open(f"/proc/{entry}/environ", "rb").read():
                    return "found"
            except OSError:
                pass
        return "nothing"
    "#;
    attempt(code)
        .given("NAME", own_variable())
        .fails("nothing")
        .works_on_host("found");
}

#[test]
fn in_the_environment_of_pid_1() {
    attempt("open('/proc/1/environ').read(); return 'read'")
        .fails("EACCES")
        .still_fails_without(DUMPABLE, Who::Root, "EACCES")
        .works_without(DUMPABLE | CAPABILITIES, Who::Root, "read");
}
