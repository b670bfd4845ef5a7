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
        assert!(status.uid() >= 0x7000_0000 && status.gid() >= 0x7000_0000);
    }
    assert!(seen >= 1);
    let own = fork
        .exec(Command::shell("stat -c '%u %a' /srv/rights"))
        .await;
    assert_eq!(own.unwrap().stdout_text(), "0 6755\n");
}
