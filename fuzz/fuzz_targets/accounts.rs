//! Any account files of a sandbox, and any user that is looked up in them: what comes out is an account of the sandbox.
//!
//! The input is a user, `/etc/passwd` and `/etc/group`, with a zero byte between them.

#![no_main]

use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::LazyLock,
};

use agent::account::{Database, ID_LIMIT, Names};
use libfuzzer_sys::fuzz_target;

/// The helper's own source, which is no library.
#[path = "../../crates/sandbox-agent/src"]
#[allow(dead_code, reason = "only lookups are fuzzed")]
mod agent {
    pub(crate) mod account;
}

/// A directory that plays `/etc`.
static ETC: LazyLock<PathBuf> = LazyLock::new(|| {
    let etc = env::temp_dir().join(format!("sandbox-fuzz-{}", process::id()));
    fs::create_dir_all(&etc).expect("make a directory for temporary files");
    etc
});

/// Replaces a file's contents. Emptying it first would make some file systems write to the disk.
fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)
}

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let Ok(user) = str::from_utf8(part()) else {
        return;
    };
    for (name, contents) in [("passwd", part()), ("group", part())] {
        write(&ETC.join(name), contents).expect("write an account file");
    }
    let database = Database::read(&ETC);
    if let Ok(account) = database.account(user) {
        assert!(
            account.uid < ID_LIMIT && account.gid < ID_LIMIT,
            "{account:?}"
        );
        assert!(
            account.groups.iter().all(|gid| *gid < ID_LIMIT),
            "{account:?}"
        );
        assert!(account.home.starts_with(b"/") && account.shell.starts_with(b"/"));
    }
    if let Ok((uid, gid)) = database.owner(user) {
        assert!(uid.into_iter().chain(gid).all(|id| id < ID_LIMIT));
    }
    let mut names = Names::default();
    names.refresh(&ETC);
    for id in [0, 1000, ID_LIMIT] {
        assert!(names.user(id).is_none_or(|name| !name.is_empty()));
        assert!(names.group(id).is_none_or(|name| !name.is_empty()));
    }
});
