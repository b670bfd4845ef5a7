//! Where a sandbox that lives is: its namespaces, its root and the list of what is mounted.
//!
//! Root finds these in `/proc`; an ordinary user asks PID 1 for them, into which the kernel lets it not look.

use super::{init, record::Record, site::Site, socket};
use rustix::fs::{AtFlags, StatxFlags, statx};
use sandbox_agent::protocol::{
    MAX_PACKET,
    agent::{Event, Request},
    zygote::source,
};
use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// How long PID 1 may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Descriptors of them.
#[derive(Debug)]
pub(crate) struct Places {
    users: OwnedFd,
    mounts: OwnedFd,
    root: OwnedFd,
    list: OwnedFd,
}

impl Places {
    /// Those of the sandbox of this record, whose PID 1 answers on `connection`; `None` if that has ended.
    pub(crate) fn of(
        site: &Site,
        record: &Record,
        connection: BorrowedFd<'_>,
    ) -> io::Result<Option<Self>> {
        let path = site.records.path(&record.id);
        let lives = || init::find(&path, &record.uids());
        let Some((pid, _init)) = lives()? else {
            return Ok(None);
        };
        let found = if site.host.is_root {
            let open = |name: &str| File::open(format!("/proc/{pid}/{name}")).map(OwnedFd::from);
            ["ns/user", "ns/mnt", "root", "mountinfo"]
                .into_iter()
                .map(open)
                .collect::<io::Result<Vec<_>>>()
        } else {
            ask(connection)
        };
        // While it lives its number is no other process's.
        if lives()?.is_none() {
            return Ok(None);
        }
        let [users, mounts, root, list] = <[OwnedFd; 4]>::try_from(found?)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Some(Self {
            users,
            mounts,
            root,
            list,
        }))
    }

    /// In the order of the zygote's request.
    pub(crate) fn all(&self) -> [BorrowedFd<'_>; 4] {
        [&self.users, &self.mounts, &self.root, &self.list].map(AsFd::as_fd)
    }

    /// Whether the root is an overlay of this generation.
    pub(crate) fn are_at(&self, generation: u32) -> io::Result<bool> {
        let root = statx(&self.root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        let mut list = File::from(self.list.try_clone()?);
        let mut bytes = Vec::new();
        list.read_to_end(&mut bytes)?;
        // For who reads it next.
        list.rewind()?;
        // Names in it are those that are given inside, and may be of any bytes.
        let list = String::from_utf8_lossy(&bytes);
        Ok(is_of_generation(&list, root.stx_mnt_id, generation))
    }
}

fn ask(connection: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    socket::send(connection, &Request::Places {}, &[])?;
    if !super::made::wait(connection, ANSWERED_WITHIN) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match socket::receive(connection, &mut vec![0; MAX_PACKET])? {
        Some((Event::Places {}, fds)) => Ok(fds),
        Some((Event::Failed { message, .. }, _)) => Err(io::Error::other(message)),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether a list of mounts has the mount of this number as an overlay of this generation.
fn is_of_generation(list: &str, id: u64, generation: u32) -> bool {
    let mut lines = list.lines().filter_map(|line| line.split_once(" - "));
    let wanted = format!("overlay {} ", source(generation));
    lines.any(|(place, rest)| {
        let mut fields = place.split(' ').map(str::parse::<u64>);
        fields.next() == Some(Ok(id)) && rest.starts_with(&wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_that_of_the_root_and_of_no_other_mount_at_its_place() {
        let list = "1 2 0:1 / /usr rw - overlay generation-3 rw\n\
                    3 2 0:2 / / rw master:1 - overlay generation-12 rw,lowerdir=/l/0\n\
                    4 3 0:3 / / rw - overlay generation-13 rw\n";
        assert!(is_of_generation(list, 3, 12));
        assert!(is_of_generation(list, 4, 13));
        for (id, other) in [(3, 0), (3, 1), (3, 2), (3, 120), (3, 13), (4, 12), (5, 12)] {
            assert!(!is_of_generation(list, id, other));
        }
        assert!(!is_of_generation("", 0, 0));
    }
}
