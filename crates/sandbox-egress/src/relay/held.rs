//! Bytes of a connection that were read and not yet written on. All of one sandbox have one budget.

use std::{io, ops::Deref, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How much is asked for at once.
const PIECE: usize = 2048;

/// Pieces that a sandbox may hold: room for thousands of first messages, and for hundreds of the longest.
const PIECES: usize = 4096;

/// How long a connection waits for others of its sandbox to give something back.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the connections of one sandbox may hold.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(PIECES)))
    }

    /// Nothing yet.
    pub(super) fn hold(&self) -> Held {
        Held {
            bytes: Vec::new(),
            budget: self.clone(),
            pieces: None,
        }
    }
}

/// Bytes that count against a budget.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    budget: Budget,
    pieces: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Reads some more bytes; `false` at the end.
    ///
    /// # Cancel safety
    /// No bytes are lost.
    pub(super) async fn read(&mut self, stream: &TcpStream) -> io::Result<bool> {
        loop {
            stream.readable().await?;
            self.make_room().await?;
            match stream.try_read_buf(&mut self.bytes) {
                // That it may be read is said too often, and many wait for long.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.drop_first(0),
                read => return Ok(read? > 0),
            }
        }
    }

    async fn make_room(&mut self) -> io::Result<()> {
        if self.bytes.len() < self.bytes.capacity() {
            return Ok(());
        }
        let piece = Arc::clone(&self.budget.0).acquire_owned();
        let piece = timeout(PATIENCE, piece).await?.map_err(io::Error::other)?;
        match &mut self.pieces {
            Some(pieces) => pieces.merge(piece),
            none => *none = Some(piece),
        }
        self.bytes.reserve_exact(PIECE);
        Ok(())
    }

    /// Drops the first bytes, which are written by now.
    pub(super) fn drop_first(&mut self, count: usize) {
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
            self.pieces = None;
        }
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    #[tokio::test]
    async fn who_holds_nothing_takes_nothing_of_the_budget() {
        let budget = Budget::new();
        let (mut program, stream) = pair().await;
        let mut held = budget.hold();
        program.write_all(&[7; 3000]).await.unwrap();
        while held.len() < 3000 {
            assert!(held.read(&stream).await.unwrap());
        }
        assert_eq!(*held, [7; 3000]);
        assert_eq!(budget.0.available_permits(), PIECES - 2);
        held.drop_first(2999);
        assert_eq!(budget.0.available_permits(), PIECES - 2);
        held.drop_first(1);
        assert_eq!(budget.0.available_permits(), PIECES);
        tokio::select! {
            biased;
            _ = held.read(&stream) => panic!("there is nothing"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(budget.0.available_permits(), PIECES);
        drop(program);
        assert!(!held.read(&stream).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_nothing_left_of_the_budget_gives_up() {
        let budget = Budget::new();
        let (mut program, stream) = pair().await;
        program.write_all(b"x").await.unwrap();
        let all = u32::try_from(PIECES).unwrap();
        let others = Arc::clone(&budget.0).acquire_many_owned(all).await.unwrap();
        let error = budget.hold().read(&stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(others);
        assert!(budget.hold().read(&stream).await.unwrap());
    }
}
