//! Changing what is mounted where.

use crate::{attempt::attempt, lab::Who};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, SECCOMP, USER_NAMESPACES};

/// Refused by the filter, and for want of a capability if there were none.
fn refused(code: &str, done: &str) {
    attempt(code)
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::Root, "EPERM")
        .still_fails_without(CAPABILITIES, Who::Root, "EPERM")
        .works_without(SECCOMP | CAPABILITIES, Who::Root, done);
}

#[test]
fn a_new_file_system() {
    refused(
        "call('mount', b'none', b'/mnt', b'tmpfs', 0, None); return 'mounted'",
        "mounted",
    );
}

#[test]
fn a_second_place_for_a_directory() {
    refused(
        "call('mount', b'/proc', b'/mnt', None, 4096, None); return 'bound'",
        "bound",
    );
}

#[test]
fn taking_a_mask_away() {
    refused(
        "call('umount2', b'/proc/sys', 2); return '/proc/sys' in mounts()",
        "False",
    );
}

#[test]
fn making_a_read_only_mount_writable() {
    let code = r#"
        call("mount", None, b"/proc/sys", None, 32 | 4096, None)
        os.open("/proc/sys/user/max_user_namespaces", os.O_WRONLY)
        return "writable"
    "#;
    refused(code, "writable");
}

#[test]
fn making_a_read_only_mount_writable_the_new_way() {
    let code = r#"
        call("mount_setattr", -100, b"/proc/sys", 0, struct.pack("4Q", 0, 1, 0, 0), 32)
        os.open("/proc/sys/user/max_user_namespaces", os.O_WRONLY)
        return "writable"
    "#;
    refused(code, "writable");
}

#[test]
fn a_file_system_without_a_place() {
    refused("call('fsopen', b'tmpfs', 0); return 'open'", "open");
}

#[test]
fn another_configuration_of_the_root() {
    refused(
        "call('fspick', -100, b'/dev/shm', 0); return 'open'",
        "open",
    );
}

#[test]
fn a_copy_of_a_tree() {
    // It is attached in a namespace of its own, which is a wall more.
    attempt("call('open_tree', -100, b'/', 1); return 'open'")
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::Root, "EPERM")
        .still_fails_without(SECCOMP | CAPABILITIES, Who::Root, "ENOSPC")
        .works_without(SECCOMP | CAPABILITIES | USER_NAMESPACES, Who::Root, "open");
}

#[test]
fn moving_a_mount() {
    refused(
        "call('move_mount', -100, b'/run', -100, b'/mnt', 0); return 'moved'",
        "moved",
    );
}

#[test]
fn another_root() {
    refused(
        "call('pivot_root', b'/run', b'/run'); return 'turned'",
        "turned",
    );
}
