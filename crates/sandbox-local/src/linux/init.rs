//! The PID 1 of a sandbox as this machine knows it, for those who must be sure that it has ended.
//!
//! A record names it by its PID and the time of its start, which no later process of that number shares.

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{fs, io, ops::Range, os::fd::OwnedFd, path::Path};

/// Name of the file in a record's directory.
const FILE: &str = "init";

/// Writes into the record's directory who its PID 1 is.
pub(crate) fn write(record: &Path, pid: u32) -> io::Result<()> {
    let started = started(pid)?.ok_or(io::ErrorKind::NotFound)?;
    fs::write(record.join(FILE), format!("{pid} {started}\n"))
}

/// A descriptor of the PID 1 of the record in this directory, readable when it has ended. `None` if it is gone, or none
/// was written.
///
/// Only a process with one of the record's `uids` is taken for it.
pub(crate) fn open(record: &Path, uids: &Range<u32>) -> io::Result<Option<OwnedFd>> {
    Ok(find(record, uids)?.map(|(_, pidfd)| pidfd))
}

/// As [`open`], with its PID.
pub(crate) fn find(record: &Path, uids: &Range<u32>) -> io::Result<Option<(u32, OwnedFd)>> {
    let text = match fs::read_to_string(record.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut numbers = text
        .split_whitespace()
        .map_while(|word| word.parse::<u64>().ok());
    let pid = numbers.next().and_then(|pid| i32::try_from(pid).ok());
    let (Some(pid), Some(since)) = (pid.and_then(Pid::from_raw), numbers.next()) else {
        return Ok(None);
    };
    // Opened first: what is found out afterwards is then true of it, or of a later process, which does not fit.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let number = pid.as_raw_nonzero().get().cast_unsigned();
    let fits =
        started(number)? == Some(since) && uid(number)?.is_some_and(|uid| uids.contains(&uid));
    Ok(fits.then_some((number, pidfd)))
}

/// A file of a process in `/proc`; `None` if it is gone.
fn read(pid: u32, name: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(format!("/proc/{pid}/{name}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(None),
        text => text.map(Some),
    }
}

/// When a process was started, in ticks since the machine was. `None` if it is gone.
fn started(pid: u32) -> io::Result<Option<u64>> {
    let Some(stat) = read(pid, "stat")? else {
        return Ok(None);
    };
    // After the name, which may hold anything, come `state ppid ...`; `starttime` is the twentieth of these.
    let field = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(19)?.parse().ok());
    field
        .map(Some)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The real uid of a process. `None` if it is gone.
fn uid(pid: u32) -> io::Result<Option<u32>> {
    let Some(status) = read(pid, "status")? else {
        return Ok(None);
    };
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let field = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    field
        .map(Some)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::ranges;

    #[test]
    fn another_process_of_that_number_is_not_taken_for_it() {
        let record = tempfile::tempdir().unwrap();
        let uids = ranges::uids(Some(1), None);
        assert!(open(record.path(), &uids).unwrap().is_none());
        // This very process: the right number and start, but no process of a sandbox.
        write(record.path(), std::process::id()).unwrap();
        assert!(open(record.path(), &uids).unwrap().is_none());
        for text in ["", "x", "1", "-1 5", "0 0", "4194305 1", "99999999999 1"] {
            fs::write(record.path().join(FILE), text).unwrap();
            assert!(open(record.path(), &uids).unwrap().is_none(), "{text}");
        }
    }
}
