//! The template `host`: the machine's programs, nothing of its people.

use crate::support::{State, sh};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sandbox_core::prelude::*;
use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt};

#[tokio::test]
async fn the_hosts_programs_run_on_a_root_of_their_own() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    assert_eq!(
        sh(&sandbox, "id -un; id -u; pwd; echo $HOME").await,
        "user\n1000\n/home/user\n/home/user\n"
    );
    assert_eq!(
        sh(&sandbox, "python3 -c 'import ssl, sqlite3; print(1)'").await,
        "1\n"
    );
    assert_eq!(sh(&sandbox, "ls /home").await, "user\n");
    assert_eq!(sh(&sandbox, "ls -A /usr/local/bin").await, "sudo\n");
    assert_eq!(
        sh(&sandbox, "cat /etc/resolv.conf").await,
        "nameserver 192.0.0.1\n"
    );
    let hosts = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_ne!(sh(&sandbox, "hostname").await, hosts);
}

#[tokio::test]
async fn everything_is_writable_and_the_host_is_unchanged() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let before = fs::metadata("/usr/bin/env").unwrap();
    let script = "rm /usr/bin/env && echo mine > /usr/bin/env && chown user /usr/bin/env && cat /usr/bin/env \
                  && touch /etc/new /opt/new /srv/new && mv /usr/bin/yes /usr/bin/no && ls /usr/bin/no";
    let output = sandbox
        .exec(Command::shell(script).user("root"))
        .await
        .unwrap();
    assert_eq!(
        output.stdout_text(),
        "mine\n/usr/bin/no\n",
        "{}",
        output.stderr_text()
    );
    let after = fs::metadata("/usr/bin/env").unwrap();
    assert_eq!(after.len(), before.len());
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert!(fs::exists("/usr/bin/yes").unwrap());
    assert!(!fs::exists("/opt/new").unwrap());
}

#[tokio::test]
async fn packages_are_installed_by_root_and_by_sudo() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let build = "set -e; mkdir -p pkg/DEBIAN pkg/usr/bin; \
        printf 'Package: tiny\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: d\\n' > pkg/DEBIAN/control; \
        printf '#!/bin/sh\\necho tiny\\n' > pkg/usr/bin/tiny; chmod 755 pkg/usr/bin/tiny; dpkg-deb -b pkg tiny.deb >/dev/null";
    let output = sandbox.exec(Command::shell(build)).await.unwrap();
    assert!(output.status.success(), "{}", output.stderr_text());
    let install = Command::shell("dpkg -i /home/user/tiny.deb >/dev/null && tiny").user("root");
    let output = sandbox.exec(install).await.unwrap();
    assert_eq!(output.stdout_text(), "tiny\n", "{}", output.stderr_text());
    let output = sandbox
        .exec(Command::shell(
            "sudo dpkg -r tiny >/dev/null; command -v tiny; sudo id -u",
        ))
        .await
        .unwrap();
    assert_eq!(output.stdout_text(), "0\n", "{}", output.stderr_text());
}

#[tokio::test]
async fn accounts_can_be_added() {
    let state = State::new();
    let (_provider, sandbox) = state.sandbox().await;
    let output = sandbox
        .exec(Command::shell("useradd -m guest && su guest -c 'id -un'").user("root"))
        .await
        .unwrap();
    assert_eq!(output.stdout_text(), "guest\n", "{}", output.stderr_text());
    let output = sandbox
        .exec(Command::shell("id -un; pwd").user("guest"))
        .await
        .unwrap();
    assert_eq!(
        output.stdout_text(),
        "guest\n/home/guest\n",
        "{}",
        output.stderr_text()
    );
}

#[tokio::test]
async fn templates_out_of_date_go_while_sandboxes_live_on_theirs() {
    let state = State::without_template();
    let (_provider, sandbox) = state.sandbox().await;
    let templates = state.path().join("templates");
    let names = || -> Vec<_> {
        let entries = fs::read_dir(&templates).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("host-")).collect()
    };
    let current = names();
    // As if the machine had changed since the sandbox was made, and once more before.
    fs::create_dir(templates.join("host-0")).unwrap();
    let record = state
        .path()
        .join(format!("sandboxes/{}/record.json", sandbox.id()));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&current[0], "host-1")).unwrap();
    fs::rename(templates.join(&current[0]), templates.join("host-1")).unwrap();
    let (_other, second) = state.sandbox().await;
    assert_eq!(sh(&sandbox, "echo lives").await, "lives\n");
    let left: HashSet<_> = names().into_iter().collect();
    assert_eq!(
        left,
        HashSet::from(["host-1".to_owned(), current[0].clone()])
    );
    sandbox.kill().await.unwrap();
    second.kill().await.unwrap();
    let _third = state.provider();
    assert_eq!(names(), current);
}

/// A file of the host that only root may read, below a tree that is shown.
struct Secret(std::path::PathBuf);

impl Secret {
    fn plant(path: &str, mode: u32) -> Self {
        fs::write(path, "planted secret\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path.into())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A directory of the host with something mounted on it.
struct Covered(&'static str);

impl Covered {
    fn mount(path: &'static str) -> Self {
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
        Self(path)
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        unmount(self.0, UnmountFlags::DETACH).unwrap();
        fs::remove_dir_all(self.0).unwrap();
    }
}

#[tokio::test]
async fn what_is_below_a_mount_of_the_host_is_looked_through() {
    let directory = "/usr/share/sandbox-test-covered";
    fs::create_dir(directory).unwrap();
    let files = [(0o600, "secret"), (0o644, "open")].map(|(mode, name)| {
        let path = format!("{directory}/{name}");
        fs::write(&path, "below\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    });
    let _covered = Covered::mount(directory);
    let state = State::without_template();
    let (_provider, sandbox) = state.sandbox().await;
    let read = Command::new("cat").args(files).user("root");
    let output = sandbox.exec(read).await.unwrap();
    assert_eq!(output.stdout_text(), "below\n");
    assert!(output.stderr_text().contains("secret: No such file"));
}

#[tokio::test]
async fn what_only_some_users_of_the_host_may_read_is_not_there() {
    let secrets = [
        Secret::plant("/usr/share/sandbox-test-0600", 0o600),
        Secret::plant("/usr/share/sandbox-test-0640", 0o640),
        Secret::plant("/usr/local/sandbox-test-0644", 0o644),
        Secret::plant("/etc/profile.d/sandbox-test-0600.sh", 0o600),
        Secret::plant("/var/lib/sandbox-test-0644", 0o644),
        Secret::plant("/root/sandbox-test-0644", 0o644),
    ];
    let state = State::without_template();
    let (_provider, sandbox) = state.sandbox().await;
    for Secret(path) in &secrets {
        let read = sandbox
            .exec(Command::new("cat").arg(path.to_str().unwrap()).user("root"))
            .await
            .unwrap();
        assert_eq!(read.stdout_text(), "", "{}", path.display());
        assert!(!read.status.success());
    }
    for path in ["/etc/shadow", "/etc/passwd"] {
        let inside = sandbox
            .exec(Command::new("cat").arg(path).user("root"))
            .await
            .unwrap()
            .stdout_text();
        assert!(!inside.contains('$'), "{path} holds a password hash");
    }
}
