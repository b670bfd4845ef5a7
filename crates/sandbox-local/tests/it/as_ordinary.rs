//! All of this again for sandboxes of an ordinary user, and what is different for one.

use crate::{
    images::Archive,
    ordinary,
    pass::{pass, pass_without},
    support::{State, sh},
    trees::small_tree,
};
use sandbox_core::{Enforcement, StatOptions, prelude::*};
use sandbox_local::{ImportOptions, LocalProvider, VolumeMount};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};
use tempfile::TempDir;

const LIMITS: &str = "limits need a cgroup";
const DISK: &str = "only root can make a file system for one sandbox";
const BUSY: &str = "what runs is stopped by a cgroup";
const ROOT: &str = "there is no root inside";
const HOSTS_ROOT: &str = "the host's root prepares it";

/// What does not apply, by the beginning of its name, and why.
#[rustfmt::skip]
const LACKING: &[(&str, &str)] = &[
    ("crowds::where_no_process_is_left_for_it_a_file_call_says_so", "there is always one left for PID 1"),
    ("doctor::", HOSTS_ROOT),
    ("filesystems::", HOSTS_ROOT),
    ("leftovers::the_file_system_for_large_disks", HOSTS_ROOT),
    ("limits::a_disk_larger_than_memory", DISK),
    ("limits::a_full_disk_is_an_error", DISK),
    ("limits::a_sandbox_with_a_disk_of_its_own", DISK),
    ("limits::bytes_are_counted", LIMITS),
    ("limits::half_a_processor_is_half_a_processor", LIMITS),
    ("limits::the_report_says_what_holds", "it says so of root's"),
    ("limits::too_much_memory_ends_the_offender_only_and_is_said", LIMITS),
    ("own_limits::", LIMITS),
    ("pool::limits_hold_that_came_with_who_took_it", LIMITS),
    ("pool::what_was_asked_for_is_what_the_sandbox_has", LIMITS),
    ("rotations::a_sandbox_and_its_forks_share_what_was", "it changes files as root"),
    ("rotations::a_sandbox_whose_devices_were_removed", "devices are the host's own"),
    ("rotations::all_mounts_are_where_they_were", "it changes owners on the host"),
    ("rotations::nothing_is_lost_that_is_written_from_outside", "nothing outside can open it"),
    ("rotations::what_is_open_outside", "nothing outside can open it"),
    ("rotations::several_who_fork_at_the_same_time", BUSY),
    ("rotations::where_something_runs_files_are_copied", BUSY),
    ("snapshots::what_ran_with_an_owner_of_files", ROOT),
    ("template::accounts_can_be_added", ROOT),
    ("template::everything_is_writable_and_the_host_is_unchanged", ROOT),
    ("template::packages_are_installed_by_root_and_by_sudo", ROOT),
    ("template::what_is_below_a_mount_of_the_host_is_looked_through", HOSTS_ROOT),
    ("template::what_only_some_users_of_the_host_may_read_is_not_there", HOSTS_ROOT),
    ("volumes::a_folder_is_its_owners_on_both_sides", "see what is different below"),
];

/// Where there is something below `/usr` that only the ordinary user may read.
const DECOYS: &str = "/usr/share";
const DECOY: &str = "sandbox-decoy-";

/// Things below `/usr` that the ordinary user may read, by its uid or its group, but not everybody.
fn plant() -> TempDir {
    let decoys = TempDir::with_prefix_in(DECOY, DECOYS).unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(decoys.path(), 0o755);
    let [owned, shared, open] = ["owned", "shared", "open"].map(|name| decoys.path().join(name));
    fs::create_dir(&shared).unwrap();
    for (file, mode) in [
        (&owned, 0o600),
        (&shared.join("below"), 0o644),
        (&open, 0o644),
    ] {
        fs::write(file, "planted").unwrap();
        set_mode(file, mode);
    }
    chown(&owned, Some(ordinary::UID), None).unwrap();
    chown(&shared, None, Some(ordinary::UID)).unwrap();
    set_mode(&shared, 0o750);
    decoys
}

#[tokio::test]
async fn what_only_its_user_may_read_is_not_there() {
    if !ordinary::is_ordinary() {
        let _decoys = plant();
        return again("as_ordinary::what_only_its_user_may_read_is_not_there");
    }
    let entries = fs::read_dir(DECOYS).unwrap().flatten();
    let mut decoys = entries.filter(|entry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(DECOY.as_bytes())
    });
    let decoys = decoys.find(|decoys| fs::read(decoys.path().join("owned")).is_ok());
    let decoys = decoys.expect("the host shows it").path();
    assert_eq!(fs::read(decoys.join("shared/below")).unwrap(), b"planted");
    let state = State::without_template();
    let (_provider, sandbox) = state.sandbox().await;
    let list = format!("cd {} && find . | sort | tr '\\n' ' '", decoys.display());
    assert_eq!(sh(&sandbox, &list).await, ". ./open ");
    let closed = "find / -xdev ! -type l ! -perm -o=r ! -user user; find /usr ! -type l ! -perm -o=r ! -user user";
    assert_eq!(sh(&sandbox, closed).await, "");
}

#[tokio::test]
async fn it_is_said_what_does_not_hold() {
    if !ordinary::is_ordinary() {
        return again("as_ordinary::it_is_said_what_does_not_hold");
    }
    let state = State::new();
    let provider = state.provider();
    let report = provider.enforcement(&CreateOptions::new());
    let lacking = ["user_ids", "memory", "cpus", "disk", "inodes", "kill_tree"];
    let why = &report.wall("user_ids").unwrap().detail;
    let fix = ["gives this user no ids", "usermod --add-subuids"];
    assert!(fix.iter().all(|words| why.contains(words)), "{why}");
    for wall in &report.walls {
        let holds = wall.enforcement == Enforcement::Enforced;
        assert_eq!(holds, !lacking.contains(&wall.name.as_ref()), "{wall:?}");
    }
    let limits = Limits::new();
    for limits in [limits.memory(1 << 30), limits.cpus(1.0)] {
        let options = CreateOptions::new().limits(limits);
        let error = provider.create(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert!(!provider.capabilities().users && !provider.capabilities().pause);
    assert_eq!(state.records().len(), 0);
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    let command = Command::new("touch").arg("/tmp/by-root");
    let path = SandboxPath::new("/tmp/by-root").unwrap();
    for user in ["root", "0", "nobody", "1000:0"] {
        let error = sandbox.exec(command.clone().user(user)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{user}");
        let options = sandbox_core::WriteOptions::new().user(user);
        let written = sandbox.files().write(&path, "x".into(), options);
        assert_eq!(
            written.await.unwrap_err().kind(),
            ErrorKind::Unsupported,
            "{user}"
        );
    }
    let writable =
        "touch ~/x /tmp/x /var/tmp/x /run/x /etc/x && id -u && id -G && ls /tmp; touch /usr/lib/x";
    let said = sh(&sandbox, writable).await;
    assert_eq!(
        said,
        "1000\n1000\nx\ntouch: cannot touch '/usr/lib/x': Permission denied\n"
    );
}

#[tokio::test]
async fn commands_that_are_started_from_outside_meet_the_limit_on_processes() {
    if !ordinary::is_ordinary() {
        return again(
            "as_ordinary::commands_that_are_started_from_outside_meet_the_limit_on_processes",
        );
    }
    let state = State::new();
    let few = CreateOptions::new().limits(Limits::new().processes(8));
    let sandbox = state.provider().create(few).await.unwrap();
    let mut running = Vec::new();
    let refused = loop {
        match sandbox.spawn(Command::new("sleep").arg("1000")).await {
            Ok(process) => running.push(process),
            Err(error) => break error,
        }
        assert!(running.len() < 64);
    };
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded, "{refused}");
    assert!(running.len() >= 8, "{}", running.len());
    let root = SandboxPath::new("/").unwrap();
    sandbox
        .files()
        .stat(&root, StatOptions::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_files_of_an_import_are_its_users_and_that_is_said() {
    if !ordinary::is_ordinary() {
        return again("as_ordinary::the_files_of_an_import_are_its_users_and_that_is_said");
    }
    let state = State::without_template();
    let provider = state.provider();
    let tree = state.path().join("tree");
    small_tree(&tree);
    let imported = provider.import_template(&tree, ImportOptions::new());
    assert_eq!(imported.await.unwrap().notices, Vec::<String>::new());
    let archive =
        Archive::tree(&tree).entry_by("srv/closed", tar::EntryType::Directory, "", b"", |header| {
            header.set_uid(7);
            header.set_mode(0);
        });
    let archive = archive.file("srv/closed/file", "in a closed directory\n");
    fs::write(state.path().join("archive"), archive.bytes()).unwrap();
    let options = ImportOptions::new().name("small");
    let imported = provider.import_template(state.path().join("archive"), options);
    let imported = imported.await.unwrap();
    let [notice] = &*imported.notices else {
        panic!("{imported:?}");
    };
    assert!(notice.contains("become `user`'s"), "{notice}");
    let options = CreateOptions::new().template("small");
    let sandbox = provider.create(options).await.unwrap();
    let look =
        "stat -c '%U %a' /srv/closed; cat /srv/closed/file; rm /srv/closed/file && echo gone";
    let said = sh(&sandbox, look).await;
    assert_eq!(said, "user 700\nin a closed directory\ngone\n");
    sandbox.kill().await.unwrap();
    assert!(provider.remove_template(&"small".into()).await.unwrap());
}

#[tokio::test]
async fn a_folder_of_its_own_is_its_users_on_both_sides() {
    if !ordinary::is_ordinary() {
        return again("as_ordinary::a_folder_of_its_own_is_its_users_on_both_sides");
    }
    let state = State::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("private"), "mine\n").unwrap();
    fs::set_permissions(
        folder.path().join("private"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let builder = LocalProvider::builder().state_dir(state.path());
    let provider = builder.host_folders([folder.path()]).build().unwrap();
    let mount = |target: &str| VolumeMount::new(folder.path().to_str().unwrap(), target);
    let options = mount("/data").add_to(CreateOptions::new());
    let options = mount("/srv/look").read_only().add_to(options);
    let sandbox = provider.create(options).await.unwrap();
    let script = "cat /data/private; stat -c '%U %G' /data; mkdir /data/d && echo new >/data/d/new; cat /srv/look/d/new; \
                  touch /srv/look/x 2>&1 | grep -c 'Read-only'; mount -o remount,rw /srv/look 2>/dev/null || echo no";
    let said = sh(&sandbox, script).await;
    assert_eq!(said, "mine\nuser user\nnew\n1\nno\n");
    let new = fs::metadata(folder.path().join("d/new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (ordinary::UID, ordinary::UID));
    // It goes along when the sandbox gets other layers, and not to its forks.
    let forks = provider.fork(sandbox.id(), 1, CreateOptions::new());
    let fork = forks.await.unwrap().remove(0);
    assert_eq!(sh(&sandbox, "cat /data/d/new").await, "new\n");
    assert_eq!(sh(&fork, "ls -A /data").await, "");
    // Where the sandbox can make no place for it, that is said.
    let options = mount("/usr/lib/none").add_to(CreateOptions::new());
    let error = provider.create(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

/// Runs one of these tests as the ordinary user that it is about.
fn again(name: &str) {
    pass(ordinary::this_program(None).args(["--exact", name]), 1);
}

#[test]
fn everything_that_applies_to_an_ordinary_user() {
    pass_without(&mut ordinary::this_program(None), LACKING, 20);
}
