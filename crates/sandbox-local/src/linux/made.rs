//! A sandbox in the hands of the program that has made it: how it is let go, and how it ends.

use super::{
    network::Serving,
    reap,
    record::{Locked, SOCKET, STORE},
    remove::remove_tree,
    sandbox::unexpected,
    socket, store,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::Signal,
};
use sandbox_agent::protocol::{
    VERSION,
    agent::{Event, Request},
};
use sandbox_core::{Error, ErrorKind, Ownership, Result, SandboxId};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// How long a new PID 1 may take for its first answer, and one that was killed for its end.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A sandbox that this program has made and keeps alive. Dropping it ends the sandbox and removes what it leaves.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) id: SandboxId,
    pub(crate) ownership: Ownership,
    pub(crate) pidfd: OwnedFd,
    /// Closing it ends the sandbox.
    pub(crate) lifeline: Option<OwnedFd>,
    pub(crate) locked: Option<Locked>,
    /// Carries its connections.
    pub(crate) serving: Option<Serving>,
}

impl Made {
    /// Asks the new PID 1 whether it is well.
    pub(crate) fn check(&self) -> Result<()> {
        match self.ask(&Request::Info { version: VERSION })? {
            Event::Info {
                version: VERSION, ..
            } => Ok(()),
            other => {
                tracing::debug!(?other, id = %self.id, "unexpected first answer");
                Err(Error::new(
                    ErrorKind::Protocol,
                    "the new sandbox speaks another version of the protocol",
                ))
            }
        }
    }

    /// Has its PID 1 do what is answered by no more than `Done`.
    pub(crate) fn tell(&self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            Event::Done {} => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Its record, unless it is over.
    pub(crate) fn locked(&self) -> Result<&Locked> {
        let locked = self.locked.as_ref();
        locked.ok_or_else(|| mute(io::Error::from(io::ErrorKind::NotFound)))
    }

    fn ask(&self, request: &Request) -> Result<Event> {
        ask(self.locked()?.as_fd(), request).map_err(mute)
    }

    /// Lets it live on, after its PID 1 has agreed.
    pub(crate) fn let_go(mut self) {
        self.lifeline = None;
        self.locked = None;
    }

    /// Ends it at once and removes what it leaves. Returns whether it lived.
    pub(crate) fn kill(mut self) -> Result<bool> {
        // A PID 1 on its way out answers no more: that sandbox is gone already.
        let directory = self.locked.as_ref().map(|locked| locked.directory.as_fd());
        let refused = directory.is_none_or(|directory| {
            let connected = socket::connect(directory, SOCKET).map(drop);
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
        let was_alive = !refused && !wait(self.pidfd.as_fd(), Duration::ZERO);
        self.end()?;
        Ok(was_alive)
    }

    /// Ends it without waiting for that.
    fn strike(&self) {
        // It fails only for what has ended.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn end(&mut self) -> Result<()> {
        let Some(locked) = self.locked.take() else {
            self.lifeline = None;
            return Ok(());
        };
        self.strike();
        self.lifeline = None;
        // Most of it goes while the kernel takes the sandbox apart; the rest, and what appears meanwhile, goes below.
        let store = locked.path.join(STORE);
        let _ = store::detach(&store).and_then(|()| {
            store::clear(&store);
            remove_tree(&store)
        });
        if !wait(self.pidfd.as_fd(), ANSWER_WITHIN) {
            return Err(still_there());
        }
        reap::reap(&locked).map_err(left_behind)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(id = %self.id, %error, "a sandbox could not be ended and removed");
        }
    }
}

/// Ends sandboxes all at once, so that it takes no longer than for the slowest one.
pub(crate) fn end_all(made: impl IntoIterator<Item = Made>) {
    let made: Vec<Made> = made.into_iter().collect();
    made.iter().for_each(Made::strike);
}

/// A new sandbox until its maker's caller has heard of it. If that one does not wait any more, it ends.
#[derive(Debug)]
pub(crate) struct Unclaimed(Option<Made>);

impl Unclaimed {
    pub(crate) fn new(made: Made) -> Self {
        Self(Some(made))
    }

    pub(crate) fn made(&self) -> Option<&Made> {
        self.0.as_ref()
    }

    pub(crate) fn claim(mut self) -> Option<Made> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some(made) = self.0.take() else {
            return;
        };
        // It may be a task that is dropped, which others must not wait for.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(made))),
            Err(_) => drop(made),
        }
    }
}

/// A sandbox that has been killed and does not end.
pub(crate) fn still_there() -> Error {
    let message = "the sandbox was killed, and the kernel has not ended it yet: it may wait for a disk or a driver";
    Error::new(ErrorKind::Unavailable, message)
}

pub(crate) fn left_behind(error: io::Error) -> Error {
    let message = "what the sandbox left behind could not be removed";
    Error::new(ErrorKind::Internal, message).with_source(error)
}

/// A new sandbox that does not answer.
pub(crate) fn mute(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, "the new sandbox does not answer").with_source(error)
}

/// Asks the PID 1 of the record in `directory` once.
fn ask(directory: BorrowedFd<'_>, request: &Request) -> io::Result<Event> {
    let connection = socket::connect(directory, SOCKET)?;
    socket::ask(connection.as_fd(), request, ANSWER_WITHIN)
}

/// Waits until a descriptor is readable, as a pidfd is when its process has ended; false if it takes too long.
pub(crate) fn wait(fd: BorrowedFd<'_>, within: Duration) -> bool {
    let within = Timespec {
        tv_sec: within.as_secs() as i64,
        tv_nsec: i64::from(within.subsec_nanos()),
    };
    loop {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&within)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}
