//! Who a user of the sandbox is: its ids, groups, home and shell.
//!
//! `/etc/passwd` and `/etc/group` belong to the sandbox and may hold anything, so they are opened without following
//! links or waiting, read up to a bound, and lines that make no sense are passed over. `user` and `root` are known
//! without reading them: what the sandbox does to its files never locks the host out.

mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub(crate) use names::Names;

/// The shell of an account that names none.
pub(crate) const DEFAULT_SHELL: &[u8] = b"/bin/sh";

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
        shell: DEFAULT_SHELL.to_vec(),
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
            shell: or(line.shell, DEFAULT_SHELL),
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
