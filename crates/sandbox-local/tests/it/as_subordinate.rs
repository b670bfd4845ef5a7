//! All of this again for sandboxes of an ordinary user with subordinate ids, and what is different for one.

use crate::{
    ids,
    images::{Archive, Layout},
    ordinary,
    pass::{pass, pass_without},
    support::{State, sh},
    trees::small_tree,
};
use sandbox_core::{Enforcement, prelude::*};
use sandbox_local::{ImportOptions, LocalProvider, VolumeMount};
use std::{fs, os::unix::fs::MetadataExt};

const LIMITS: &str = "limits need a cgroup";
const DISK: &str = "only root can make a file system for one sandbox";
const BUSY: &str = "what runs is stopped by a cgroup";
const FOLDERS: &str = "there are no folders of the host in sandboxes whose users are nobody there";
const HOSTS_ROOT: &str = "the host's root prepares it";

/// What does not apply, by the beginning of its name, and why.
#[rustfmt::skip]
const LACKING: &[(&str, &str)] = &[
    ("doctor::", HOSTS_ROOT),
    ("filesystems::", HOSTS_ROOT),
    ("leftovers::the_file_system_for_large_disks", HOSTS_ROOT),
    ("limits::a_disk_larger_than_memory", DISK),
    ("limits::a_full_disk_is_an_error", DISK),
    ("limits::a_sandbox_with_a_disk_of_its_own", DISK),
    ("limits::bytes_are_counted_that_programs_wrote_to_disk_before_they_ended", LIMITS),
    ("limits::half_a_processor_is_half_a_processor", LIMITS),
    ("limits::the_report_says_what_holds", "it says so of root's"),
    ("limits::too_much_memory_ends_the_offender_only_and_is_said", LIMITS),
    ("own_limits::", LIMITS),
    ("pool::limits_hold_that_came_with_who_took_it", LIMITS),
    ("pool::what_was_asked_for_is_what_the_sandbox_has", LIMITS),
    ("rotations::a_sandbox_whose_devices_were_removed", "devices are the host's own"),
    ("rotations::all_mounts_are_where_they_were", FOLDERS),
    ("rotations::nothing_is_lost_that_is_written_from_outside", "nothing outside can open it"),
    ("rotations::what_is_open_outside", "nothing outside can open it"),
    ("rotations::several_who_fork_at_the_same_time", BUSY),
    ("rotations::where_something_runs_files_are_copied", BUSY),
    ("template::everything_is_writable_and_the_host_is_unchanged", "see what is different below"),
    ("template::what_is_below_a_mount_of_the_host_is_looked_through", HOSTS_ROOT),
    ("template::what_only_some_users_of_the_host_may_read_is_not_there", HOSTS_ROOT),
    ("volumes::a_folder_is_its_owners", FOLDERS),
    ("volumes::links_lead_nowhere", FOLDERS),
    ("volumes::no_program_is_left_on_the_host", FOLDERS),
    ("volumes::volumes_lie_in_each_other", FOLDERS),
    ("volumes::what_is_not_allowed_is_refused", FOLDERS),
];

/// Runs one of these tests as the ordinary user that it is about.
fn again(name: &str) {
    pass(
        ordinary::this_program(Some(ids::IDS)).args(["--exact", name]),
        1,
    );
}

#[test]
fn everything_that_applies_to_an_ordinary_user_with_subordinate_ids() {
    pass_without(&mut ordinary::this_program(Some(ids::IDS)), LACKING, 25);
}

#[tokio::test]
async fn files_of_the_machine_are_replaced_and_removed_and_not_changed() {
    if !ordinary::is_ordinary() {
        return again(
            "as_subordinate::files_of_the_machine_are_replaced_and_removed_and_not_changed",
        );
    }
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let root = async |script: &str| {
        let command = Command::shell(script).user("root").merge_stderr();
        sandbox.exec(command).await.unwrap().stdout_text()
    };
    let script = "rm /usr/bin/env && echo mine >/usr/bin/env && chown user /usr/bin/env && cat /usr/bin/env \
                  && touch /etc/new /opt/new /usr/lib/new /usr/share/man/man1/new && stat -c %U /usr/bin/env /usr/lib/new /etc";
    assert_eq!(root(script).await, "mine\nuser\nroot\nroot\n");
    for change in [
        "echo >>/usr/bin/yes",
        "chmod 777 /usr/bin/yes",
        "chown user /usr/bin/yes",
    ] {
        let said = root(&format!("{change} || echo refused")).await;
        assert!(said.ends_with("refused\n"), "{change}: {said}");
    }
    assert_eq!(root("stat -c '%U %a' /usr/bin/yes").await, "nobody 755\n");
    assert!(fs::metadata("/usr/bin/env").unwrap().len() > 5);
}

#[tokio::test]
async fn all_of_it_is_said_and_belongs_to_nobody_of_the_host() {
    if !ordinary::is_ordinary() {
        return again("as_subordinate::all_of_it_is_said_and_belongs_to_nobody_of_the_host");
    }
    let first = ids::first();
    let state = State::new();
    let (provider, sandbox) = state.sandbox().await;
    let report = provider.enforcement(&CreateOptions::new());
    let wall = report.wall("user_ids").unwrap();
    assert_eq!(wall.enforcement, Enforcement::Partial);
    assert!(wall.detail.contains("subordinate ids"), "{wall:?}");
    assert!(provider.capabilities().users);
    let doctor = provider.doctor();
    let check = doctor
        .checks
        .iter()
        .find(|check| check.name == "subordinate ids")
        .unwrap();
    assert!(check.detail.contains(&first.to_string()), "{check:?}");
    let said = sh(
        &sandbox,
        "touch ~/mine; sudo touch /roots; id -G; cat /proc/self/setgroups",
    )
    .await;
    assert_eq!(said, "1000\nallow\n");
    let record = state.path().join(format!("sandboxes/{}", sandbox.id()));
    let upper = record.join("store/u0");
    for (path, owner) in [
        (upper.clone(), 0),
        (upper.join("roots"), 0),
        (upper.join("home/user/mine"), 1000),
    ] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!(
            (found.uid(), found.gid()),
            (first + owner, first + owner),
            "{path:?}"
        );
    }
    let init = fs::read_to_string(record.join("init")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", init.split(' ').next().unwrap()));
    let status = status.unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), vec![first.to_string(); 4]);
    assert_eq!(field("Groups:"), Vec::<String>::new());
}

/// Starts processes of many users, and says how many there are when no more can be.
const MANY_USERS: &str = "\
import os, sys, time
pids = []
for uid in range(2000, 2400):
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        os.setuid(uid)
        time.sleep(1000)
    pids.append(pid)
print(len(pids))
";

#[tokio::test]
async fn a_limit_on_processes_holds_for_all_users_together() {
    if !ordinary::is_ordinary() {
        return again("as_subordinate::a_limit_on_processes_holds_for_all_users_together");
    }
    let state = State::new();
    for pool in [0, 1] {
        let builder = LocalProvider::builder().state_dir(state.path()).pool(pool);
        let provider = builder
            .default_limits(Limits::new().processes(40))
            .build()
            .unwrap();
        for most in [40, 60] {
            let options = CreateOptions::new().limits(Limits::new().processes(most));
            let sandbox = provider.create(options).await.unwrap();
            let many = Command::new("python3")
                .args(["-c", MANY_USERS])
                .user("root");
            let output = sandbox.exec(many).await.unwrap();
            let count: u64 = output.stdout_text().trim().parse().unwrap();
            // PID 1 and its helpers have room besides.
            assert!(
                (most..most + 16).contains(&count),
                "{pool}: {count} of {most}"
            );
            // And one sandbox takes nothing from another one.
            let other = provider.create(CreateOptions::new()).await.unwrap();
            assert_eq!(
                sh(&other, "sleep 0 & sleep 0 & wait; echo works").await,
                "works\n"
            );
        }
    }
}

#[tokio::test]
async fn what_is_closed_is_measured_and_removed_all_the_same() {
    if !ordinary::is_ordinary() {
        return again("as_subordinate::what_is_closed_is_measured_and_removed_all_the_same");
    }
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let closed = "umask 077; mkdir -p ~/closed/a/b && head -c 300000 /dev/zero >~/closed/a/b/c && ln -s / ~/closed/link \
                  && mkfifo ~/closed/fifo && chmod 000 ~/closed/a ~/closed; sudo mkdir -m 0 /closed; echo done";
    assert_eq!(sh(&sandbox, closed).await, "done\n");
    let usage = sandbox.metrics().unwrap().usage().await.unwrap();
    assert!(
        usage.disk.is_some_and(|bytes| bytes >= 300_000),
        "{usage:?}"
    );
    sandbox.kill().await.unwrap();
    assert_eq!(state.records().len(), 0);
}

/// What the report says of users without any that a sandbox is made.
fn said_of_users() -> (String, bool) {
    let state = State::without_template();
    let provider = LocalProvider::builder()
        .state_dir(state.path())
        .build()
        .unwrap();
    let report = provider.enforcement(&CreateOptions::new());
    (
        report.wall("user_ids").unwrap().detail.clone(),
        provider.capabilities().users,
    )
}

#[test]
fn a_range_that_is_too_short_or_senseless_is_not_used_and_said() {
    const NAME: &str =
        "as_subordinate::a_range_that_is_too_short_or_senseless_is_not_used_and_said";
    if !ordinary::is_ordinary() {
        for ids in ["1600000000:1000", "x:65536"] {
            pass(ordinary::this_program(Some(ids)).args(["--exact", NAME]), 1);
        }
        return;
    }
    let (detail, users) = said_of_users();
    assert!(!users);
    let known = ["1000 ids, of 65536", "makes no sense"];
    assert!(known.iter().any(|known| detail.contains(known)), "{detail}");
    assert!(detail.contains("usermod --add-subuids"), "{detail}");
}

#[tokio::test]
async fn folders_of_the_host_are_refused_and_volumes_are_shared() {
    if !ordinary::is_ordinary() {
        return again("as_subordinate::folders_of_the_host_are_refused_and_volumes_are_shared");
    }
    let state = State::new();
    let folder = tempfile::tempdir().unwrap();
    let builder = LocalProvider::builder().state_dir(state.path());
    let provider = builder.host_folders([folder.path()]).build().unwrap();
    let mount = VolumeMount::new(folder.path().to_str().unwrap(), "/data").read_only();
    let error = provider.create(mount.add_to(CreateOptions::new())).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("named volume"), "{error}");
    assert_eq!(state.records().len(), 0);
    provider.create_volume("cache").await.unwrap();
    let options = || VolumeMount::new("cache", "/data").add_to(CreateOptions::new());
    let one = provider.create(options()).await.unwrap();
    let write = "umask 077; echo mine >/data/mine; sudo sh -c 'echo roots >/data/roots; chmod 644 /data/roots'; stat -c '%n %U' /data /data/*";
    let said = sh(&one, write).await;
    assert_eq!(said, "/data user\n/data/mine user\n/data/roots root\n");
    let other = provider.create(options()).await.unwrap();
    assert_eq!(sh(&other, "cat /data/*").await, "mine\nroots\n");
    for sandbox in [one, other] {
        sandbox.kill().await.unwrap();
    }
    provider.remove_volume("cache").await.unwrap();
    assert!(!state.path().join("volumes/cache").exists());
}

#[tokio::test]
async fn owners_and_permissions_of_an_import_are_kept() {
    if !ordinary::is_ordinary() {
        return again("as_subordinate::owners_and_permissions_of_an_import_are_kept");
    }
    let state = State::without_template();
    let provider = state.provider();
    let tree = state.path().join("tree");
    small_tree(&tree);
    let of = |archive: Archive, name: &str, kind, target: &str, (uid, mode)| {
        archive.entry_by(name, kind, target, b"", |header: &mut tar::Header| {
            header.set_uid(uid);
            header.set_gid(uid + 1);
            header.set_mode(mode);
        })
    };
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let base = of(Archive::tree(&tree), "srv", Directory, "", (7, 0));
    let base = base.file("srv/file", "in a closed directory\n");
    let base = of(base, "hers", Regular, "", (1234, 0o4640));
    let base = of(base, "same", Link, "hers", (0, 0));
    let base = of(base, "link", Symlink, "hers", (99, 0o777));
    let base = of(base, "goes", Regular, "", (55, 0o600));
    // What another layer puts in the place of something may get its number in the file system.
    let above = Archive::new().file(".wh.goes", "").file("comes", "");
    let above = of(above, ".", Directory, "", (3, 0o711));
    let mut layout = Layout::new(&state.path().join("image"));
    layout.image("one", &[base.bytes(), above.bytes()]);
    let options = ImportOptions::new().name("small");
    let imported = provider.import_template(state.path().join("image"), options);
    assert_eq!(imported.await.unwrap().notices, Vec::<String>::new());
    let options = CreateOptions::new().template("small");
    let sandbox = provider.create(options).await.unwrap();
    let look = "cd /; stat -c '%n %u %g %a' . srv hers same link comes home/user; cat srv/file";
    let command = Command::shell(look).user("root").merge_stderr();
    let said = sandbox.exec(command).await.unwrap().stdout_text();
    let expected = ". 3 4 711\nsrv 7 8 0\nhers 1234 1235 640\nsame 1234 1235 640\nlink 99 100 777\n\
                    comes 0 0 644\nhome/user 1000 1000 755\nin a closed directory\n";
    assert_eq!(said, expected);
    assert!(
        sh(&sandbox, "cat /srv/file; echo $?")
            .await
            .ends_with("1\n")
    );
    sandbox.kill().await.unwrap();
    assert!(provider.remove_template(&"small".into()).await.unwrap());
    assert!(provider.leftovers().unwrap().templates.is_empty());
}
