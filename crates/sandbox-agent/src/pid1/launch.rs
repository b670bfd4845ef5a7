//! Starting a command: its cgroup, its descriptors, and the fork.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::agent::{Spawn, stream};
use sandbox_agent::protocol::zygote::weaken;

use super::Config;
use super::child::{self, Descriptors, Told};
use super::group::{Cgroups, Group};
use super::process::{Launched, Terminal};
use super::refusal::Refusal;
use super::ring::Ring;
use super::stdin::Stdin;
use super::stream::Stream;
use crate::sys::clone::{Forked, fork};
use crate::sys::pipe;
use crate::sys::program::{DescriptorLimit, Filter, has_oom_score};
use crate::sys::pty::Terminals;

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
    /// Whether PID 1 is spared when memory is used up, which commands must not be.
    pub(super) spared: bool,
    null: File,
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
            spared: has_oom_score(),
            null: open_null()?,
            terminals: Terminals::open(),
        })
    }

    /// Starts a command.
    ///
    /// # Errors
    /// A refusal that says which limit was reached or what of `spawn` makes no sense.
    pub(super) fn start(&self, spawn: &Spawn, cgroups: &mut Cgroups) -> Result<Launched, Refusal> {
        check(spawn)?;
        let step = |what: &'static str| move |error: io::Error| Refusal::system(what, &error);
        let ring = Ring::new().map_err(step("keep the command's output"))?;
        let ends = self.ends(spawn).map_err(step("make the command's pipes"))?;
        let (status, status_end) = io::pipe().map_err(step("make the command's pipes"))?;
        pipe::set_nonblocking(status.as_fd(), true).map_err(step("make the command's pipes"))?;
        let cgroup = cgroups.take().map_err(step("make the command's cgroup"))?;
        let directory = cgroup.as_ref().map(|cgroup| cgroup.directory());
        match fork(directory) {
            Ok(Forked::Child) => child::run(
                self,
                spawn,
                &self.env,
                &self.descriptors(&ends, status_end.as_fd()),
            ),
            Ok(Forked::Parent(pid)) => Ok(Launched {
                pid,
                group: Group::new(pid, cgroup),
                status: OwnedFd::from(status).into(),
                streams: ends.streams,
                stdin: ends.stdin,
                terminal: ends.terminal,
                ring,
            }),
            Err(error) => {
                cgroups.put_back(cgroup);
                Err(Refusal::system("start another process", &error))
            }
        }
    }

    fn descriptors<'a>(&'a self, ends: &'a Ends, status: BorrowedFd<'a>) -> Descriptors<'a> {
        let [stdin, stdout, stderr] = &ends.given;
        let null = self.null.as_fd();
        let stdout = stdout.as_ref().map_or(null, |fd| fd.as_fd());
        let slave = ends
            .terminal
            .as_ref()
            .and_then(|terminal| terminal.slave.as_ref());
        Descriptors {
            standard: match slave {
                Some(slave) => [slave.as_fd(); 3],
                None => [
                    stdin.as_ref().map_or(null, |fd| fd.as_fd()),
                    stdout,
                    stderr.as_ref().map_or(stdout, |fd| fd.as_fd()),
                ],
            },
            directory: None,
            told: Told::Host(status),
            terminal: slave.is_some(),
        }
    }

    /// Makes the descriptors of a command, both ends.
    fn ends(&self, spawn: &Spawn) -> io::Result<Ends> {
        if let Some((rows, columns)) = spawn.pty {
            return self.terminal_ends(rows, columns);
        }
        let mut ends = Ends {
            given: [None, None, None],
            streams: Vec::new(),
            stdin: Stdin::none(),
            terminal: None,
        };
        if spawn.stdin {
            let (reader, writer) = io::pipe()?;
            pipe::set_nonblocking(writer.as_fd(), true)?;
            ends.stdin = Stdin::new(writer.into(), false);
            ends.given[0] = Some(reader.into());
        }
        for (index, number) in [(1, stream::STDOUT), (2, stream::STDERR)] {
            if index == 2 && spawn.merge_stderr {
                break;
            }
            let (reader, writer) = io::pipe()?;
            pipe::set_nonblocking(reader.as_fd(), true)?;
            ends.streams.push(Stream::new(number, reader.into(), false));
            ends.given[index] = Some(writer.into());
        }
        Ok(ends)
    }

    fn terminal_ends(&self, rows: u16, columns: u16) -> io::Result<Ends> {
        let terminals = self
            .terminals
            .as_ref()
            .map_err(|error| io::Error::from(error.kind()))?;
        let (master, slave) = terminals.create(rows, columns)?;
        Ok(Ends {
            given: [None, None, None],
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

/// The descriptors of a command: those it is given, and our ends of them.
#[derive(Debug)]
struct Ends {
    given: [Option<OwnedFd>; 3],
    streams: Vec<Stream>,
    stdin: Stdin,
    terminal: Option<Terminal>,
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
    for (name, value) in &spawn.env {
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
            foreground: false,
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
