//! Becoming more than one is.

use crate::{
    alone,
    attempt::attempt,
    ids,
    lab::{Inside, Lab, Who, state_dir},
    ordinary,
};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, NO_NEW_PRIVS};
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

/// First id of those that stored files belong to.
fn storage() -> u32 {
    if ordinary::is_ordinary() {
        ids::first()
    } else {
        0x7000_0000
    }
}

/// Who a program becomes that root of the sandbox has prepared, and what it may do then.
const BECOME: &str = "import os\nprint(os.geteuid(), [line.split()[1] for line in open('/proc/self/status') if 'CapEff' in line][0])";

async fn run_prepared(walls: u32, prepare: &str) -> (Inside, String) {
    let sandbox = Lab::without(walls).sandbox().await;
    let copy = "cp $(readlink -f /usr/bin/python3) /usr/bin/prepared";
    let prepared = sandbox.sh(Who::Root, &format!("{copy} && {prepare}")).await;
    assert_eq!(prepared, "");
    let ran = sandbox
        .sh(Who::User, &format!("prepared -S -c \"{BECOME}\""))
        .await;
    (sandbox, ran)
}

/// Where a file of the sandbox's `/usr` is on the host.
fn on_disk(sandbox: &Inside, name: &str) -> PathBuf {
    let record = state_dir().join("sandboxes").join(sandbox.id().as_str());
    record.join("store/u1").join(name)
}

#[tokio::test]
async fn by_a_setuid_program() {
    let prepare = "chmod 4755 /usr/bin/prepared";
    let (sandbox, ran) = run_prepared(0, prepare).await;
    assert_eq!(ran, "1000 0000000000000000");
    // On the host, it would make somebody a user who is nobody.
    let stored = fs::metadata(on_disk(&sandbox, "bin/prepared")).unwrap();
    assert_eq!(stored.mode() & 0o7777, 0o4755);
    assert_eq!((stored.uid(), stored.gid()), (storage(), storage()));
    // Without the wall it makes one root of the sandbox, and no more than that.
    let (_, ran) = run_prepared(NO_NEW_PRIVS, prepare).await;
    assert_eq!(ran, "0 00000000800404fb");
}

#[tokio::test]
async fn by_a_program_with_capabilities() {
    // setcap cap_chown+ep, without setcap(8).
    let prepare = "python3 -S -c \"import os, struct; os.setxattr('/usr/bin/prepared', 'security.capability', \
                   struct.pack('<5I', 0x2000001, 1, 0, 0, 0))\"";
    let (sandbox, ran) = run_prepared(0, prepare).await;
    assert_eq!(ran, "1000 0000000000000000");
    // On disk they are those of a namespace whose root is the storage range's: version 3, with that id at the end.
    let mut stored = [0; 24];
    let path = on_disk(&sandbox, "bin/prepared");
    let len = rustix::fs::getxattr(&path, "security.capability", &mut stored).unwrap();
    assert_eq!((len, stored[3]), (24, 3));
    assert_eq!(stored[20..], storage().to_le_bytes());
    let (_, ran) = run_prepared(NO_NEW_PRIVS, prepare).await;
    assert_eq!(ran, "1000 0000000000000001");
}

#[tokio::test]
async fn by_a_capability_that_root_lacks() {
    // cap_sys_admin+ep: the kernel refuses to run such a program at all, as it could not do what it expects to.
    let prepare = "python3 -S -c \"import os, struct; os.setxattr('/usr/bin/prepared', 'security.capability', \
                   struct.pack('<5I', 0x2000001, 1 << 21, 0, 0, 0))\"";
    let (_, ran) = run_prepared(NO_NEW_PRIVS, prepare).await;
    assert!(ran.contains("Operation not permitted"), "{ran}");
    let (_, ran) = run_prepared(NO_NEW_PRIVS | CAPABILITIES, prepare).await;
    assert_eq!(ran, "1000 0000000000200000");
}

#[test]
fn by_raising_capabilities() {
    let code = r#"
        call("capset", struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0xffffffff, 0xffffffff, 0, 0x1ff, 0x1ff, 0]))
        return "raised"
    "#;
    attempt(code)
        .fails("EPERM")
        .works_without(CAPABILITIES, Who::Root, "raised");
}

#[test]
fn by_becoming_root() {
    attempt("os.setuid(0); return os.getuid()")
        .fails_as(
            Who::User,
            // There is nobody of that number.
            if alone::is_alone() { "EINVAL" } else { "EPERM" },
        )
        .works_without(0, Who::Root, "0");
}

#[test]
fn by_becoming_a_user_of_another_range() {
    let code = r#"
        open(given("FILE"), "w").close()
        outcomes = set()
        for id in (65536, 70000, 0x70000000, 0x70010000, 2 ** 32 - 2):
            for way in (lambda: in_child(lambda: os.setresuid(id, id, id)), lambda: os.chown(given("FILE"), id, id)):
                try:
                    way()
                    outcomes.add("became")
                except OSError as error:
                    outcomes.add(errno.errorcode[error.errno])
        return outcomes
    "#;
    let file = tempfile::NamedTempFile::new().unwrap();
    attempt(code).given("FILE", "/tmp/file").fails("{'EINVAL'}");
    attempt(code)
        .given("FILE", file.path().display())
        .works_on_host("{'became'}");
}

#[test]
fn by_more_than_a_limit_allows() {
    let code = r#"
        import resource
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        call("prlimit64", 0, 7, struct.pack("2Q", 0, hard + 1), None)
        return "raised"
    "#;
    attempt(code).fails("EPERM");
    // Lowering it is no question of rights.
    attempt(code.replace("hard + 1", "hard - 1")).works_without(0, Who::User, "raised");
}
