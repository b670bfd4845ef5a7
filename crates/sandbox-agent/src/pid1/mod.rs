//! PID 1 of a sandbox: starts commands, keeps and hands out their output, reaps, and ends the sandbox in time.
//!
//! One thread, one loop, no waiting for anybody: every descriptor is non-blocking or asked first, every list has a
//! bound. It runs as root of the sandbox's own user namespace, cannot be signalled or looked into by the commands,
//! and talks to the host over a socket that is not in the sandbox's file tree. When it ends, so does the sandbox.

mod agent;
mod attach;
mod begin;
mod child;
mod claim;
mod connection;
mod deadlines;
mod dns;
mod group;
mod launch;
mod lifecycle;
mod lookup;
mod network;
mod oom;
mod pause;
mod places;
mod process;
mod refusal;
mod requests;
mod ring;
mod starting;
mod stdin;
mod stream;
mod sudo;
mod token;
mod workers;

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use sandbox_agent::protocol::Blob;

use crate::sys::program::exit;
use crate::view::{Machine, View};
use agent::Agent;
pub(crate) use group::COMMANDS;
pub(crate) use network::Caught;

/// What a sandbox is given when it is made.
#[derive(Debug)]
pub(crate) struct Config {
    /// Its name and id.
    pub name: String,
    /// A listening `SOCK_SEQPACKET` socket.
    pub listener: OwnedFd,
    /// A pipe's end that hangs up when the owner is gone.
    pub lifeline: OwnedFd,
    /// The record's lock, held as long as the sandbox lives.
    pub lock: OwnedFd,
    /// A cgroup2 directory in which each command gets a cgroup of its own.
    pub cgroup: Option<OwnedFd>,
    /// A file that counts OOM kills.
    pub oom_counter: Option<OwnedFd>,
    /// What is to be shown to programs once it is known what they may use.
    pub view: Option<(View, Rc<Machine>)>,
    /// Where what leaves the sandbox arrives, if it is caught.
    pub network: Option<Caught>,
    /// Environment that every command starts from.
    pub env: Vec<(Blob, Blob)>,
    /// Milliseconds until the sandbox ends; 0 is never.
    pub lifetime_ms: u64,
    /// Whether the sandbox ends with its owner.
    pub owned: bool,
    /// Whether there is one user, whom PID 1 is as well, and nobody to change to.
    pub is_alone: bool,
    /// How many processes there may be for a command to start another one; 0 is no limit.
    pub max_processes: u64,
    /// `struct sock_filter[]` for every command.
    pub seccomp: Vec<u8>,
    /// Walls left out by a test build, of `protocol::zygote::weaken`.
    pub weaken: u32,
}

/// A sandbox whose life has not begun.
#[derive(Debug)]
pub(crate) struct Prepared(Box<Agent>);

/// Gets everything ready. To be called as PID 1 of its namespaces, with everything set up.
pub(crate) fn prepare(config: Config) -> io::Result<Prepared> {
    std::panic::set_hook(Box::new(|_| exit(1)));
    Agent::new(config).map(|agent| Prepared(Box::new(agent)))
}

impl Prepared {
    /// Runs the sandbox to its end.
    ///
    /// It fails closed: whatever goes wrong here ends the process, and with it the kernel ends all others.
    pub(crate) fn run(mut self) -> ! {
        // Only returns with an error of the loop itself, after which nothing can be relied on.
        let _ = self.0.run();
        exit(1)
    }
}
