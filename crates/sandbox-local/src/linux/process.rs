//! Commands of a sandbox: checked, put on the wire, and followed.

use super::{
    sandbox::{Link, unexpected},
    shared::Sharing,
    socket::Connection,
    stdin::{self, Stdin, StdinLine},
};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use sandbox_agent::protocol::{
    Blob,
    agent::{Event, Exit, Position as WirePosition, Request, Spawn, stream as streams},
};
use sandbox_core::{
    Bytes, Command, Error, ErrorKind, ExitStatus, Position, Process, ProcessControl, ProcessEvent,
    ProcessId, Program, PtySize, Result, Signal,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Checks a command and puts it as the protocol has it.
pub(crate) fn to_wire(command: &Command, size: Option<PtySize>, shell: &str) -> Result<Spawn> {
    command.validate()?;
    let mut argv = match &command.program {
        Program::Path(program) => vec![program.clone()],
        Program::Shell(script) => {
            let name = shell.rsplit('/').next().unwrap_or(shell);
            vec![
                shell.into(),
                "-c".into(),
                "--".into(),
                script.clone(),
                name.into(),
            ]
        }
        _ => return Err(Error::unsupported("this kind of program")),
    };
    argv.extend(command.args.iter().cloned());
    let blob = |text: &String| Blob(text.as_bytes().to_vec());
    Ok(Spawn {
        argv: argv.iter().map(blob).collect(),
        env: command
            .env
            .iter()
            .map(|(name, value)| (blob(name), blob(value)))
            .collect(),
        cwd: command.cwd.as_ref().map(blob),
        user: command.user.clone(),
        merge_stderr: command.merge_stderr,
        stdin: command.stdin == sandbox_core::Stdin::Open,
        pty: size.map(|size| (size.rows, size.columns)),
        timeout_ms: command.timeout.map_or(0, |time| millis(time).max(1)),
        grace_ms: millis(command.grace.unwrap_or(Command::DEFAULT_GRACE)),
        tag: command.tag.clone(),
    })
}

fn millis(time: Duration) -> u64 {
    // Far beyond any lifetime, and still far from the end of the kernel's clocks.
    u64::try_from(time.as_millis())
        .unwrap_or(u64::MAX)
        .min(1 << 45)
}

/// Starts a command and follows it.
pub(crate) async fn spawn(link: &Arc<Link>, spawn: Spawn) -> Result<Process> {
    let stdin = match (spawn.stdin, spawn.pty) {
        (_, Some(_)) => Stdin::Terminal,
        (true, None) => Stdin::Pipe,
        (false, None) => Stdin::None,
    };
    let connection = link.open().await?;
    let request = Request::Spawn { spawn };
    connection
        .send(&request)
        .await
        .map_err(|error| link.failed(error))?;
    follow(link, connection, stdin).await
}

/// Follows a process that was started before.
pub(crate) async fn attach(link: &Arc<Link>, id: &ProcessId, from: Position) -> Result<Process> {
    let missing =
        || Error::new(ErrorKind::NotFound, "there is no such process").with_context("process", id);
    let process = id.as_str().parse().map_err(|_| missing())?;
    let from = match from {
        Position::Cursor(at) => WirePosition::Cursor { at },
        _ => WirePosition::Now {},
    };
    let connection = link.open().await?;
    let request = Request::Attach { process, from };
    connection
        .send(&request)
        .await
        .map_err(|error| link.failed(error))?;
    follow(link, connection, Stdin::Unknown).await
}

async fn follow(link: &Arc<Link>, connection: Connection, stdin: Stdin) -> Result<Process> {
    let (process, pid, at) = match link.receive(&connection).await? {
        Event::Started { process, pid, at } => (process, pid, at),
        other => return Err(unexpected(other)),
    };
    let ended = Arc::new(AtomicBool::new(false));
    let control = Arc::new(Control {
        link: Arc::clone(link),
        process,
        stdin: StdinLine::new(stdin),
        ended: Arc::clone(&ended),
    });
    let follower = Follower {
        link: Arc::clone(link),
        connection,
        sharing: Sharing::Unasked(0),
        behind: None,
        ended,
        done: false,
    };
    let started = stream::once(async move { Ok(ProcessEvent::Started { pid: Some(pid) }) });
    let events = started
        .chain(stream::unfold(follower, Follower::next))
        .boxed();
    Ok(Process::new(ProcessId::new(process.to_string()), events, control).with_cursor(at))
}

/// The reading end of an attachment. Dropping it detaches.
struct Follower {
    link: Arc<Link>,
    connection: Connection,
    sharing: Sharing,
    /// What comes after the notice of a loss.
    behind: Option<ProcessEvent>,
    /// Tells the controls that the exit has come.
    ended: Arc<AtomicBool>,
    done: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<ProcessEvent>, Self)> {
        if self.done {
            return None;
        }
        let event = match self.behind.take() {
            Some(event) => Ok(event),
            None => self.receive().await,
        };
        self.done |= event.is_err();
        Some((event, self))
    }

    async fn receive(&mut self) -> Result<ProcessEvent> {
        loop {
            let (event, fds) = self.link.receive_with_fds(&self.connection).await?;
            return match event {
                Event::Output { stream, at, data } => {
                    self.took(at, data.0.len()).await;
                    output(stream, data.0.into())
                }
                Event::Kept { stream, at, len } => self.fetch(stream, at, len).await,
                Event::Lost { bytes } => Ok(ProcessEvent::Lost { bytes }),
                Event::Exited { exit, .. } => {
                    self.done = true;
                    self.ended.store(true, Ordering::Relaxed);
                    Ok(ProcessEvent::Exited(to_status(exit)))
                }
                Event::StdinClosed {} => continue,
                Event::Shared {} => {
                    let given = self.sharing.given(fds);
                    given.map_err(|error| self.link.failed(error))?;
                    continue;
                }
                other => Err(unexpected(other)),
            };
        }
    }

    /// Takes output from the memory it lies in.
    async fn fetch(&mut self, stream: u8, at: u64, len: u32) -> Result<ProcessEvent> {
        let read = self.sharing.read(at, len);
        let (lost, data) = read.map_err(|error| self.link.failed(error))?;
        self.took(at, len as usize).await;
        let mut event = output(stream, data.into())?;
        if lost > 0 {
            let rest = std::mem::replace(&mut event, ProcessEvent::Lost { bytes: lost });
            self.behind = (lost < len.into()).then_some(rest);
        }
        Ok(event)
    }

    /// Tells PID 1 what was taken. If it hears nothing any more, it may still have sent what this reader has not seen, and
    /// the end of that says why.
    async fn took(&mut self, at: u64, len: usize) {
        let end = at.saturating_add(len as u64);
        let _ = self.sharing.saw(len, &self.connection).await;
        let _ = self.sharing.took(end, &self.connection).await;
    }
}

fn output(stream: u8, data: Bytes) -> Result<ProcessEvent> {
    match stream {
        streams::STDOUT => Ok(ProcessEvent::Stdout(data)),
        streams::STDERR => Ok(ProcessEvent::Stderr(data)),
        streams::PTY => Ok(ProcessEvent::Pty(data)),
        _ => Err(Error::new(
            ErrorKind::Protocol,
            "the sandbox named a stream that does not exist",
        )),
    }
}

pub(crate) fn to_status(exit: Exit) -> ExitStatus {
    match exit {
        Exit::Code { code } => ExitStatus::Code(code),
        Exit::Signal { signal } => ExitStatus::Signal(signal),
        Exit::TimedOut {} => ExitStatus::TimedOut,
        Exit::OutOfMemory {} => ExitStatus::OutOfMemory,
    }
}

#[derive(Debug)]
struct Control {
    link: Arc<Link>,
    process: u64,
    stdin: StdinLine,
    /// The exit has come.
    ended: Arc<AtomicBool>,
}

#[async_trait]
impl ProcessControl for Control {
    async fn write_stdin(&self, data: Bytes) -> Result<()> {
        let write = async {
            if self.ended.load(Ordering::Relaxed) {
                return Err(stdin::closed());
            }
            self.stdin.write(&self.link, self.process, &data).await
        };
        write
            .await
            .map_err(|error| error.with_operation("process.write_stdin"))
    }

    async fn close_stdin(&self) -> Result<()> {
        let close = self.stdin.close(&self.link, self.process);
        close
            .await
            .map_err(|error| error.with_operation("process.close_stdin"))
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let request = Request::Signal {
            process: self.process,
            signal: signal.number(),
            tree: false,
        };
        self.link
            .tell(&request)
            .await
            .map_err(|error| error.with_operation("process.signal"))
    }

    async fn resize(&self, size: PtySize) -> Result<()> {
        let request = Request::Resize {
            process: self.process,
            rows: size.rows,
            columns: size.columns,
        };
        self.link
            .tell(&request)
            .await
            .map_err(|error| error.with_operation("process.resize"))
    }
}
