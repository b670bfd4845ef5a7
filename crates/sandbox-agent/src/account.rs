//! Who a user of the sandbox is: its ids, groups, home and shell.
//!
//! `/etc/passwd` and `/etc/group` belong to the sandbox and may hold anything, so they are opened without following
//! links or waiting, read up to a bound, and lines that make no sense are passed over. `user` and `root` are known
//! without reading them: what the sandbox does to its files never locks the host out.

#![cfg_attr(
    not(test),
    expect(dead_code, reason = "the file worker and PID 1 are its users")
)]

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// First id that a sandbox does not have.
pub(crate) const ID_LIMIT: u32 = 65_536;

/// The ids of the default account, `user`.
const USER: u32 = 1000;

/// Longest part of `/etc/passwd` or `/etc/group` that is looked at.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Longest user or group name that is believed.
const NAME_LIMIT: usize = 256;

/// Most supplementary groups that an account gets.
const GROUPS_LIMIT: usize = 256;

/// A user of the sandbox, with ids as seen inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// Supplementary groups, without the primary one.
    pub(crate) groups: Vec<u32>,
    /// Login name; the number if the id has none.
    pub(crate) name: String,
    /// Home directory; `/` if the id has none.
    pub(crate) home: Vec<u8>,
    /// Login shell; `/bin/sh` if the id has none.
    pub(crate) shell: Vec<u8>,
}

/// Why an account could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccountError {
    /// No such user or group.
    Unknown(String),
    /// Not a name or id at all.
    Invalid(String),
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(message) | Self::Invalid(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for AccountError {}

/// Finds the account of `user`: a name, `uid`, `uid:gid` or `name:group`; `None` is uid 1000.
///
/// # Errors
/// [`AccountError::Unknown`] for a name that the sandbox's files do not have, [`AccountError::Invalid`] for an id
/// out of range or an empty name.
pub(crate) fn resolve(user: Option<&str>) -> Result<Account, AccountError> {
    match user {
        None | Some("user" | "1000") => Ok(builtin("user", USER, b"/home/user")),
        Some("root" | "0") => Ok(builtin("root", 0, b"/root")),
        Some(spec) => Database::read(Path::new("/etc")).account(spec),
    }
}

fn builtin(name: &str, id: u32, home: &[u8]) -> Account {
    Account {
        uid: id,
        gid: id,
        groups: Vec::new(),
        name: name.into(),
        home: home.to_vec(),
        shell: b"/bin/sh".to_vec(),
    }
}

/// The contents of `/etc/passwd` and `/etc/group`, as far as they could be read.
#[derive(Debug, Default)]
pub(crate) struct Database {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

impl Database {
    /// Reads both files below `etc`; one that is missing or no regular file counts as empty.
    pub(crate) fn read(etc: &Path) -> Self {
        Self {
            passwd: contents(&etc.join("passwd")),
            group: contents(&etc.join("group")),
        }
    }

    /// Finds an account by `name`, `uid`, `name:group` or `uid:gid`.
    pub(crate) fn account(&self, spec: &str) -> Result<Account, AccountError> {
        let (user, group) = split(spec);
        let mut account = match id(user)? {
            Some(uid) => self
                .users()
                .find(|line| line.uid == uid)
                .map_or_else(|| nameless(uid), |line| self.login(&line)),
            None => self.user(user).map(|line| self.login(&line))?,
        };
        if let Some(group) = group {
            account.gid = self.gid(group)?;
            account.groups.clear();
        }
        Ok(account)
    }

    /// Finds the ids meant by an owner as chown(1) takes it: `name`, `uid`, `name:group`, `uid:gid` or `:group`.
    pub(crate) fn owner(&self, spec: &str) -> Result<(Option<u32>, Option<u32>), AccountError> {
        let (user, group) = split(spec);
        let uid = match (user, group) {
            ("", Some(_)) => None,
            _ => Some(match id(user)? {
                Some(uid) => uid,
                None => {
                    builtin_id(user).map_or_else(|| self.user(user).map(|line| line.uid), Ok)?
                }
            }),
        };
        Ok((uid, group.map(|group| self.gid(group)).transpose()?))
    }

    fn gid(&self, group: &str) -> Result<u32, AccountError> {
        if let Some(gid) = id(group)?.or_else(|| builtin_id(group)) {
            return Ok(gid);
        }
        let found = self
            .groups()
            .find(|line| line.name == group)
            .map(|line| line.gid);
        found.ok_or_else(|| {
            AccountError::Unknown(format!(
                "the sandbox has no group {group:?} in its /etc/group"
            ))
        })
    }

    fn user(&self, name: &str) -> Result<UserLine<'_>, AccountError> {
        let found = self.users().find(|line| line.name == name);
        found.ok_or_else(|| {
            AccountError::Unknown(format!(
                "the sandbox has no user {name:?} in its /etc/passwd"
            ))
        })
    }

    fn login(&self, line: &UserLine<'_>) -> Account {
        let mut groups: Vec<u32> = Vec::new();
        for group in self.groups() {
            let member = group
                .members
                .split(|byte| *byte == b',')
                .any(|member| member == line.name.as_bytes());
            if member
                && group.gid != line.gid
                && !groups.contains(&group.gid)
                && groups.len() < GROUPS_LIMIT
            {
                groups.push(group.gid);
            }
        }
        let or = |value: &[u8], default: &[u8]| {
            if value.starts_with(b"/") {
                value
            } else {
                default
            }
            .to_vec()
        };
        Account {
            uid: line.uid,
            gid: line.gid,
            groups,
            name: line.name.to_owned(),
            home: or(line.home, b"/"),
            shell: or(line.shell, b"/bin/sh"),
        }
    }

    fn users(&self) -> impl Iterator<Item = UserLine<'_>> {
        lines(&self.passwd).filter_map(UserLine::parse)
    }

    fn groups(&self) -> impl Iterator<Item = GroupLine<'_>> {
        lines(&self.group).filter_map(GroupLine::parse)
    }
}

/// A line of `/etc/passwd`.
#[derive(Debug)]
struct UserLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a [u8],
    shell: &'a [u8],
}

impl<'a> UserLine<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b':');
        let name = name(fields.next()?)?;
        let (uid, gid) = (number(fields.nth(1)?)?, number(fields.next()?)?);
        Some(Self {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or(b""),
            shell: fields.next().unwrap_or(b""),
        })
    }
}

/// A line of `/etc/group`.
#[derive(Debug)]
struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a [u8],
}

impl<'a> GroupLine<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b':');
        let name = name(fields.next()?)?;
        Some(Self {
            name,
            gid: number(fields.nth(1)?)?,
            members: fields.next().unwrap_or(b""),
        })
    }
}

/// Names of ids, read again when the files change.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: Cached,
    groups: Cached,
}

impl Names {
    /// Looks at the files below `etc` again, if they are not the ones seen last.
    pub(crate) fn refresh(&mut self, etc: &Path) {
        self.users.refresh(&etc.join("passwd"), |line| {
            UserLine::parse(line).map(|user| (user.uid, user.name))
        });
        self.groups.refresh(&etc.join("group"), |line| {
            GroupLine::parse(line).map(|group| (group.gid, group.name))
        });
    }

    /// Name of a user.
    pub(crate) fn user(&self, uid: u32) -> Option<String> {
        self.users.names.get(&uid).cloned()
    }

    /// Name of a group.
    pub(crate) fn group(&self, gid: u32) -> Option<String> {
        self.groups.names.get(&gid).cloned()
    }
}

/// What tells one version of a file from another: device, inode, size, and change time.
type Stamp = (u64, u64, u64, i64, i64);

#[derive(Debug, Default)]
struct Cached {
    stamp: Option<Stamp>,
    names: HashMap<u32, String>,
}

impl Cached {
    fn refresh(&mut self, path: &PathBuf, parse: impl Fn(&[u8]) -> Option<(u32, &str)>) {
        let now = std::fs::symlink_metadata(path).ok();
        let now = now.map(|file| {
            (
                file.dev(),
                file.ino(),
                file.size(),
                file.ctime(),
                file.ctime_nsec(),
            )
        });
        if now == self.stamp {
            return;
        }
        self.stamp = now;
        self.names.clear();
        for (id, name) in lines(&contents(path)).filter_map(parse) {
            self.names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
}

/// Reads a file that may be anything, of which only a regular one counts.
fn contents(path: &Path) -> Vec<u8> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let read = || -> std::io::Result<Vec<u8>> {
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(FILE_LIMIT).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    read().unwrap_or_default()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn split(spec: &str) -> (&str, Option<&str>) {
    spec.split_once(':')
        .map_or((spec, None), |(user, group)| (user, Some(group)))
}

fn name(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field)
        .ok()
        .filter(|name| !name.is_empty() && name.len() <= NAME_LIMIT)
}

fn number(field: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(field)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|id| *id < ID_LIMIT)
}

/// Reads `text` as an id. `None`: it is a name.
fn id(text: &str) -> Result<Option<u32>, AccountError> {
    if text.is_empty() {
        return Err(AccountError::Invalid(
            "the user or group has an empty name".into(),
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let out_of_range = || {
        AccountError::Invalid(format!(
            "id {text} is out of range, a sandbox has ids up to {}",
            ID_LIMIT - 1
        ))
    };
    number(text.as_bytes()).map(Some).ok_or_else(out_of_range)
}

/// Ids of the names that need no file.
fn builtin_id(name: &str) -> Option<u32> {
    match name {
        "root" => Some(0),
        "user" => Some(USER),
        _ => None,
    }
}

fn nameless(uid: u32) -> Account {
    let account = if uid == 0 {
        builtin("root", 0, b"/root")
    } else {
        builtin(&uid.to_string(), uid, b"/")
    };
    if uid == USER {
        builtin("user", USER, b"/home/user")
    } else {
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn database(passwd: &str, group: &str) -> Database {
        Database {
            passwd: passwd.into(),
            group: group.into(),
        }
    }

    fn sample() -> Database {
        database(
            "root:x:0:0:root:/root:/bin/bash\n\n# comment\nbroken\nhuge:x:4294967296:1::/:\npostgres:x:105:110:,,,:/var/lib/postgresql:/bin/bash\n\
             postgres:x:7:7::/second:/bin/no\nshort:x:200:200\nrelative:x:201:201::home:sh\n:x:5:5::/:\n",
            "root:x:0:\nssl-cert:x:109:postgres\npostgres:x:110:postgres\ndocker:x:111:someone,postgres\ndouble:x:111:postgres\nbad:x:-1:postgres\n",
        )
    }

    #[test]
    fn known_accounts_need_no_files() {
        let user = resolve(None).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.name.as_str(), user.home.as_slice()),
            (1000, 1000, "user", &b"/home/user"[..])
        );
        assert_eq!(resolve(Some("user")), Ok(user.clone()));
        assert_eq!(resolve(Some("1000")), Ok(user));
        assert_eq!(resolve(Some("root")).unwrap().uid, 0);
        assert_eq!(resolve(Some("0")).unwrap().home, b"/root");
        assert_eq!(
            database("", "").account("1000:1000").unwrap().home,
            b"/home/user"
        );
    }

    #[test]
    fn names_are_found_in_the_files() {
        let account = sample().account("postgres").unwrap();
        assert_eq!((account.uid, account.gid), (105, 110));
        assert_eq!(account.groups, [109, 111]);
        assert_eq!(account.home, b"/var/lib/postgresql");
        assert_eq!(account.shell, b"/bin/bash");
        assert_eq!(sample().account("105").unwrap(), account);
    }

    #[test]
    fn an_explicit_group_replaces_all_groups() {
        let account = sample().account("postgres:docker").unwrap();
        assert_eq!((account.uid, account.gid), (105, 111));
        assert!(account.groups.is_empty());
        let account = sample().account("7777:42").unwrap();
        assert_eq!(
            (
                account.uid,
                account.gid,
                account.name.as_str(),
                account.home.as_slice()
            ),
            (7777, 42, "7777", &b"/"[..])
        );
    }

    #[test]
    fn ids_without_an_account_have_their_own_group() {
        let account = sample().account("7777").unwrap();
        assert_eq!((account.uid, account.gid), (7777, 7777));
    }

    #[test]
    fn bad_accounts_are_told_apart() {
        let db = sample();
        for unknown in [
            "nobody-such",
            "huge",
            "broken",
            "postgres:nogroup",
            "-1",
            "../etc",
            "bad:bad",
        ] {
            assert!(
                matches!(db.account(unknown), Err(AccountError::Unknown(_))),
                "{unknown}"
            );
        }
        for invalid in [
            "",
            ":",
            "65536",
            "4294967295",
            "99999999999999999999",
            "postgres:",
            ":5",
            "1:65536",
        ] {
            assert!(
                matches!(db.account(invalid), Err(AccountError::Invalid(_))),
                "{invalid}"
            );
        }
    }

    #[test]
    fn short_lines_and_relative_paths_get_defaults() {
        for name in ["short", "relative"] {
            let account = sample().account(name).unwrap();
            assert_eq!(
                (account.home.as_slice(), account.shell.as_slice()),
                (&b"/"[..], &b"/bin/sh"[..])
            );
        }
    }

    #[test]
    fn owners_are_read_as_chown_reads_them() {
        let db = sample();
        assert_eq!(db.owner("user"), Ok((Some(1000), None)));
        assert_eq!(db.owner("postgres:docker"), Ok((Some(105), Some(111))));
        assert_eq!(db.owner("12:34"), Ok((Some(12), Some(34))));
        assert_eq!(db.owner(":root"), Ok((None, Some(0))));
        assert!(matches!(db.owner("70000"), Err(AccountError::Invalid(_))));
        assert!(matches!(db.owner(""), Err(AccountError::Invalid(_))));
        assert!(matches!(
            db.owner("postgres:"),
            Err(AccountError::Invalid(_))
        ));
        assert!(matches!(
            db.owner("nobody-such"),
            Err(AccountError::Unknown(_))
        ));
    }

    #[test]
    fn hostile_files_count_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "decoy:x:12:12::/:\n").unwrap();
        std::os::unix::fs::symlink("secret", dir.path().join("passwd")).unwrap();
        std::fs::create_dir(dir.path().join("group")).unwrap();
        assert!(matches!(
            Database::read(dir.path()).account("decoy"),
            Err(AccountError::Unknown(_))
        ));
        assert!(matches!(
            Database::read(&dir.path().join("missing")).account("decoy"),
            Err(AccountError::Unknown(_))
        ));

        std::fs::remove_file(dir.path().join("passwd")).unwrap();
        let fifo = std::process::Command::new("mkfifo")
            .arg(dir.path().join("passwd"))
            .status()
            .unwrap();
        assert!(fifo.success());
        assert!(matches!(
            Database::read(dir.path()).account("decoy"),
            Err(AccountError::Unknown(_))
        ));
    }

    #[test]
    fn only_the_start_of_an_endless_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = "first:x:12:12::/:\n".to_owned();
        text.push_str(&"#".repeat(usize::try_from(FILE_LIMIT).unwrap()));
        text.push_str("\nlast:x:13:13::/:\n");
        std::fs::write(dir.path().join("passwd"), text).unwrap();
        let db = Database::read(dir.path());
        assert_eq!(db.account("first").unwrap().uid, 12);
        assert!(db.account("last").is_err());
    }

    #[test]
    fn names_follow_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::default();
        names.refresh(dir.path());
        assert_eq!((names.user(12), names.group(12)), (None, None));
        std::fs::write(
            dir.path().join("passwd"),
            "ann:x:12:12::/:\nbob:x:12:12::/:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("group"), "staff:x:12:\n").unwrap();
        names.refresh(dir.path());
        assert_eq!(
            (names.user(12).as_deref(), names.group(12).as_deref()),
            (Some("ann"), Some("staff"))
        );
        std::fs::remove_file(dir.path().join("passwd")).unwrap();
        names.refresh(dir.path());
        assert_eq!(
            (names.user(12), names.group(12).as_deref()),
            (None, Some("staff"))
        );
    }

    proptest! {
        #[test]
        fn nothing_in_the_files_panics(passwd: Vec<u8>, group: Vec<u8>, spec: String) {
            let db = Database { passwd, group };
            if let Ok(account) = db.account(&spec) {
                prop_assert!(account.uid < ID_LIMIT && account.gid < ID_LIMIT);
                prop_assert!(account.groups.iter().all(|gid| *gid < ID_LIMIT));
            }
            let _ = db.owner(&spec);
        }

        #[test]
        fn lines_survive_a_round_trip(name in "[a-z_][a-z0-9_-]{0,30}", uid in 0..ID_LIMIT, gid in 0..ID_LIMIT) {
            let db = database(&format!("{name}:x:{uid}:{gid}::/home/{name}:/bin/sh\n"), "");
            let account = db.account(&name).unwrap();
            prop_assert_eq!((account.uid, account.gid), (uid, gid));
            prop_assert_eq!(account.home, format!("/home/{name}").into_bytes());
        }
    }
}
