//! New namespaces, and those of others: in a new one, a program would have every capability.

use crate::{
    attempt::attempt,
    lab::{Lab, Who, on_host},
    ordinary,
};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, SECCOMP, USER_NAMESPACES};

#[test]
fn a_new_user_namespace() {
    attempt("call('unshare', 0x10000000); return 'made'")
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::User, "ENOSPC")
        .still_fails_without(USER_NAMESPACES, Who::User, "EPERM")
        .works_without(SECCOMP | USER_NAMESPACES, Who::User, "made");
}

#[test]
fn a_process_in_a_new_user_namespace() {
    let code = r#"
        pid = call("clone", 0x10000000 | 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "made"
    "#;
    attempt(code)
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::User, "ENOSPC")
        .works_without(SECCOMP | USER_NAMESPACES, Who::User, "made");
}

#[test]
fn a_process_by_a_call_whose_flags_no_filter_sees() {
    let code = r#"
        pid = call("clone3", struct.pack("8Q", 0, 0, 0, 0, 17, 0, 0, 0), 64)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "made"
    "#;
    attempt(code)
        .fails("ENOSYS")
        .works_without(SECCOMP, Who::User, "made");
}

#[test]
fn new_namespaces_of_every_kind() {
    let kinds = [
        ("mount", 0x2_0000),
        ("cgroup", 0x200_0000),
        ("host name", 0x400_0000),
        ("IPC", 0x800_0000),
        ("process", 0x2000_0000),
        ("network", 0x4000_0000),
        ("time", 0x80),
    ];
    let code = r#"
        made = []
        for flag in given("FLAGS").split(","):
            def make():
                call("unshare", int(flag))
            try:
                in_child(make)
                made.append(flag)
            except OSError:
                pass
        return len(made)
    "#;
    let flags: Vec<_> = kinds.iter().map(|(_, flag)| flag.to_string()).collect();
    attempt(code)
        .given("FLAGS", flags.join(","))
        .fails("0")
        .still_fails_without(SECCOMP, Who::Root, "0")
        .still_fails_without(SECCOMP | CAPABILITIES, Who::Root, "0")
        .works_without(SECCOMP | CAPABILITIES | USER_NAMESPACES, Who::Root, "7");
}

#[test]
fn entering_a_namespace() {
    attempt("call('setns', os.open('/proc/self/ns/net', 0), 0x40000000); return 'entered'")
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::Root, "EPERM")
        .works_without(SECCOMP | CAPABILITIES, Who::Root, "entered");
}

/// Asks for the namespace above one, of which a descriptor would be a way up.
const PARENT: &str = r#"
    os.close(call("ioctl", os.open(given("NAMESPACE"), os.O_RDONLY), 0xb702, 0))
    return "open"
"#;

#[tokio::test]
async fn the_namespaces_above() {
    let sandbox = Lab::new().sandbox().await;
    for kind in ["user", "pid"] {
        let own = [("NAMESPACE", format!("/proc/self/ns/{kind}"))];
        for who in Who::all() {
            assert_eq!(sandbox.python_given(who, PARENT, &own).await, "EPERM");
        }
        let its = [("NAMESPACE", format!("/proc/{}/ns/{kind}", sandbox.init()))];
        if !ordinary::is_ordinary() {
            assert_eq!(on_host(PARENT, &its), "open");
        }
    }
}

#[test]
fn another_host_name() {
    for name in ["sethostname", "setdomainname"] {
        attempt(format!("call('{name}', b'mine', 4); return 'renamed'"))
            .fails("EPERM")
            .works_without(SECCOMP | CAPABILITIES, Who::Root, "renamed");
    }
}
