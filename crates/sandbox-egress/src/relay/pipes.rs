//! Pipes through which bytes move from socket to socket without being copied. One is held only while bytes are in it.

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Most pipes at the same time. Who gets none copies.
const MOST: usize = 64;

/// Most of these that one sandbox can hold, by not reading what is sent to it.
const MOST_OF_ONE: usize = 16;

/// Most that are kept for later.
const MOST_IDLE: usize = 16;

/// How much one holds; where that is too much for this user, as much as it is made with.
const SIZE: usize = 256 * 1024;

/// All pipes of a relay.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    idle: Mutex<Vec<Pipe>>,
    taken: AtomicUsize,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    fn new() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let size = fcntl_setpipe_size(&write, SIZE)
            .or_else(|_| rustix::pipe::fcntl_getpipe_size(&write))
            .ok()?;
        Some(Self { read, write, size })
    }
}

/// What one sandbox has of them.
#[derive(Debug)]
pub(super) struct Share {
    pipes: Arc<Pipes>,
    taken: AtomicUsize,
}

impl Share {
    pub(super) fn new(pipes: Arc<Pipes>) -> Self {
        Self {
            pipes,
            taken: AtomicUsize::new(0),
        }
    }

    /// An empty pipe, if there is one left.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        let take = |taken: &AtomicUsize, most| {
            let more = |taken| (taken < most).then_some(taken + 1);
            taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        };
        take(&self.taken, MOST_OF_ONE).ok()?;
        if take(&self.pipes.taken, MOST).is_err() {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut taken = Taken {
            share: self,
            pipe: None,
            held: 0,
        };
        let idle = self.pipes.idle().pop();
        taken.pipe = Some(idle.or_else(Pipe::new)?);
        Some(taken)
    }
}

impl Pipes {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Pipe>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe in use. It goes back when it is dropped, if nothing is left in it.
pub(super) struct Taken<'a> {
    share: &'a Share,
    pipe: Option<Pipe>,
    /// Bytes that are in it.
    pub(super) held: usize,
}

impl Taken<'_> {
    /// The ends to read from and to write to, and how much fits in.
    pub(super) fn ends(&self) -> Option<(&OwnedFd, &OwnedFd, usize)> {
        let pipe = self.pipe.as_ref()?;
        Some((&pipe.read, &pipe.write, pipe.size))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let pipes = &self.share.pipes;
        if let Some(pipe) = self.pipe.take().filter(|_| self.held == 0) {
            let mut idle = pipes.idle();
            if idle.len() < MOST_IDLE {
                idle.push(pipe);
            }
        }
        pipes.taken.fetch_sub(1, Ordering::Relaxed);
        self.share.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sandbox_takes_all_and_what_is_not_empty_does_not_come_back() {
        let pipes = Arc::new(Pipes::default());
        let shares: Vec<_> = (0..8).map(|_| Share::new(Arc::clone(&pipes))).collect();
        let taken: Vec<_> = (0..MOST_OF_ONE).map_while(|_| shares[0].take()).collect();
        assert_eq!(taken.len(), MOST_OF_ONE);
        assert!(shares[0].take().is_none());
        let others = shares[1..]
            .iter()
            .flat_map(|share| std::iter::from_fn(|| share.take()));
        let others: Vec<_> = others.collect();
        assert_eq!(taken.len() + others.len(), MOST);
        drop((taken, others));
        assert_eq!(pipes.idle().len(), MOST_IDLE);

        let mut dirty = shares[0].take().unwrap();
        dirty.held = 1;
        drop(dirty);
        assert_eq!(pipes.idle().len(), MOST_IDLE - 1);
        assert_eq!(pipes.taken.load(Ordering::Relaxed), 0);
        assert_eq!(shares[0].taken.load(Ordering::Relaxed), 0);
    }
}
