//! A sandbox claimed by somebody outside who is about to replace its file tree: nothing may be in it then but PID 1, and
//! nothing may be started.
//!
//! What PID 1 only keeps for later is sent away first, which takes a moment: the process that is ready for the next
//! command, and file workers without a request.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use sandbox_agent::protocol::agent::{Event, Failure};

use super::agent::{Agent, Task};
use super::deadlines::{Due, after};
use super::refusal::Refusal;
use crate::sys::{mount, signal};

/// Milliseconds in which those must have ended that were sent away.
const LEAVE_MS: u64 = 250;

/// Whose the sandbox is.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// The connection that has claimed it, and whether it has been told that nothing else is there.
    holder: Option<(u64, bool)>,
    /// What was ready for the next command.
    leaving: Option<u32>,
    /// Whether something is to be ready again afterwards.
    recall: bool,
    /// The connection that holds all commands where they cannot be stopped: none runs then, and none may be started.
    alone: Option<u64>,
}

impl Claim {
    /// Whether requests of this connection are served.
    pub(super) fn lets(&self, id: u64) -> bool {
        self.holder.is_none_or(|(holder, _)| holder == id)
            && self.alone.is_none_or(|holder| holder == id)
    }

    /// Lets requests of this connection alone be served.
    pub(super) fn serve_alone(&mut self, id: u64) {
        self.alone = Some(id);
    }

    /// Whether somebody has claimed the sandbox.
    pub(super) fn is_made(&self) -> bool {
        self.holder.is_some()
    }

    /// Whether this connection has claimed it, and has no answer yet.
    pub(super) fn is_awaited_by(&self, id: u64) -> bool {
        self.holder == Some((id, false))
    }
}

impl Agent {
    /// Gives the connection, which holds all commands, the sandbox for itself as soon as nothing else is there. Refuses it
    /// if that cannot be soon.
    pub(super) fn claim(&mut self, id: u64) {
        if self.claim.is_made() || !self.rest.is_held_by(id) {
            let message = "only who holds the commands can claim the sandbox, and only once";
            return self.answer(id, &Refusal::invalid(message).into_event());
        }
        self.claim.holder = Some((id, false));
        self.claim.recall |= self.reserve.is_some();
        self.claim.leaving = self.reserve.as_ref().map(|reserve| reserve.pid);
        if let Some(pid) = self.claim.leaving {
            // It has stopped with the commands, and would not see that it is not needed. It was not waited for, so it is there.
            let _ = signal::kill(pid.cast_signed(), libc::SIGKILL);
        }
        self.dismiss_reserve();
        self.farewell = None;
        if let Some(at) = after(LEAVE_MS) {
            self.deadlines.add(at, Due::Claim);
        }
        self.reap();
    }

    /// Looks whether all have left.
    pub(super) fn check_claim(&mut self) {
        let Some((id, false)) = self.claim.holder else {
            return;
        };
        let leaving = |pid: &u32| self.workers.contains(pid) || self.claim.leaving == Some(*pid);
        match others() {
            Ok(others) if others.is_empty() => {
                self.deadlines.cancel(Due::Claim);
                self.claim.holder = Some((id, true));
                self.answer(id, &Event::Done {});
                self.later(Task::Serve(id));
            }
            Ok(others) if others.iter().all(leaving) && self.waiting_for_worker.is_empty() => {}
            _ => self.refuse_claim(),
        }
    }

    /// Something is there, and stays.
    pub(super) fn refuse_claim(&mut self) {
        let Some((id, false)) = self.claim.holder else {
            return;
        };
        let refusal = Refusal::new(Failure::State {}, "something runs in the sandbox");
        self.answer(id, &refusal.into_event());
        self.later(Task::Serve(id));
        self.end_claim(id);
    }

    /// The sandbox is no longer this connection's, if it was.
    pub(super) fn end_claim(&mut self, id: u64) {
        let was_made = match self.claim.holder {
            Some((holder, was_made)) if holder == id => was_made,
            _ => return,
        };
        self.claim.holder = None;
        self.deadlines.cancel(Due::Claim);
        if was_made && !is_whole() {
            // Whoever was to replace it was killed in the middle, and nobody can put it right.
            self.end();
        }
        self.serve_workers();
        self.serve_all();
    }

    /// A connection is gone, for which others may have had to wait.
    pub(super) fn end_alone(&mut self, id: u64) {
        if self.claim.alone.take_if(|holder| *holder == id).is_some() {
            self.serve_all();
        }
    }

    fn serve_all(&mut self) {
        for other in self.connections.keys() {
            self.tasks.insert(Task::Serve(*other));
        }
    }

    /// Has something ready for the next command if there was before the sandbox was claimed.
    pub(super) fn recall_reserve(&mut self) {
        if std::mem::take(&mut self.claim.recall) {
            self.later(Task::Recruit);
        }
    }
}

/// Whether the file tree is one that can be worked in: a root that can be written, and its own `/proc` and `/dev` there,
/// whatever is in them. Where that cannot be told, nothing speaks against it.
fn is_whole() -> bool {
    let look = || {
        let root = File::open("/")?;
        let of_root = root.metadata()?.dev();
        for mounted in ["/proc", "/dev"] {
            if fs::symlink_metadata(mounted)?.dev() == of_root {
                return Ok(false);
            }
        }
        mount::is_read_only(root.as_fd()).map(|only| !only)
    };
    look().unwrap_or_else(|error: io::Error| error.kind() != io::ErrorKind::NotFound)
}

/// All processes of the sandbox but PID 1.
fn others() -> io::Result<BTreeSet<u32>> {
    let mut others = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        others.extend(pid.filter(|pid| *pid != 1));
    }
    Ok(others)
}
