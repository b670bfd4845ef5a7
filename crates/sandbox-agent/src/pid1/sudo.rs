//! `sudo` inside the sandbox: who serves it, and how its commands are started.
//!
//! PID 1 does not talk to the sandbox's programs. When somebody connects it forks a process that does, and looks at
//! the socket again when that has ended.

use std::os::fd::{AsFd as _, OwnedFd};

use super::agent::Agent;
use super::child::{self, Descriptors};
use super::deadlines::{Due, after};
use super::group::Cgroups;
use super::launch::{self, Launcher};
use super::token::Token;
use crate::sudo::server::{self, Lent, Starter};
use crate::sys::clone::{Forked, fork};
use crate::sys::epoll::Watch;
use crate::sys::{inherit, program, signal, wait};

/// Milliseconds until `sudo` is served again after that went wrong.
const AGAIN_MS: u64 = 100;

/// The socket of `sudo`, and the process that serves it.
#[derive(Debug)]
pub(super) struct Sudo {
    listener: OwnedFd,
    server: Option<u32>,
}

impl Sudo {
    /// Makes the socket. Where that cannot be there is no `sudo`, which its users are told.
    pub(super) fn open() -> Option<Self> {
        let listener = server::listen().ok()?;
        Some(Self {
            listener,
            server: None,
        })
    }
}

impl Agent {
    /// Waits for somebody to connect.
    pub(super) fn await_sudo(&mut self) {
        let Some(sudo) = &self.sudo else { return };
        if self
            .watch(&sudo.listener, Token::Sudo, Watch::Readable)
            .is_err()
        {
            self.try_sudo_again();
        }
    }

    /// Somebody has connected.
    pub(super) fn serve_sudo(&mut self) {
        let Some(sudo) = self.sudo.as_mut() else {
            return;
        };
        if self.claim.is_made() {
            // Nothing may be started now. Whoever has connected is there no more.
            self.unwatch_sudo();
            return self.try_sudo_again();
        }
        match fork(None) {
            Ok(Forked::Child) => become_server(&sudo.listener, &self.launcher, &self.cgroups),
            Ok(Forked::Parent(pid)) => sudo.server = Some(pid),
            Err(_) => self.try_sudo_again(),
        }
        self.unwatch_sudo();
    }

    fn unwatch_sudo(&self) {
        if let Some(sudo) = &self.sudo {
            self.unwatch(&sudo.listener);
        }
    }

    /// A process has ended that is nobody else's business.
    pub(super) fn sudo_ended(&mut self, pid: u32, status: i32) {
        if self
            .sudo
            .as_mut()
            .and_then(|sudo| sudo.server.take_if(|server| *server == pid))
            .is_none()
        {
            return;
        }
        if status == 0 {
            self.await_sudo();
        } else {
            // Whoever waits is still there, and would be at once served by the next one that fails.
            self.try_sudo_again();
        }
    }

    fn try_sudo_again(&mut self) {
        if let Some(at) = after(AGAIN_MS) {
            self.deadlines.add(at, Due::Sudo);
        }
    }
}

/// Serves `sudo`, in a process of its own that keeps nothing else of PID 1.
fn become_server(listener: &OwnedFd, launcher: &Launcher, cgroups: &Cgroups) -> ! {
    let mut keep = vec![listener.as_fd()];
    keep.extend(cgroups.parent());
    match signal::reset().and_then(|()| inherit::close_all_but(&keep)) {
        Ok(()) => server::serve(listener, &Lender { launcher, cgroups }),
        Err(_) => program::exit(1),
    }
}

/// Starts the commands of `sudo` as others are started, in the cgroup of whoever asks.
struct Lender<'a> {
    launcher: &'a Launcher,
    cgroups: &'a Cgroups,
}

impl Starter for Lender<'_> {
    fn start(&self, command: &Lent<'_>) -> Result<(u32, OwnedFd), String> {
        launch::check(command.spawn).map_err(|refusal| refusal.message)?;
        // What ends the caller's command is to end this one as well.
        let cgroup = self.cgroups.find(command.peer);
        if cgroup.is_none() && self.cgroups.parent().is_some() {
            // In the cgroup of PID 1, no pause and no kill of a command would reach it.
            return Err("whoever asks has ended".into());
        }
        let descriptors = Descriptors {
            standard: command.standard,
            directory: command.directory,
        };
        match fork(cgroup.as_ref().map(|cgroup| cgroup.as_fd())) {
            Ok(Forked::Child) => child::run(self.launcher, command.spawn, &descriptors),
            Ok(Forked::Parent(pid)) => match wait::open_child(pid) {
                Ok(ended) => Ok((pid, ended)),
                Err(error) => {
                    // It is a child that was not waited for, so it is there.
                    let _ = signal::kill(pid.cast_signed(), libc::SIGKILL);
                    Err(format!("cannot watch another process: {error}"))
                }
            },
            Err(error) => Err(format!("cannot start another process: {error}")),
        }
    }
}
