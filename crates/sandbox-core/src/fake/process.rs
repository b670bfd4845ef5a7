//! A process of a fake: its script's steps, taken one after the other by a task, and those who follow it.

use super::{
    call::{Call, Calls},
    script::{Script, Step},
};
use crate::{
    BoxStream, Bytes, Command, Error, ErrorKind, ExitStatus, Process, ProcessControl, ProcessEvent,
    ProcessId, ProcessInfo, Program, PtySize, Result, SandboxId, Signal, Stdin,
};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use tokio::sync::watch;

/// A process that runs or has ended.
#[derive(Debug)]
pub(super) struct FakeProcess {
    sandbox: SandboxId,
    id: ProcessId,
    number: u32,
    command: Command,
    pty: bool,
    calls: Arc<Calls>,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// All that was said, ready to be sent again to those who come later.
    events: Vec<ProcessEvent>,
    /// Why the events stopped before an exit.
    broken: Option<(ErrorKind, String)>,
    exit: Option<ExitStatus>,
    stdin: Vec<u8>,
    stdin_closed: bool,
    signals: Vec<Signal>,
}

impl State {
    fn is_over(&self) -> bool {
        self.exit.is_some() || self.broken.is_some()
    }

    fn end(&mut self, status: ExitStatus) {
        if !self.is_over() {
            self.exit = Some(status);
            self.events.push(ProcessEvent::Exited(status));
        }
    }

    fn stop(&mut self, kind: ErrorKind, message: impl Into<String>) {
        if !self.is_over() {
            self.broken = Some((kind, message.into()));
        }
    }
}

/// Bytes of output in an event.
fn len(event: &ProcessEvent) -> u64 {
    match event {
        ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) | ProcessEvent::Pty(bytes) => {
            bytes.len() as u64
        }
        ProcessEvent::Lost { bytes } => *bytes,
        _ => 0,
    }
}

impl FakeProcess {
    /// Starts to take the script's steps.
    pub(super) fn start(
        sandbox: &SandboxId,
        number: u32,
        command: Command,
        pty: bool,
        script: Script,
        calls: &Arc<Calls>,
    ) -> Arc<Self> {
        let pid = Some(number);
        let state = State {
            events: vec![ProcessEvent::Started { pid }],
            stdin_closed: command.stdin == Stdin::Closed && !pty,
            ..State::default()
        };
        let process = Arc::new(Self {
            sandbox: sandbox.clone(),
            id: ProcessId::new(number.to_string()),
            number,
            command,
            pty,
            calls: Arc::clone(calls),
            state: watch::Sender::new(state),
        });
        tokio::spawn(Arc::clone(&process).run(script));
        process
    }

    async fn run(self: Arc<Self>, script: Script) {
        for step in script.steps {
            self.take(step).await;
        }
        self.state
            .send_modify(|state| state.end(ExitStatus::Code(0)));
    }

    /// Takes one step, unless the process is over before.
    async fn take(&self, step: Step) {
        match step {
            Step::Stdout(bytes) => self.say(ProcessEvent::Stdout(bytes)),
            Step::Stderr(bytes) if self.command.merge_stderr => {
                self.say(ProcessEvent::Stdout(bytes));
            }
            Step::Stderr(bytes) => self.say(ProcessEvent::Stderr(bytes)),
            Step::Pty(bytes) => self.say(ProcessEvent::Pty(bytes)),
            Step::Lost(bytes) => self.say(ProcessEvent::Lost { bytes }),
            Step::Delay(time) => {
                let over = self.until(State::is_over);
                let _over = tokio::time::timeout(time, over).await;
            }
            Step::Gate(gate) => {
                let over = std::pin::pin!(self.until(State::is_over));
                futures_util::future::select(std::pin::pin!(gate.pass()), over).await;
            }
            Step::UntilStdin(text) => self.read(&text).await,
            Step::UntilStdinClosed => self.until(|state| state.stdin_closed).await,
            Step::UntilSignal(signal) => {
                self.until(|state| state.signals.contains(&signal)).await;
            }
            Step::Fail(kind, message) => self.state.send_modify(|state| state.stop(kind, message)),
            Step::Exit(status) => self.state.send_modify(|state| state.end(status)),
        }
    }

    fn say(&self, event: ProcessEvent) {
        self.state.send_modify(|state| {
            if len(&event) > 0 && !state.is_over() {
                state.events.push(event);
            }
        });
    }

    async fn until(&self, fact: impl Fn(&State) -> bool + Send + Sync) {
        let mut state = self.state.subscribe();
        // The sender is ours, so that waiting cannot fail.
        let _fact = state.wait_for(|state| state.is_over() || fact(state)).await;
    }

    /// Reads standard input up to the end of `text`.
    async fn read(&self, text: &[u8]) {
        let find = |input: &[u8]| match text.len() {
            0 => Some(0),
            len => input.windows(len).position(|window| window == text),
        };
        self.until(|state| find(&state.stdin).is_some()).await;
        self.state.send_modify(|state| {
            if let Some(at) = find(&state.stdin) {
                state.stdin.drain(..at + text.len());
            }
        });
    }

    /// The sandbox is gone.
    pub(super) fn abandon(&self) {
        self.state.send_modify(|state| {
            state.stop(ErrorKind::SandboxNotFound, "the sandbox has ended");
        });
    }

    pub(super) fn id(&self) -> &ProcessId {
        &self.id
    }

    pub(super) fn info(&self) -> ProcessInfo {
        let mut info = ProcessInfo::new(self.id.clone());
        let (Program::Path(program) | Program::Shell(program)) = &self.command.program;
        info.pid = Some(self.number);
        info.tag = self.command.tag.clone();
        info.argv = vec![program.clone()];
        info.argv.extend(self.command.args.iter().cloned());
        info.pty = self.pty;
        info.exit = self.state.borrow().exit;
        info
    }

    /// Bytes of output so far.
    pub(super) fn cursor(&self) -> u64 {
        self.state.borrow().events.iter().map(len).sum()
    }

    /// Its events from byte `from` of its output on.
    pub(super) fn follow(self: &Arc<Self>, from: u64) -> Process {
        let follower = Follower {
            process: Arc::clone(self),
            state: self.state.subscribe(),
            next: 0,
            skip: from,
            done: false,
        };
        let events: BoxStream<'static, _> = stream::unfold(follower, Follower::next).boxed();
        let control = Arc::clone(self);
        Process::new(self.id.clone(), events, control).with_cursor(from)
    }

    fn enter(&self, operation: &'static str) -> impl Future<Output = Result<()>> + Send + '_ {
        self.calls.enter(Call::of(operation, &self.sandbox))
    }

    fn check(&self, fact: bool, otherwise: &'static str) -> Result<()> {
        if fact {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::InvalidState, otherwise))
        }
    }
}

/// One reader.
struct Follower {
    process: Arc<FakeProcess>,
    state: watch::Receiver<State>,
    next: usize,
    /// Bytes of output that it does not want.
    skip: u64,
    done: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<ProcessEvent>, Self)> {
        while !self.done {
            let found = {
                let next = self.next;
                let there = |state: &State| state.events.len() > next || state.broken.is_some();
                let state = self.state.wait_for(there).await.ok()?;
                let broken = state.broken.clone();
                state.events.get(next).cloned().ok_or(broken)
            };
            let event = match found {
                Ok(event) => event,
                Err(broken) => {
                    self.done = true;
                    let (kind, message) = broken?;
                    let error =
                        Error::new(kind, message).with_context("process", self.process.id());
                    return Some((Err(error), self));
                }
            };
            self.next += 1;
            self.done = matches!(event, ProcessEvent::Exited(_));
            if let Some(event) = self.cut(event) {
                return Some((Ok(event), self));
            }
        }
        None
    }

    /// Takes off what lies before the place where this reader starts.
    fn cut(&mut self, event: ProcessEvent) -> Option<ProcessEvent> {
        let len = len(&event);
        let skipped = self.skip.min(len);
        self.skip -= skipped;
        if skipped == 0 {
            return Some(event);
        }
        let rest = |bytes: Bytes| bytes.slice(usize::try_from(skipped).unwrap_or(bytes.len())..);
        (skipped < len).then(|| match event {
            ProcessEvent::Stdout(bytes) => ProcessEvent::Stdout(rest(bytes)),
            ProcessEvent::Stderr(bytes) => ProcessEvent::Stderr(rest(bytes)),
            ProcessEvent::Pty(bytes) => ProcessEvent::Pty(rest(bytes)),
            ProcessEvent::Lost { bytes } => ProcessEvent::Lost {
                bytes: bytes - skipped,
            },
            other => other,
        })
    }
}

#[async_trait]
impl ProcessControl for FakeProcess {
    async fn write_stdin(&self, data: Bytes) -> Result<()> {
        self.enter("process.write_stdin").await?;
        let open = self.state.send_if_modified(|state| {
            let open = !state.stdin_closed && !state.is_over();
            if open {
                state.stdin.extend_from_slice(&data);
            }
            open
        });
        self.check(open, "standard input is closed, or the command has ended")
    }

    async fn close_stdin(&self) -> Result<()> {
        self.enter("process.close_stdin").await?;
        let open = self.command.stdin == Stdin::Open || self.pty;
        self.check(open, "standard input was not kept open")?;
        self.state.send_modify(|state| state.stdin_closed = true);
        Ok(())
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.enter("process.signal").await?;
        let running = self.state.send_if_modified(|state| {
            let running = !state.is_over();
            if running {
                state.signals.push(signal);
            }
            if running && signal == Signal::KILL {
                state.end(ExitStatus::Signal(signal.number()));
            }
            running
        });
        self.check(running, "the command has ended")
    }

    async fn resize(&self, _: PtySize) -> Result<()> {
        self.enter("process.resize").await?;
        self.check(self.pty, "the command has no terminal")
    }
}
