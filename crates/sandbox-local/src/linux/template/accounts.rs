//! The accounts of a sandbox: the machine's system users by name, `root`, and `user`.

use super::host::make_directory;
use sandbox_agent::protocol::{Blob, zygote::Owned};
use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

/// Number of the default user and its group.
pub(crate) const USER: u32 = 1000;
/// Group of `/etc/shadow` where the host has no group of that name.
const SHADOW: u32 = 42;

/// Writes passwd, group, shadow and gshadow, and makes the homes. Returns what of it is not root's.
pub(super) fn write(root: &Path) -> io::Result<Vec<Owned>> {
    let mut owned = Vec::new();
    let passwd = system_lines("/etc/passwd", 2);
    let group = system_lines("/etc/group", 2);
    let mut users: Vec<String> = vec!["root:x:0:0:root:/root:/bin/bash".into()];
    users.extend(passwd.iter().filter_map(|fields| {
        let [name, _, uid, gid, _, _, shell] = fields.as_slice() else {
            return None;
        };
        (uid != "0").then(|| format!("{name}:x:{uid}:{gid}::/nonexistent:{}", login_shell(shell)))
    }));
    users.push(format!("user:x:{USER}:{USER}::/home/user:/bin/bash"));
    let mut groups: Vec<String> = vec!["root:x:0:".into()];
    groups.extend(group.iter().filter_map(|fields| {
        let [name, _, gid, _] = fields.as_slice() else {
            return None;
        };
        (gid != "0").then(|| format!("{name}:x:{gid}:"))
    }));
    groups.push(format!("user:x:{USER}:"));

    let etc = root.join("etc");
    let names = |lines: &[String]| {
        lines
            .iter()
            .filter_map(|line| line.split(':').next().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    write_lines(&etc.join("passwd"), &users, 0o644)?;
    write_lines(&etc.join("group"), &groups, 0o644)?;
    let shadow_gid = group
        .iter()
        .find(|fields| fields[0] == "shadow")
        .and_then(|fields| fields[2].parse().ok());
    for (file, names, rest) in [
        ("shadow", names(&users), ":*:19000:0:99999:7:::"),
        ("gshadow", names(&groups), ":*::"),
    ] {
        let lines: Vec<String> = names.iter().map(|name| format!("{name}{rest}")).collect();
        write_lines(&etc.join(file), &lines, 0o640)?;
        let path = format!("etc/{file}").as_str().into();
        let gid = shadow_gid.unwrap_or(SHADOW);
        owned.push(Owned { path, uid: 0, gid });
    }
    write_lines(&etc.join("subuid"), &[], 0o644)?;
    write_lines(&etc.join("subgid"), &[], 0o644)?;
    make_home(root, &mut owned)?;
    Ok(owned)
}

/// Fields of the lines whose number is a system's: below 1000, or nobody's.
fn system_lines(path: &str, number: usize) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    let is_system = |fields: &Vec<String>| {
        let id = fields.get(number).and_then(|id| id.parse::<u32>().ok());
        fields[0] != "user" && id.is_some_and(|id| id < USER || id == 65534)
    };
    lines.filter(is_system).collect()
}

/// System users get no shell of the host's choosing.
fn login_shell(shell: &str) -> &'static str {
    match shell {
        "/bin/sync" => "/bin/sync",
        _ => "/usr/sbin/nologin",
    }
}

fn make_home(root: &Path, owned: &mut Vec<Owned>) -> io::Result<()> {
    const HOME: &str = "home/user";
    let home = root.join(HOME);
    let mut give = |path: &[u8]| {
        owned.push(Owned {
            path: Blob(path.to_vec()),
            uid: USER,
            gid: USER,
        });
    };
    give(HOME.as_bytes());
    make_directory(&home, 0o755)?;
    // What a new user gets, from the copy that has passed the checks already.
    for entry in fs::read_dir(root.join("etc/skel"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.metadata()?.is_file() {
            let target = home.join(entry.file_name());
            fs::copy(entry.path(), &target)?;
            give(&[HOME.as_bytes(), b"/", entry.file_name().as_bytes()].concat());
        }
    }
    Ok(())
}

fn write_lines(path: &Path, lines: &[String], mode: u32) -> io::Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
