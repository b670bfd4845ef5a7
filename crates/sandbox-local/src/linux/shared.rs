//! Much output, read where PID 1 keeps it instead of through the socket.
//!
//! Asked for once a command has shown that it writes much: for others the memory would cost more than the copies.

use super::socket::Connection;
use rustix::{
    buffer::spare_capacity,
    fs::{SealFlags, fcntl_get_seals},
};
use sandbox_agent::protocol::agent::{Request, shared};
use std::{io, os::fd::OwnedFd, sync::atomic};

/// Output in one message that counts as much.
const LARGE: usize = 16 * 1024;
/// How much of such output there must be.
const ENOUGH: usize = 128 * 1024;
/// How much is taken before PID 1 is told, in bytes and in pieces: it keeps a bounded number of changes between streams.
const TELL_AFTER: u64 = 256 * 1024;
const TELL_AFTER_PIECES: u32 = 1024;

/// What one reader of a command has of the memory.
#[derive(Debug)]
pub(super) enum Sharing {
    /// Nothing yet, and so many bytes came in large messages.
    Unasked(usize),
    Asked,
    Given(Shared),
}

impl Sharing {
    /// Output came through the socket.
    pub(super) async fn saw(&mut self, len: usize, connection: &Connection) -> io::Result<()> {
        if let Self::Unasked(seen) = self
            && len >= LARGE
        {
            *seen += len;
            if *seen >= ENOUGH {
                *self = Self::Asked;
                connection.send(&Request::Share {}).await?;
            }
        }
        Ok(())
    }

    /// The memory came.
    pub(super) fn given(&mut self, mut fds: Vec<OwnedFd>) -> io::Result<()> {
        *self = match (&self, fds.pop()) {
            (Self::Asked, Some(memory)) => Self::Given(Shared::new(memory)?),
            _ => return Err(invalid("it shares memory that nobody asked for")),
        };
        Ok(())
    }

    /// Output lies in the memory: how many of its bytes were overwritten, and the rest.
    pub(super) fn read(&self, at: u64, len: u32) -> io::Result<(u64, Vec<u8>)> {
        match self {
            Self::Given(shared) => shared.read(at, len as usize),
            _ => Err(invalid("it names output in memory that it has not shared")),
        }
    }

    /// All output before `at` was taken.
    pub(super) async fn took(&mut self, at: u64, connection: &Connection) -> io::Result<()> {
        let Self::Given(shared) = self else {
            return Ok(());
        };
        shared.untold += 1;
        if at.saturating_sub(shared.told) >= TELL_AFTER || shared.untold >= TELL_AFTER_PIECES {
            (shared.told, shared.untold) = (at, 0);
            connection.send(&Request::Taken { at }).await?;
        }
        Ok(())
    }
}

/// The memory of a ring.
#[derive(Debug)]
pub(super) struct Shared {
    memory: OwnedFd,
    /// The cursor that PID 1 was told last.
    told: u64,
    /// Pieces of output since then.
    untold: u32,
}

impl Shared {
    fn new(memory: OwnedFd) -> io::Result<Self> {
        // Only memory has seals, so reading from it can neither wait nor fail.
        let seals = fcntl_get_seals(&memory).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::SHRINK | SealFlags::SEAL) {
            return Err(invalid("the shared memory is not sealed"));
        }
        Ok(Self {
            memory,
            told: 0,
            untold: 0,
        })
    }

    fn read(&self, at: u64, len: usize) -> io::Result<(u64, Vec<u8>)> {
        if len > shared::MAX_KEPT {
            return Err(invalid("it names more output than the protocol allows"));
        }
        let start = at % shared::LEN as u64;
        let first = len.min(shared::LEN - start as usize);
        let mut bytes = Vec::with_capacity(len);
        self.append(&mut bytes, start, first)?;
        self.append(&mut bytes, 0, len - first)?;
        // What was overwritten up to now may have been so while it was read.
        atomic::fence(atomic::Ordering::SeqCst);
        let lost = self.oldest()?.saturating_sub(at).min(len as u64);
        bytes.drain(..lost as usize);
        Ok((lost, bytes))
    }

    /// Appends `len` bytes of the memory. There is room for them, so nothing is moved.
    fn append(&self, bytes: &mut Vec<u8>, offset: u64, len: usize) -> io::Result<()> {
        let end = bytes.len() + len;
        if len > 0 {
            rustix::io::pread(&self.memory, spare_capacity(bytes), offset)?;
        }
        if bytes.len() < end {
            return Err(invalid("the shared memory is too short"));
        }
        bytes.truncate(end);
        Ok(())
    }

    /// Cursor of the oldest byte that is there; read until two readings agree, for one is not said to be of one piece.
    fn oldest(&self) -> io::Result<u64> {
        let read = || {
            let mut bytes = [0; 8];
            match rustix::io::pread(&self.memory, &mut bytes, shared::OLDEST as u64)? {
                8 => Ok(u64::from_le_bytes(bytes)),
                _ => Err(invalid("the shared memory is too short")),
            }
        };
        let mut last = read()?;
        loop {
            let next = read()?;
            if next == last {
                return Ok(next);
            }
            last = next;
        }
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::socket;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};
    use std::{fs::File, os::unix::fs::FileExt};

    const LEN: u64 = shared::LEN as u64;

    fn memory(len: u64, seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("ring", flags).unwrap());
        file.set_len(len).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file.into()
    }

    /// A ring whose byte at the cursor `c` is `c % 251`, with the newest bytes before `end`.
    fn ring(end: u64, oldest: u64) -> Shared {
        let memory = File::from(memory(LEN + 8, SealFlags::SHRINK | SealFlags::SEAL));
        let mut bytes = vec![0; shared::LEN];
        for at in end.saturating_sub(LEN)..end {
            bytes[(at % LEN) as usize] = (at % 251) as u8;
        }
        memory.write_all_at(&bytes, 0).unwrap();
        memory.write_all_at(&oldest.to_le_bytes(), LEN).unwrap();
        Shared::new(memory.into()).unwrap()
    }

    fn expected(range: std::ops::Range<u64>) -> Vec<u8> {
        range.map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn output_is_found_wherever_it_lies() {
        let ring = ring(3 * LEN + 7, 2 * LEN + 7);
        for (at, len) in [
            (2 * LEN + 7, 1),
            (3 * LEN - 1, 1),
            (3 * LEN, 7),
            (3 * LEN - 5, 12),
            (3 * LEN - 100_000, 100_007),
            (3 * LEN, 0),
        ] {
            let (lost, bytes) = ring.read(at, len).unwrap();
            assert_eq!(lost, 0, "{at}, {len}");
            assert!(bytes == expected(at..at + len as u64), "{at}, {len}");
        }
    }

    #[test]
    fn what_was_overwritten_is_told() {
        let ring = ring(LEN + 50, 100);
        assert_eq!(ring.read(0, 10).unwrap(), (10, Vec::new()));
        assert_eq!(ring.read(95, 10).unwrap(), (5, expected(100..105)));
        assert_eq!(ring.read(100, 10).unwrap(), (0, expected(100..110)));
    }

    #[test]
    fn memory_that_could_shrink_or_is_none_is_refused() {
        let full = SealFlags::SHRINK | SealFlags::SEAL;
        assert!(Shared::new(memory(LEN + 8, SealFlags::empty())).is_err());
        assert!(Shared::new(memory(LEN + 8, SealFlags::SHRINK)).is_err());
        assert!(Shared::new(File::open("/dev/zero").unwrap().into()).is_err());
        let short = Shared::new(memory(LEN, full)).unwrap();
        let error = short.read(0, 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let long = Shared::new(memory(LEN + 8, full)).unwrap();
        assert!(long.read(0, shared::MAX_KEPT + 1).is_err());
    }

    #[tokio::test]
    async fn pid_1_is_told_what_was_taken_however_small_the_pieces_are() {
        let (ours, theirs) = socket::pair().unwrap();
        let [connection, peer] = [ours, theirs].map(|socket| {
            rustix::io::ioctl_fionbio(&socket, true).unwrap();
            Connection::new(socket).unwrap()
        });
        let mut sharing = Sharing::Given(ring(0, 0));
        // Fewer than there can be changes between streams before PID 1 waits for this reader.
        for at in 1..=u64::from(TELL_AFTER_PIECES) {
            sharing.took(at, &connection).await.unwrap();
        }
        let told = peer.try_receive().unwrap();
        assert_eq!(
            told,
            Some(Request::Taken {
                at: TELL_AFTER_PIECES.into()
            })
        );
        assert_eq!(peer.try_receive::<Request>().unwrap(), None);
    }

    #[test]
    fn nothing_comes_that_was_not_asked_for() {
        let memory = memory(LEN + 8, SealFlags::SHRINK | SealFlags::SEAL);
        assert!(Sharing::Unasked(0).given(vec![memory]).is_err());
        assert!(Sharing::Asked.given(Vec::new()).is_err());
        assert!(Sharing::Asked.read(0, 1).is_err());
    }
}
