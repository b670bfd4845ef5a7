//! Moves bytes from one socket to another. Nothing is read that cannot be written on.

use super::pipes::{Share, Taken};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown},
    pipe::{SpliceFlags, splice},
};
use std::{io, os::fd::AsFd};
use tokio::{io::Interest, net::TcpStream, task::yield_now};

/// After so many steps others have a turn.
const STEPS: u32 = 4;

/// How much is copied at once where there is no pipe.
const COPIED: usize = 16 * 1024;

/// From where to where, and who counts.
pub(super) struct Pump<'a> {
    pub(super) from: &'a TcpStream,
    pub(super) to: &'a TcpStream,
    pub(super) pipes: &'a Share,
    pub(super) count: &'a (dyn Fn(usize) + Sync),
}

impl Pump<'_> {
    /// Moves all bytes to the end, and says then that there are no more.
    pub(super) async fn run(&self) -> io::Result<()> {
        self.bytes(u64::MAX).await?;
        self.finish()
    }

    /// Says that no more bytes come.
    pub(super) fn finish(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.to, Shutdown::Write)?)
    }

    /// Moves as many bytes, or all there are; how many are missing.
    pub(super) async fn bytes(&self, mut wanted: u64) -> io::Result<u64> {
        let mut steps = 0;
        while wanted > 0 {
            self.from.readable().await?;
            self.to.writable().await?;
            let moved = match self.pipes.take() {
                Some(mut pipe) => self.splice(&mut pipe, wanted, &mut steps).await,
                None => self.copy(wanted),
            };
            match moved {
                Ok(0) => return Ok(wanted),
                Ok(moved) => wanted -= moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            turn(&mut steps).await;
        }
        Ok(0)
    }

    /// Writes bytes that were read already.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.to.writable().await?;
            match self.to.try_write(bytes) {
                Ok(written) => {
                    (self.count)(written);
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Moves bytes through a pipe for as long as there are some at once.
    async fn splice(&self, pipe: &mut Taken<'_>, wanted: u64, steps: &mut u32) -> io::Result<u64> {
        let mut moved = 0;
        while moved < wanted {
            match self.fill(pipe, wanted - moved) {
                Ok(0) => break,
                Ok(filled) => moved += filled,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && moved > 0 => break,
                Err(error) => return Err(error),
            }
            while pipe.held > 0 {
                self.to.writable().await?;
                self.drain(pipe)?;
                turn(steps).await;
            }
        }
        Ok(moved)
    }

    fn fill(&self, pipe: &mut Taken<'_>, wanted: u64) -> io::Result<u64> {
        let (_, write, size) = pipe.ends().ok_or(io::ErrorKind::Other)?;
        let most = usize::try_from(wanted).unwrap_or(usize::MAX).min(size);
        let filled = self
            .from
            .try_io(Interest::READABLE, || move_some(self.from, write, most))?;
        pipe.held = filled;
        Ok(filled as u64)
    }

    fn drain(&self, pipe: &mut Taken<'_>) -> io::Result<()> {
        let (read, _, _) = pipe.ends().ok_or(io::ErrorKind::Other)?;
        let held = pipe.held;
        let drained = self
            .to
            .try_io(Interest::WRITABLE, || move_some(read, self.to, held));
        match drained {
            Ok(drained) => {
                (self.count)(drained);
                pipe.held -= drained;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Copies some bytes. They are taken from where they are only when they have gone where they go.
    fn copy(&self, wanted: u64) -> io::Result<u64> {
        let mut buffer = [0; COPIED];
        let most = usize::try_from(wanted).unwrap_or(COPIED).min(COPIED);
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (seen, _) = self.from.try_io(Interest::READABLE, || {
            Ok(rustix::net::recv(self.from, &mut buffer[..most], peek)?)
        })?;
        if seen == 0 {
            return Ok(0);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = self.to.try_io(Interest::WRITABLE, || {
            Ok(rustix::net::send(self.to, &buffer[..seen], flags)?)
        })?;
        (self.count)(sent);
        let mut left = sent;
        while left > 0 {
            let (taken, _) =
                rustix::net::recv(self.from, &mut buffer[..left], RecvFlags::DONTWAIT)?;
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= taken;
        }
        Ok(sent as u64)
    }
}

/// Gives others a turn from time to time.
async fn turn(steps: &mut u32) {
    *steps += 1;
    if *steps >= STEPS {
        *steps = 0;
        yield_now().await;
    }
}

fn move_some(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    loop {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match splice(&from, None, &to, None, most, flags) {
            Err(Errno::INTR) => {}
            moved => return Ok(moved?),
        }
    }
}
