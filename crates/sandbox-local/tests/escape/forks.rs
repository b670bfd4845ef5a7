//! Getting at the host through a snapshot, whose maker reads what hostile code has left, as the host's root.

use crate::lab::{DECOY, Lab, Who, in_time};
use sandbox_core::prelude::*;
use std::{fs, os::unix::fs::MetadataExt};

/// A tree that changes all the time: directories become links to a directory of the host and back.
const RACE: &str = r#"
    host = given("HOST")
    os.makedirs("/tmp/race/deep/er")
    open("/tmp/race/deep/er/secret", "w").write("own")
    os.symlink(host, "/tmp/race/link")
    ready()
    while True:
        os.rename("/tmp/race/deep", "/tmp/race/aside")
        os.rename("/tmp/race/link", "/tmp/race/deep")
        os.rename("/tmp/race/deep", "/tmp/race/link")
        os.rename("/tmp/race/aside", "/tmp/race/deep")
"#;

#[tokio::test]
async fn links_that_come_and_go_lead_a_snapshot_nowhere() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("er")).unwrap();
    fs::write(host.path().join("er/secret"), DECOY).unwrap();
    let given = [("HOST", host.path().to_str().unwrap().to_owned())];
    for who in Who::all() {
        sandbox.sh(Who::Root, "rm -rf /tmp/race").await;
        let running = sandbox.start(who, RACE, &given).await;
        for _ in 0..10 {
            let options = CreateOptions::new();
            let forks = in_time(lab.provider.fork(sandbox.id(), 1, options)).await;
            let fork = &forks.unwrap()[0];
            let look = "cat /tmp/race/*/er/secret 2>/dev/null; readlink /tmp/race/* | wc -l";
            let seen = fork.exec(Command::shell(look).user("root")).await.unwrap();
            // The control: what is the sandbox's own came along, and the link as a link.
            assert_eq!(seen.stdout_text(), "own1\n", "by {who:?}");
            assert!(in_time(fork.kill()).await.unwrap());
        }
        running.kill().await;
    }
    let found = fs::read_to_string(host.path().join("er/secret"));
    assert_eq!(found.unwrap(), DECOY);
}

#[tokio::test]
async fn what_could_gain_rights_belongs_to_nobody_of_the_host() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    let make = "cp /bin/true /srv/rights && chmod 6755 /srv/rights && setcap cap_chown+ep /srv/rights 2>/dev/null; echo made";
    assert_eq!(sandbox.sh(Who::Root, make).await, "made");
    let forks = lab
        .provider
        .fork(sandbox.id(), 1, CreateOptions::new())
        .await;
    let fork = &forks.unwrap()[0];
    let snapshots = crate::lab::state_dir().join("snapshots");
    let mut seen = 0;
    for entry in fs::read_dir(snapshots).unwrap().flatten() {
        let Ok(status) = fs::metadata(entry.path().join("0/srv/rights")) else {
            continue;
        };
        seen += 1;
        assert!(status.uid() >= FIRST_OF_NOBODY && status.gid() >= FIRST_OF_NOBODY);
    }
    assert!(seen >= 1);
    let own = fork
        .exec(Command::shell("stat -c '%u %a' /srv/rights"))
        .await;
    assert_eq!(own.unwrap().stdout_text(), "0 6755\n");
}

/// Of the storage range, and of the subordinate ids of the tests as well, no id is below this one.
const FIRST_OF_NOBODY: u32 = 1_600_000_000;

/// Everything by which a program could still get at what the sandbox's root was before: other roots, the parent of the
/// root, and what processes and the list of mounts show.
const OLD_ROOT: &str = r#"
    devices = {os.stat(path).st_dev for path in ("/", "/..", "/../..", "/proc/self/root", "/proc/self/cwd", ".")}
    roots = [place for place in mounts() if place == "/"]
    layers = [line for line in open("/proc/self/mountinfo") if " - overlay " in line and "generation-0" in line]
    return f"{len(devices)} {len(roots)} {len(layers)}"
"#;

#[tokio::test]
async fn nothing_leads_to_the_layer_below() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    let fork = sandbox.fork(&lab.provider).await;
    for who in Who::all() {
        sandbox.sh(who, "cd /").await;
        assert_eq!(sandbox.python(who, OLD_ROOT).await, "1 1 0", "{who:?}");
    }
    sandbox.works().await;
    fork.works().await;
    // The control: the fork is of its own first generation.
    assert_ne!(fork.python(Who::Root, OLD_ROOT).await, "1 1 0");
}

#[tokio::test]
async fn who_was_handed_an_open_file_cannot_change_the_layer_of_others() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    let made = "echo own >/srv/file; chmod 666 /srv/file; stat -c %d /";
    let old = sandbox.sh(Who::Root, made).await;
    // As if a sandbox with a volume in common had been passed it, and the sandbox's own processes were gone.
    let outside = format!("/proc/{}/root/srv/file", sandbox.init());
    let mut open = fs::File::options().append(true).open(outside).unwrap();
    let forks = lab.provider.fork(sandbox.id(), 1, CreateOptions::new());
    let fork = forks.await.unwrap().remove(0);
    std::io::Write::write_all(&mut open, b"more\n").unwrap();
    // It was copied, and the sandbox still has what its holder writes.
    assert_eq!(
        sandbox.sh(Who::Root, "stat -c %d /; cat /srv/file").await,
        format!("{old}\nown\nmore")
    );
    let seen = fork.exec(Command::shell("cat /srv/file")).await.unwrap();
    assert_eq!(seen.stdout_text(), "own\n");
    drop(open);
    let forks = lab.provider.fork(sandbox.id(), 1, CreateOptions::new());
    drop(forks.await.unwrap());
    assert_ne!(sandbox.sh(Who::Root, "stat -c %d /").await, old);
}
