//! Starting a command: its descriptors, its cgroup, and the process that becomes it.
//!
//! That process is forked first and told afterwards what it is to become, so that it can be there already when a
//! command comes: forking and confining it takes as long as everything else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::rc::Rc;

use sandbox_agent::protocol::agent::{Event, Spawn, stream};
use sandbox_agent::protocol::zygote::weaken;
use sandbox_agent::protocol::{Blob, Wire as _};

use super::Config;
use super::child;
use super::group::{Cgroups, Group};
use super::process::{Launched, Start, Terminal};
use super::refusal::Refusal;
use super::ring::Ring;
use super::stdin::Stdin;
use super::stream::Stream;
use crate::sys::clone::{Forked, fork};
use crate::sys::flag::Flag;
use crate::sys::program::{DescriptorLimit, Filter, is_spared};
use crate::sys::pty::Terminals;
use crate::sys::{pipe, socket};

/// Longest label of a command, in bytes.
pub(super) const MAX_TAG: usize = 256;

/// The lowest number of a descriptor that does not get in the way of those a command starts with.
const FIRST_FREE: i32 = 4;

/// What all commands of a sandbox have in common.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) env: Vec<(Blob, Blob)>,
    pub(super) filter: Option<Filter>,
    pub(super) weaken: u32,
    pub(super) limit: DescriptorLimit,
    /// How many processes there may be for a command to start another one; 0 is no limit.
    pub(super) max_processes: u64,
    /// Whether PID 1 is spared when memory is used up, which commands must not be.
    pub(super) spared: bool,
    null: Rc<OwnedFd>,
    terminals: io::Result<Terminals>,
}

impl Launcher {
    /// Opens what commands need while the file tree is as the sandbox was made.
    ///
    /// # Errors
    /// `InvalidInput` if there is no seccomp filter that can be installed.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let weaken = if cfg!(feature = "weaken") {
            config.weaken
        } else {
            0
        };
        let filter = if weaken & weaken::SECCOMP == 0 {
            Some(Filter::from_bytes(&config.seccomp).ok_or(io::ErrorKind::InvalidInput)?)
        } else {
            None
        };
        Ok(Self {
            env: config.env.clone(),
            filter,
            weaken,
            limit: DescriptorLimit::raise()?,
            max_processes: config.max_processes,
            spared: is_spared(),
            null: Rc::new(open_null()?.into()),
            terminals: Terminals::open(),
        })
    }

    /// Forks a process that waits to become a command.
    ///
    /// # Errors
    /// A refusal that says which limit was reached.
    pub(super) fn recruit(&self, cgroups: &mut Cgroups) -> Result<Recruit, Refusal> {
        let step = |what: &'static str| move |error: io::Error| Refusal::system(what, &error);
        let pair = socket::pair().map_err(step("make the command's pipes"))?;
        let (orders, theirs) = pair;
        let heard = Flag::new().map_err(step("make the command's pipes"))?;
        pipe::set_nonblocking(orders.as_fd(), true).map_err(step("make the command's pipes"))?;
        let cgroup = cgroups.take().map_err(step("make the command's cgroup"))?;
        match fork(cgroup.as_ref().map(|cgroup| cgroup.directory())) {
            Ok(Forked::Child) => child::await_orders(self, theirs.as_fd(), &heard),
            Ok(Forked::Parent(pid)) => {
                let group = Group::new(pid, cgroup);
                Ok(Recruit {
                    pid,
                    group,
                    orders,
                    heard,
                })
            }
            Err(error) => {
                cgroups.put_back(cgroup);
                Err(Refusal::system("start another process", &error))
            }
        }
    }

    /// Starts a command, with `ring` for its output and in the process in `reserve`, if there are any.
    ///
    /// # Errors
    /// A refusal that says which limit was reached or what of `spawn` makes no sense.
    pub(super) fn start(
        &self,
        spawn: &Spawn,
        ring: Option<Ring>,
        reserve: &mut Option<Recruit>,
        cgroups: &mut Cgroups,
    ) -> Result<Launched, Refusal> {
        check(spawn)?;
        let step = |what: &'static str| move |error: io::Error| Refusal::system(what, &error);
        self.check_processes()
            .map_err(step("start another process"))?;
        let ring = ring
            .map_or_else(Ring::new, Ok)
            .map_err(step("keep the command's output"))?;
        let ends = self.ends(spawn).map_err(step("make the command's pipes"))?;
        let order = Order {
            message: spawn.encode(),
            standard: ends.standard.each_ref().map(Rc::clone),
        };
        // Root of the sandbox may have killed or stopped one in reserve.
        if let Some(recruit) = reserve.take() {
            let _ = recruit.group.signal(libc::SIGCONT);
            match recruit.take(&order) {
                Taken::Yes => return Ok(ends.launched(recruit, Some(order), ring)),
                Taken::Gone | Taken::Refused(_) => cgroups.retire(recruit.group),
            }
        }
        let recruit = self.execute(&order, cgroups)?;
        Ok(ends.launched(recruit, None, ring))
    }

    /// Has a new process become what `order` says.
    ///
    /// # Errors
    /// A refusal that says which limit was reached.
    pub(super) fn execute(&self, order: &Order, cgroups: &mut Cgroups) -> Result<Recruit, Refusal> {
        let recruit = self.recruit(cgroups)?;
        match recruit.take(order) {
            // Killed on its way to the program, it is a command that was killed.
            Taken::Yes | Taken::Gone => Ok(recruit),
            Taken::Refused(refusal) => {
                cgroups.retire(recruit.group);
                Err(refusal)
            }
        }
    }

    /// Refuses one more process where the limit is one on users: it does not hold for what PID 1 starts itself.
    fn check_processes(&self) -> io::Result<()> {
        // Among the processes of the host there is nothing to count.
        if self.max_processes == 0 || self.weaken & weaken::PROCESSES != 0 {
            return Ok(());
        }
        let is_process = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
        let entries = std::fs::read_dir("/proc")?.flatten();
        let processes = entries.filter(|entry| is_process(entry.file_name().as_encoded_bytes()));
        if processes.count() as u64 >= self.max_processes {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        Ok(())
    }

    /// Makes the descriptors of a command, both ends.
    fn ends(&self, spawn: &Spawn) -> io::Result<Ends> {
        if let Some((rows, columns)) = spawn.pty {
            return self.terminal_ends(rows, columns);
        }
        let (given_in, stdin) = if spawn.stdin {
            let (reader, writer) = io::pipe()?;
            pipe::set_nonblocking(writer.as_fd(), true)?;
            (Rc::new(reader.into()), Stdin::new(writer.into(), false))
        } else {
            (Rc::clone(&self.null), Stdin::none())
        };
        let (given_out, stdout) = output(stream::STDOUT)?;
        let mut streams = vec![stdout];
        let given_err = if spawn.merge_stderr {
            Rc::clone(&given_out)
        } else {
            let (given_err, stderr) = output(stream::STDERR)?;
            streams.push(stderr);
            given_err
        };
        Ok(Ends {
            standard: [given_in, given_out, given_err],
            streams,
            stdin,
            terminal: None,
        })
    }

    fn terminal_ends(&self, rows: u16, columns: u16) -> io::Result<Ends> {
        let terminals = self
            .terminals
            .as_ref()
            .map_err(|error| io::Error::from(error.kind()))?;
        let (master, slave) = terminals.create(rows, columns)?;
        let slave = Rc::new(slave);
        Ok(Ends {
            standard: [&slave; 3].map(Rc::clone),
            streams: vec![Stream::new(
                stream::PTY,
                pipe::duplicate(master.as_fd(), FIRST_FREE)?,
                true,
            )],
            stdin: Stdin::new(pipe::duplicate(master.as_fd(), FIRST_FREE)?, true),
            terminal: Some(Terminal {
                master,
                slave: Some(slave),
            }),
        })
    }
}

/// Makes the pipe of an output stream: the command's end, and ours.
fn output(number: u8) -> io::Result<(Rc<OwnedFd>, Stream)> {
    let (reader, writer) = io::pipe()?;
    pipe::set_nonblocking(reader.as_fd(), true)?;
    let stream = Stream::new(number, reader.into(), false);
    Ok((Rc::new(writer.into()), stream))
}

/// The descriptors of a command: those it is given as standard input, output and error, and our ends of them.
#[derive(Debug)]
struct Ends {
    standard: [Rc<OwnedFd>; 3],
    streams: Vec<Stream>,
    stdin: Stdin,
    terminal: Option<Terminal>,
}

impl Ends {
    fn launched(self, recruit: Recruit, order: Option<Order>, ring: Ring) -> Launched {
        let heard = recruit.heard;
        Launched {
            pid: recruit.pid,
            group: recruit.group,
            start: Start {
                status: recruit.orders,
                again: order.map(|order| (heard, order)),
            },
            streams: self.streams,
            stdin: self.stdin,
            terminal: self.terminal,
            ring,
        }
    }
}

/// What a process is to become.
#[derive(Debug)]
pub(super) struct Order {
    /// An encoded [`Spawn`].
    message: Vec<u8>,
    /// Standard input, output and error.
    standard: [Rc<OwnedFd>; 3],
}

/// A process that waits to become a command. It ends if this is dropped.
#[derive(Debug)]
pub(super) struct Recruit {
    pub(super) pid: u32,
    pub(super) group: Group,
    /// Takes an order; then says why it cannot be followed, or is closed when the program runs.
    pub(super) orders: OwnedFd,
    /// Raised once an order is going to be followed.
    heard: Flag,
}

impl Recruit {
    /// Gives it an order.
    fn take(&self, order: &Order) -> Taken {
        let standard = order.standard.each_ref().map(|fd| fd.as_fd());
        match socket::send(self.orders.as_fd(), &order.message, &standard) {
            Ok(()) => Taken::Yes,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.last_words(),
            Err(error) => Taken::Refused(Refusal::system("start another process", &error)),
        }
    }

    /// What it said before it ended.
    fn last_words(&self) -> Taken {
        let said = socket::receive(self.orders.as_fd()).ok().flatten();
        match said.map(|message| Event::decode(&message.bytes)) {
            Some(Ok(Event::Failed { failure, message })) => {
                Taken::Refused(Refusal { failure, message })
            }
            _ => Taken::Gone,
        }
    }
}

/// Whether a process has taken an order.
#[derive(Debug)]
enum Taken {
    Yes,
    /// It was killed.
    Gone,
    /// It said that it cannot.
    Refused(Refusal),
}

/// Refuses what no program could be started with.
pub(super) fn check(spawn: &Spawn) -> Result<(), Refusal> {
    let has_nul = |blob: &Blob| blob.0.contains(&0);
    if spawn.argv.is_empty() {
        return Err(Refusal::invalid("the command has no program"));
    }
    if spawn.argv.iter().any(has_nul) {
        return Err(Refusal::invalid(
            "an argument has a NUL byte, which no program can be given",
        ));
    }
    check_env(&spawn.env)?;
    if spawn.cwd.as_ref().is_some_and(has_nul) {
        return Err(Refusal::invalid(
            "the working directory has a NUL byte in its name",
        ));
    }
    if spawn.tag.as_ref().is_some_and(|tag| tag.len() > MAX_TAG) {
        return Err(Refusal::invalid(format!(
            "the label of the command is longer than {MAX_TAG} bytes"
        )));
    }
    Ok(())
}

/// Refuses variables that no program could be given.
pub(super) fn check_env(env: &[(Blob, Blob)]) -> Result<(), Refusal> {
    let has_nul = |blob: &Blob| blob.0.contains(&0);
    for (name, value) in env {
        let shown = String::from_utf8_lossy(&name.0);
        if name.0.is_empty() || name.0.contains(&b'=') || has_nul(name) {
            return Err(Refusal::invalid(format!(
                "environment variable {shown:?} has a name that cannot be set"
            )));
        }
        if has_nul(value) {
            return Err(Refusal::invalid(format!(
                "environment variable {shown:?} has a NUL byte in its value"
            )));
        }
    }
    Ok(())
}

/// Opens `/dev/null`, and makes sure that no other descriptor gets one of the numbers that commands start with.
fn open_null() -> io::Result<File> {
    loop {
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        if null.as_raw_fd() >= FIRST_FREE {
            return Ok(null);
        }
        std::mem::forget(null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_agent::protocol::agent::Failure;

    fn spawn() -> Spawn {
        Spawn {
            argv: vec!["true".into()],
            env: vec![("A".into(), "".into())],
            cwd: None,
            user: None,
            merge_stderr: false,
            stdin: false,
            pty: None,
            timeout_ms: 0,
            grace_ms: 0,
            tag: Some("x".repeat(MAX_TAG)),
        }
    }

    #[test]
    fn what_no_program_can_be_given_is_refused() {
        assert!(check(&spawn()).is_ok());
        let bad: [fn(&mut Spawn); 8] = [
            |spawn| spawn.argv.clear(),
            |spawn| spawn.argv.push("a\0b".into()),
            |spawn| spawn.env.push(("".into(), "x".into())),
            |spawn| spawn.env.push(("A=B".into(), "x".into())),
            |spawn| spawn.env.push(("A\0".into(), "x".into())),
            |spawn| spawn.env.push(("A".into(), "x\0".into())),
            |spawn| spawn.cwd = Some("/\0".into()),
            |spawn| spawn.tag = Some("x".repeat(MAX_TAG + 1)),
        ];
        for change in bad {
            let mut spawn = spawn();
            change(&mut spawn);
            let refusal = check(&spawn).unwrap_err();
            assert_eq!(refusal.failure, Failure::Invalid {}, "{}", refusal.message);
        }
    }
}
