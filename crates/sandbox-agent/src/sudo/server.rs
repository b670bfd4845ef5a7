//! The side of `sudo` that can start a command as another user. Its peers are programs of the sandbox.
//!
//! PID 1 itself takes no connection: a descriptor that comes along can make the one who closes it last wait, for as
//! long as its sender likes. So when somebody knocks, PID 1 forks a process that accepts; that forks another one for
//! each connection, and ends when there are none. What they hold up is only themselves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use sandbox_agent::protocol::agent::Spawn;
use sandbox_agent::protocol::sudo::{SudoControl, SudoReply, SudoRequest};
use sandbox_agent::protocol::{Blob, Wire as _};

use super::SOCKET;
use crate::sys::clone::{Forked, fork};
use crate::sys::local::{self, Peer};
use crate::sys::signal::{self, ChildEnds};
use crate::sys::wait::{self, poll};
use crate::sys::{program, socket};

#[cfg(test)]
mod tests;

/// Most connections at a time. Others wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long a peer may take to say what it wants.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// How long a command has to end after its peer is gone.
const GRACE: Duration = Duration::from_secs(2);

/// The users that may use it, with their names.
const ALLOWED: [(u32, &str); 2] = [(0, "root"), (1000, "user")];

/// Most bytes of a command line that the command finds in its environment.
const MAX_COMMAND: usize = 4096;

/// Makes the socket.
///
/// # Errors
/// Those of the system; then there is no `sudo`.
pub(crate) fn listen() -> io::Result<OwnedFd> {
    local::listen(Path::new(SOCKET), 0o666)
}

/// A command that somebody asked for, with the descriptors that are lent to it.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    /// What to run. Its environment is complete but for what every command of the user gets.
    pub(crate) spawn: &'a Spawn,
    /// Standard input, output and error.
    pub(crate) standard: [BorrowedFd<'a>; 3],
    /// Where to run it, if not in the user's home.
    pub(crate) directory: Option<BorrowedFd<'a>>,
    /// The process that asks.
    pub(crate) peer: u32,
}

/// Starts commands.
pub(crate) trait Starter {
    /// Starts a command as leader of a process group, and gives its PID and a descriptor that becomes readable when
    /// it ends.
    ///
    /// # Errors
    /// What to tell the one who asked.
    fn start(&self, command: &Lent<'_>) -> Result<(u32, OwnedFd), String>;
}

/// Serves all connections of `listener` until there are none. To be called in a process of its own.
///
/// The exit code is not 0 if it could not work.
pub(crate) fn serve(listener: &OwnedFd, starter: &impl Starter) -> ! {
    program::exit(match accept_all(listener, starter) {
        Ok(()) => 0,
        Err(_) => 1,
    })
}

fn accept_all(listener: &OwnedFd, starter: &impl Starter) -> io::Result<()> {
    let children = ChildEnds::take()?;
    let mut handlers = 0_usize;
    let mut first = true;
    loop {
        children.clear();
        while signal::reap().is_some() {
            handlers = handlers.saturating_sub(1);
        }
        if handlers == 0 && !first && !poll([Some(listener.as_fd())], Some(Duration::ZERO))?[0] {
            return Ok(());
        }
        let open = (handlers < MAX_CONNECTIONS).then(|| listener.as_fd());
        if !poll([open, Some(children.as_fd())], None)?[0] {
            continue;
        }
        first = false;
        let connection = match socket::accept(listener.as_fd()) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted
                ) =>
            {
                continue;
            }
            other => other?,
        };
        match fork(None)? {
            Forked::Child => {
                let patience = Patience {
                    first_word: FIRST_WORD,
                    grace: GRACE,
                };
                program::exit(converse(&connection, starter, patience).map_or(1, |()| 0))
            }
            Forked::Parent(_) => handlers += 1,
        }
    }
}

/// How long to wait for a peer.
#[derive(Debug, Clone, Copy)]
struct Patience {
    first_word: Duration,
    grace: Duration,
}

/// Does what the peer of `connection` asks, to the end of its command.
fn converse(connection: &OwnedFd, starter: &impl Starter, patience: Patience) -> io::Result<()> {
    let peer = local::peer(connection.as_fd())?;
    if !poll([Some(connection.as_fd())], Some(patience.first_word))?[0] {
        return Ok(());
    }
    let Some((request, fds)) = receive(connection)? else {
        return Ok(());
    };
    // Only now: a socket that is closed with something unread takes back what was written to it.
    let Some((_, name)) = ALLOWED.iter().find(|(uid, _)| *uid == peer.uid) else {
        let message = format!(
            "uid {} may not use it; only root and user of this sandbox may",
            peer.uid
        );
        return end(connection, 1, message);
    };
    let (Some(standard), directory) = (fds.first_chunk::<3>(), fds.get(3)) else {
        return Ok(());
    };
    let spawn = command(request, name, peer);
    let lent = Lent {
        spawn: &spawn,
        standard: standard.each_ref().map(AsFd::as_fd),
        directory: directory.map(AsFd::as_fd),
        peer: peer.pid,
    };
    let (pid, ended) = match starter.start(&lent) {
        Ok(started) => started,
        Err(message) => return end(connection, 1, message),
    };
    // Readers of what the command writes see its end when it ends.
    drop(fds);
    accompany(connection, pid.cast_signed(), &ended, patience.grace)
}

/// Receives the request. `None`: the peer has gone away, or does not keep to the protocol.
fn receive(connection: &OwnedFd) -> io::Result<Option<(SudoRequest, Vec<OwnedFd>)>> {
    let Some(message) = socket::receive(connection.as_fd())? else {
        return Ok(None);
    };
    let Ok(request) = SudoRequest::decode(&message.bytes) else {
        return Ok(None);
    };
    let expected = 3 + usize::from(request.cwd);
    Ok((message.fds.len() == expected).then_some((request, message.fds)))
}

/// What to run for a request of the user `name`.
fn command(request: SudoRequest, name: &str, peer: Peer) -> Spawn {
    let user = request.user.as_deref().unwrap_or("root");
    let mut line = request
        .argv
        .iter()
        .map(|argument| argument.0.as_slice())
        .collect::<Vec<_>>()
        .join(&b' ');
    line.truncate(MAX_COMMAND);
    let mut env = request.env;
    let about: [(&str, Blob); 4] = [
        ("SUDO_USER", name.into()),
        ("SUDO_UID", peer.uid.to_string().as_str().into()),
        ("SUDO_GID", peer.gid.to_string().as_str().into()),
        ("SUDO_COMMAND", Blob(line)),
    ];
    env.extend(about.map(|(name, value)| (name.into(), value)));
    Spawn {
        argv: request.argv,
        env,
        cwd: None,
        user: Some(user.strip_prefix('#').unwrap_or(user).to_owned()),
        merge_stderr: false,
        stdin: true,
        pty: None,
        timeout_ms: 0,
        grace_ms: 0,
        tag: None,
    }
}

/// Passes signals on and waits for the end, of the command or of the peer.
fn accompany(connection: &OwnedFd, pid: i32, ended: &OwnedFd, grace: Duration) -> io::Result<()> {
    loop {
        let [spoken, over] = poll([Some(connection.as_fd()), Some(ended.as_fd())], None)?;
        if over {
            return end(connection, exit_code(pid), String::new());
        }
        if !spoken {
            continue;
        }
        match socket::receive(connection.as_fd())
            .map(|message| message.map(|message| SudoControl::decode(&message.bytes)))
        {
            Ok(Some(Ok(SudoControl::Signal { signal })))
                if (1..=signal::LAST).contains(&signal) =>
            {
                // The group may be about to end, which its end then tells.
                let _ = signal::kill(-pid, signal);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Gone, or as good as that.
            _ => break,
        }
    }
    // The main process is not waited for before the last signal, so that its number still means this group.
    let _ = signal::kill(-pid, libc::SIGHUP);
    poll([Some(ended.as_fd())], Some(grace))?;
    let _ = signal::kill(-pid, libc::SIGKILL);
    Ok(())
}

/// The exit code of a child that has ended, as a shell would put it.
fn exit_code(pid: i32) -> i32 {
    match wait::exit_status(pid) {
        Ok(status) if libc::WIFSIGNALED(status) => 128 + libc::WTERMSIG(status),
        Ok(status) => libc::WEXITSTATUS(status),
        Err(_) => 1,
    }
}

fn end(connection: &OwnedFd, code: i32, message: String) -> io::Result<()> {
    socket::send(
        connection.as_fd(),
        &SudoReply::Ended { code, message }.encode(),
        &[],
    )
}
