//! Devices of the host.

use crate::{
    attempt::attempt,
    lab::{Lab, Who},
};
use sandbox_agent::protocol::zygote::weaken::DEVICES;

#[test]
fn that_are_there() {
    let code = r#"
        harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
        found = []
        for directory, _, files in os.walk("/dev"):
            for file in files:
                mode = os.lstat(f"{directory}/{file}").st_mode
                if (stat.S_ISBLK(mode) or stat.S_ISCHR(mode)) and file not in harmless:
                    found.append(file)
        return bool(found)
    "#;
    attempt(code)
        .fails("False")
        .works_without(DEVICES, Who::User, "True");
}

#[test]
fn of_memory_and_messages_by_name() {
    for name in ["/dev/mem", "/dev/kmsg", "/dev/port", "/dev/console"] {
        attempt("os.stat(given('NAME')); return 'there'")
            .given("NAME", name)
            .fails("ENOENT")
            .works_without_as_on_host(DEVICES, Who::User, "there");
    }
}

#[test]
fn made_by_their_numbers() {
    let code = r#"
        kind, major, minor = given("DEVICE").split(" ")
        path = given("PLACE") + "/device"
        os.mknod(path, {"c": stat.S_IFCHR, "b": stat.S_IFBLK}[kind] | 0o666, os.makedev(int(major), int(minor)))
        with open(path, "rb") as device:
            return len(device.read(1))
    "#;
    // Memory, a disk, and zeros, which are harmless to read on the host.
    for device in ["c 1 1", "b 8 0", "b 254 0", "c 1 5"] {
        for place in ["/tmp", "/dev/shm", "/run", "/usr"] {
            attempt(code)
                .given("DEVICE", device)
                .given("PLACE", place)
                .fails_as(Who::Root, "EPERM");
        }
    }
    attempt(code)
        .given("DEVICE", "c 1 5")
        .given("PLACE", "/tmp")
        .fails_as(Who::User, "EPERM");
    let kept = tempfile::tempdir().unwrap();
    attempt(code)
        .given("DEVICE", "c 1 5")
        .given("PLACE", kept.path().display())
        .works_on_host("1");
}

#[tokio::test]
async fn spoiled_for_others() {
    // Root of a sandbox owns its `/dev`: what it does there, nobody else sees.
    let lab = Lab::new();
    let (one, other) = (lab.sandbox().await, lab.sandbox().await);
    let spoil = "rm /dev/null && echo mine > /dev/null && chmod 666 /dev/null /dev/zero && chown user /dev/zero \
                 && cat /dev/null";
    assert_eq!(one.sh(Who::Root, spoil).await, "mine");
    one.works().await;
    let look = "stat -c '%F %U %a' /dev/null /dev/zero";
    let clean = "character special file root 666\ncharacter special file root 666";
    assert_eq!(other.sh(Who::Root, look).await, clean);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata("/dev/zero").unwrap().uid(), 0);
}
