//! Subordinate ids of an ordinary user: a range of uids and gids that an administrator has given it in `/etc/subuid` and
//! `/etc/subgid`, and that the setuid programs `newuidmap` and `newgidmap` map into user namespaces of that user.

use super::{made, ranges};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    fs::{self, File},
    io::Read,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

/// How many ids it takes: those of a sandbox.
pub(crate) const COUNT: u32 = ranges::COUNT;

/// Longest part of a file of accounts that is looked at.
const FILE_LIMIT: u64 = 1 << 20;

/// Where the programs are looked for; the last one is NixOS's.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// How long such a program may take, which asks nobody but the kernel and perhaps a directory service.
const MAPPED_WITHIN: Duration = Duration::from_secs(10);

/// Most that is told of what such a program says.
const SAID_LIMIT: u64 = 1024;

/// Ids below may be those of users of this machine.
const FIRST_FREE: u32 = 1 << 16;

/// First id that distributions give away.
const USUAL_FIRST: u32 = 100_000;

/// Ids that may be used, and the programs that map them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subordinate {
    /// The first uid; all sandboxes of this user have it as that of their root.
    pub(crate) uid: u32,
    /// Likewise the first gid.
    pub(crate) gid: u32,
    map_uids: PathBuf,
    map_gids: PathBuf,
}

/// Why there are none, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) found: String,
    pub(crate) fix: String,
}

/// What is known of the machine, and of the user who runs this program.
#[derive(Debug, Default)]
struct Facts {
    uid: u32,
    gid: u32,
    passwd: String,
    subuid: String,
    subgid: String,
    /// Ids that exist in the user namespace of this program.
    uid_map: String,
    gid_map: String,
    /// Whether programs with privileges run without them.
    no_new_privs: bool,
    map_uids: Option<PathBuf>,
    map_gids: Option<PathBuf>,
}

/// The subordinate ids of the user who runs this program, as they were when this was first asked.
pub(crate) fn own() -> &'static Result<Subordinate, Lack> {
    static OWN: LazyLock<Result<Subordinate, Lack>> = LazyLock::new(|| Facts::read().find());
    &OWN
}

/// These ids if sandboxes of this program have them: root's need none.
pub(crate) fn used() -> Option<&'static Subordinate> {
    let is_root = rustix::process::geteuid().is_root();
    own().as_ref().ok().filter(|_| !is_root)
}

impl Facts {
    fn read() -> Self {
        let status = text("/proc/self/status");
        let mut status = status.lines().filter_map(|line| line.split_once(':'));
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            passwd: text("/etc/passwd"),
            subuid: text("/etc/subuid"),
            subgid: text("/etc/subgid"),
            uid_map: text("/proc/self/uid_map"),
            gid_map: text("/proc/self/gid_map"),
            no_new_privs: status.any(|(name, value)| name == "NoNewPrivs" && value.trim() == "1"),
            map_uids: program("newuidmap"),
            map_gids: program("newgidmap"),
        }
    }

    fn find(self) -> Result<Subordinate, Lack> {
        let lack = |found: String, fix: &str| Lack {
            found,
            fix: fix.to_owned(),
        };
        let uid = self.range("/etc/subuid", &self.subuid, &self.uid_map, self.uid)?;
        let gid = self.range("/etc/subgid", &self.subgid, &self.gid_map, self.gid)?;
        let (Some(map_uids), Some(map_gids)) = (self.map_uids, self.map_gids) else {
            let found = "the programs newuidmap and newgidmap are missing, or have no privileges";
            return Err(lack(found.to_owned(), "apt install uidmap"));
        };
        if self.no_new_privs {
            let found = "this program was started so that no program gains privileges (no_new_privs), as newuidmap does";
            let fix =
                "start it without (systemd: NoNewPrivileges=no; docker: without no-new-privileges)";
            return Err(lack(found.to_owned(), fix));
        }
        Ok(Subordinate {
            uid,
            gid,
            map_uids,
            map_gids,
        })
    }

    /// The first id of the first range of this user that is long enough.
    fn range(&self, path: &str, table: &str, map: &str, own: u32) -> Result<u32, Lack> {
        let user = self.uid.to_string();
        let name = name_of(&self.passwd, &user);
        let is_ours = |owner: &str| owner == user || Some(owner) == name;
        let lack = |found: String| Lack {
            found,
            fix: self.give(name.unwrap_or(&user)),
        };
        let lines = table
            .lines()
            .filter(|line| line.split(':').next().is_some_and(&is_ours));
        let mut short = None;
        for line in lines {
            let Some((first, count)) = parse(line) else {
                let shown: String = line.escape_debug().take(100).collect();
                return Err(lack(format!(
                    "{path} has a line that makes no sense: {shown}"
                )));
            };
            let ids = u64::from(first)..u64::from(first) + u64::from(COUNT);
            if count < COUNT {
                short = Some(count);
            } else if first < FIRST_FREE
                || ids.end > u64::from(u32::MAX)
                || ids.contains(&u64::from(own))
            {
                let found =
                    format!("{path} gives this user ids that are somebody's: from {first} on");
                return Err(lack(found));
            } else if !is_within(map, &ids) {
                let found =
                    format!("the ids in {path} do not exist in the container that this runs in");
                return Err(lack(found));
            } else {
                return Ok(first);
            }
        }
        Err(lack(match short {
            Some(count) => {
                format!("{path} gives this user {count} ids, of {COUNT} that are needed")
            }
            None => format!("{path} gives this user no ids"),
        }))
    }

    /// A command that gives a range to the user, which is nobody's yet.
    fn give(&self, user: &str) -> String {
        let lines = self.subuid.lines().chain(self.subgid.lines());
        let ends = lines.filter_map(|line| {
            let (first, count) = parse(line)?;
            first.checked_add(count)
        });
        let first = ends.fold(USUAL_FIRST, u32::max);
        let range = format!("{first}-{}", u64::from(first) + u64::from(COUNT) - 1);
        format!("as root, run: usermod --add-subuids {range} --add-subgids {range} {user}")
    }
}

impl Subordinate {
    /// Gives the user namespace of process `pid` this user as 0, and the subordinate ids as `1..`.
    pub(crate) fn map(&self, pid: u32) -> Result<()> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        run(&self.map_uids, [pid, uid.as_raw(), self.uid], MAPPED_WITHIN)?;
        run(&self.map_gids, [pid, gid.as_raw(), self.gid], MAPPED_WITHIN)
    }
}

fn run(program: &Path, numbers: [u32; 3], within: Duration) -> Result<()> {
    let [pid, own, first] = numbers;
    let failed = |why: String| {
        let message = format!(
            "the subordinate ids of this user could not be mapped: {} {why}; see to /etc/subuid and /etc/subgid, or take \
             this user out of them for sandboxes with one user",
            program.display()
        );
        Error::new(ErrorKind::Unavailable, message)
    };
    let numbers = [pid, 0, own, 1, 1, first, COUNT].map(|number| number.to_string());
    let mut child = Command::new(program)
        .args(numbers)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("could not be started".to_owned()).with_source(error))?;
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let ended = |within| {
        process
            .as_ref()
            .is_some_and(|process| made::wait(process.as_fd(), within))
    };
    if !ended(within) {
        let _ = child.kill();
        if ended(Duration::from_secs(1)) {
            let _ = child.wait();
        }
        return Err(failed("does not end".to_owned()));
    }
    let status = child
        .wait()
        .map_err(|error| failed("was lost".to_owned()).with_source(error))?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    // What it has left running may keep the pipe open, so that is asked only for what is there.
    if let Some(stderr) = child.stderr.take()
        && made::wait(stderr.as_fd(), Duration::ZERO)
    {
        let mut buffer = [0; SAID_LIMIT as usize];
        let mut stderr = stderr;
        let len = stderr.read(&mut buffer).unwrap_or(0);
        said.extend_from_slice(&buffer[..len]);
    }
    let said = String::from_utf8_lossy(&said);
    Err(failed(format!(
        "failed ({status}): {}",
        said.trim().escape_debug()
    )))
}

/// A file of text; empty if it cannot be read.
fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// A program that has the privileges to map ids: by its owner, or by capabilities of the file.
fn program(name: &str) -> Option<PathBuf> {
    const SETUID: u32 = 0o4000;
    let mut paths = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name));
    paths.find(|path| {
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        let has_capabilities = rustix::fs::getxattr(path, "security.capability", &mut [0; 64]);
        mode & 0o111 != 0 && (mode & SETUID != 0 || has_capabilities.is_ok())
    })
}

/// The first id and the number of ids in a line of `/etc/subuid`.
fn parse(line: &str) -> Option<(u32, u32)> {
    let mut fields = line
        .split(':')
        .skip(1)
        .map(|field| field.trim().parse().ok());
    let range = (fields.next()??, fields.next()??);
    fields.next().is_none().then_some(range)
}

/// The name of a user in `/etc/passwd`.
fn name_of<'a>(passwd: &'a str, uid: &str) -> Option<&'a str> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    })
}

/// Whether all of these ids are in one line of a map of `/proc`.
fn is_within(map: &str, ids: &std::ops::Range<u64>) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => first <= ids.start && ids.end <= first + count,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(subuid: &str) -> Facts {
        Facts {
            uid: 1001,
            gid: 1001,
            passwd: "root:x:0:0::/root:/bin/sh\nann:x:1001:1001::/home/ann:/bin/sh\n".to_owned(),
            subuid: subuid.to_owned(),
            subgid: "ann:200000:65536\n".to_owned(),
            uid_map: "0 0 4294967295\n".to_owned(),
            gid_map: "0 0 4294967295\n".to_owned(),
            no_new_privs: false,
            map_uids: Some("/bin/newuidmap".into()),
            map_gids: Some("/bin/newgidmap".into()),
        }
    }

    #[test]
    fn the_first_range_that_is_long_enough_is_taken_by_name_or_number() {
        for (subuid, uid) in [
            ("ann:100000:65536\n", 100_000),
            ("bob:100000:65536\n1001:300000:70000\n", 300_000),
            ("ann:90000:10\nann:400000:65536\nann:500000:65536", 400_000),
        ] {
            let found = facts(subuid).find().unwrap();
            assert_eq!((found.uid, found.gid), (uid, 200_000), "{subuid}");
        }
    }

    #[test]
    fn what_is_missing_or_senseless_is_said_with_what_helps() {
        let says = |facts: Facts, words: &str| {
            let lack = facts.find().unwrap_err();
            assert!(lack.found.contains(words), "{lack:?}");
            assert!(!lack.fix.is_empty());
            lack
        };
        let none = says(facts("bob:100000:65536\n"), "no ids");
        assert!(
            none.fix
                .ends_with("--add-subuids 265536-331071 --add-subgids 265536-331071 ann"),
            "{none:?}"
        );
        says(facts(""), "no ids");
        says(facts("ann:100000:65535\n"), "65535 ids, of 65536");
        for line in [
            "ann",
            "ann:",
            "ann:x:65536",
            "ann:1:-1",
            "ann:1:65536:",
            "ann:1:99999999999",
            "ann:\u{7}:1",
        ] {
            says(facts(line), "makes no sense");
        }
        for line in [
            "ann:0:65536",
            "ann:1:65536",
            "ann:1000:65536",
            "ann:65535:65536",
            "ann:4294901761:65536",
        ] {
            says(facts(line), "somebody's");
        }
        let good = "ann:100000:65536\n";
        let inside = Facts {
            uid_map: "0 1000 1\n1 100000 65536\n".into(),
            ..facts(good)
        };
        says(inside, "do not exist in the container");
        says(
            Facts {
                map_gids: None,
                ..facts(good)
            },
            "newgidmap are missing",
        );
        says(
            Facts {
                no_new_privs: true,
                ..facts(good)
            },
            "no_new_privs",
        );
        says(
            Facts {
                subgid: String::new(),
                ..facts(good)
            },
            "/etc/subgid",
        );
        says(
            Facts {
                passwd: String::new(),
                ..facts(good)
            },
            "no ids",
        );
    }

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("newuidmap");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_what_it_said() {
        let (_kept, program) = script("echo \"args $*\" >&2; exit 3");
        let error = run(&program, [7, 1001, 100_000], MAPPED_WITHIN).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.message().contains("args 7 0 1001 1 1 100000 65536"),
            "{error}"
        );
        let missing = run(Path::new("/nowhere/newuidmap"), [7, 1, 2], MAPPED_WITHIN).unwrap_err();
        assert!(
            missing.message().contains("could not be started"),
            "{missing}"
        );
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let (_kept, program) = script("exec sleep 1000");
        let error = run(&program, [7, 1, 2], Duration::from_millis(100)).unwrap_err();
        assert!(error.message().contains("does not end"), "{error}");
    }
}
