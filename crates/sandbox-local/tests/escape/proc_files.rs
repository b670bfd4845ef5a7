//! `/proc`: what tells of the host, and what would change it.

use crate::{attempt::attempt, lab::Who};
use sandbox_agent::protocol::zygote::weaken::PROC_MASKS;
use std::path::Path;

/// Reads the beginning of a file of `/proc`; what covers it is empty.
const BEGINNING: &str = "return len(open(given('FILE'), 'rb').read(16)) > 0";

#[test]
fn the_kernels_command_line() {
    attempt(BEGINNING)
        .given("FILE", "/proc/cmdline")
        .fails("False")
        .works_without(PROC_MASKS, Who::User, "True");
}

#[test]
fn the_kernels_symbols() {
    attempt(BEGINNING)
        .given("FILE", "/proc/kallsyms")
        .fails("False")
        .works_without_as_on_host(PROC_MASKS, Who::User, "True");
}

#[test]
fn keys_of_others() {
    attempt(BEGINNING)
        .given("FILE", "/proc/key-users")
        .fails("False")
        .works_without_as_on_host(PROC_MASKS, Who::User, "True");
}

#[test]
fn the_machines_devices() {
    for file in [
        "/proc/interrupts",
        "/proc/zoneinfo",
        "/proc/diskstats",
        "/proc/partitions",
    ] {
        attempt(BEGINNING)
            .given("FILE", file)
            .fails("False")
            .works_without_as_on_host(PROC_MASKS, Who::User, "True");
    }
}

/// Opens a file of `/proc` without changing anything; what covers it is not of `/proc`.
const OPEN: &str = r#"
    fd = os.open(given("FILE"), os.O_WRONLY if given("HOW") == "write" else os.O_RDONLY)
    return os.fstat(fd).st_dev == os.stat("/proc").st_dev
"#;

#[test]
fn the_kernels_memory() {
    if !Path::new("/proc/kcore").exists() {
        return;
    }
    attempt(OPEN)
        .given("HOW", "read")
        .given("FILE", "/proc/kcore")
        .fails("False")
        .works_on_host("True");
}

#[test]
fn the_kernels_messages() {
    attempt(OPEN)
        .given("HOW", "read")
        .given("FILE", "/proc/kmsg")
        .fails("False")
        .works_on_host("True");
}

#[test]
fn magic_system_requests() {
    if !Path::new("/proc/sysrq-trigger").exists() {
        return;
    }
    attempt(OPEN)
        .given("HOW", "write")
        .given("FILE", "/proc/sysrq-trigger")
        .fails("EACCES")
        .works_on_host("True");
}

#[test]
fn the_program_that_gets_core_dumps() {
    attempt(OPEN)
        .given("HOW", "write")
        .given("FILE", "/proc/sys/kernel/core_pattern")
        .fails("EACCES")
        .works_on_host("True");
}

#[test]
fn any_setting_of_the_kernel() {
    let code = r#"
        found = []
        for directory, _, files in os.walk("/proc/sys"):
            for file in files:
                try:
                    os.close(os.open(f"{directory}/{file}", os.O_WRONLY))
                    found.append(file)
                except OSError:
                    pass
        return len(found) > 0
    "#;
    attempt(code)
        .fails("False")
        .works_without(PROC_MASKS, Who::Root, "True");
}

#[test]
fn names_of_the_hosts_disks() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let sources = mounts.lines().filter_map(|line| line.split(' ').next());
    let Some(disk) = sources
        .filter_map(|source| source.strip_prefix("/dev/"))
        .next()
    else {
        // The root is no disk.
        return;
    };
    let code = r#"
        found = []
        for directory, below, files in os.walk("/proc"):
            below[:] = [each for each in below if not each.isdigit() and each not in ("self", "thread-self")]
            if given("DISK") in below:
                found.append(directory)
            for file in files:
                try:
                    text = os.read(os.open(f"{directory}/{file}", os.O_RDONLY | os.O_NONBLOCK), 1 << 16)
                    if given("DISK").encode() in text:
                        found.append(file)
                except OSError:
                    pass
        return found
    "#;
    let looked = attempt(code).given("DISK", disk).fails("[]");
    assert_ne!(looked.on_host(), "[]");
}

#[test]
fn anything_else_that_can_be_written() {
    let code = r#"
        found = []
        for directory, below, files in os.walk("/proc"):
            below[:] = [each for each in below if not each.isdigit() and each not in ("self", "thread-self", "sys")]
            for file in files:
                try:
                    os.close(os.open(f"{directory}/{file}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
                    found.append(f"{directory}/{file}")
                except OSError:
                    pass
        return found
    "#;
    attempt(code).fails("[]");
    attempt(code.replace("return found", "return bool(found)")).works_on_host("True");
}

#[test]
fn the_masks_themselves() {
    let code = r#"
        for path in ["/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/sys", "/proc/sysrq-trigger"]:
            for change in (os.unlink, lambda path: os.chmod(path, 0o777), lambda path: os.rename(path, "/proc/x")):
                try:
                    change(path)
                    return f"changed {path}"
                except OSError:
                    pass
        os.open("/proc/kallsyms", os.O_WRONLY)
    "#;
    attempt(code)
        .fails_as(Who::User, "EACCES")
        .fails_as(Who::Root, "EROFS");
}
