//! What the answers of a worker mean to a caller: what files are, and why something failed.

use rustix::io::Errno;
use sandbox_agent::protocol::files::{Entry, Stat};
use sandbox_core::{Error, ErrorKind, FileInfo, FileKind, Result, SandboxPath};
use std::time::{Duration, SystemTime};

pub(super) fn to_info(base: &SandboxPath, entry: Entry) -> Result<FileInfo> {
    let path = base
        .join(&entry.path.0)
        .map_err(|error| misfit().with_source(error))?;
    Ok(from_stat(path, entry.stat))
}

pub(super) fn from_stat(path: SandboxPath, stat: Stat) -> FileInfo {
    let kind = match stat.mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let mut info = FileInfo::new(path, kind, stat.size);
    info.mode = Some(stat.mode & 0o7777);
    info.owner = Some(stat.user.unwrap_or_else(|| stat.uid.to_string()));
    info.group = Some(stat.group.unwrap_or_else(|| stat.gid.to_string()));
    let since = Duration::from_millis(stat.modified_ms.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    info.modified = if stat.modified_ms < 0 {
        epoch.checked_sub(since)
    } else {
        epoch.checked_add(since)
    };
    info.target = stat.target.map(|target| target.0);
    info
}

pub(super) fn misfit() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the sandbox's file worker gave an answer that does not fit",
    )
}

/// The worker's refusal.
pub(super) fn refused(errno: i32, message: String) -> Error {
    let kind = match errno {
        1..4096 => kind_of(Errno::from_raw_os_error(errno)),
        // No number that a kernel has.
        _ => ErrorKind::Protocol,
    };
    Error::new(kind, message).with_context("errno", errno)
}

/// A failure on a descriptor that the worker handed over.
pub(super) fn io_error(error: std::io::Error) -> Error {
    let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
        // It was not opened for what was asked.
        Some(Errno::BADF) => ErrorKind::Protocol,
        Some(errno) => kind_of(errno),
        None => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::EXIST => ErrorKind::AlreadyExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::PermissionDenied,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::StorageFull,
        Errno::NOTEMPTY | Errno::BUSY | Errno::TXTBSY => ErrorKind::InvalidState,
        Errno::NOMEM | Errno::NFILE | Errno::MFILE | Errno::OVERFLOW | Errno::FBIG => {
            ErrorKind::QuotaExceeded
        }
        Errno::IO => ErrorKind::Internal,
        Errno::AGAIN => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidArgument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_may_carry_any_number() {
        for errno in [0, -1, 4096, 65_536, i32::MIN, i32::MAX] {
            let kind = refused(errno, String::new()).kind();
            assert_eq!(kind, ErrorKind::Protocol, "{errno}");
        }
        assert_eq!(refused(2, String::new()).kind(), ErrorKind::NotFound);
        assert_eq!(
            refused(4095, String::new()).kind(),
            ErrorKind::InvalidArgument
        );
    }
}
