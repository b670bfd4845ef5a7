//! Following a process in a case: waits for a text, collects what was said, and runs scripts.

use crate::{
    failure::{Result, Stop, shown},
    spec::Need,
};
use sandbox_core::{Command, ExitStatus, Output, Process, ProcessEvent, Sandbox, SandboxExt};

/// A process and what it has said so far.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) process: Process,
    /// Standard output.
    pub(crate) stdout: Vec<u8>,
    /// Standard error.
    pub(crate) stderr: Vec<u8>,
    /// A terminal's output.
    pub(crate) terminal: Vec<u8>,
    /// Bytes that were dropped.
    pub(crate) lost: u64,
}

impl Heard {
    /// Starts to listen.
    pub(crate) fn new(process: Process) -> Self {
        Self {
            process,
            stdout: Vec::new(),
            stderr: Vec::new(),
            terminal: Vec::new(),
            lost: 0,
        }
    }

    /// Takes the next event; `None` after the exit.
    pub(crate) async fn next(&mut self) -> Result<Option<ProcessEvent>> {
        let event = self.process.try_next().await?;
        match &event {
            Some(ProcessEvent::Stdout(bytes)) => self.stdout.extend_from_slice(bytes),
            Some(ProcessEvent::Stderr(bytes)) => self.stderr.extend_from_slice(bytes),
            Some(ProcessEvent::Pty(bytes)) => self.terminal.extend_from_slice(bytes),
            Some(ProcessEvent::Lost { bytes }) => self.lost += bytes,
            _ => {}
        }
        Ok(event)
    }

    /// Listens until `text` has come on standard output or the terminal.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> impl Future<Output = Result> + Send {
        let early = Stop::failed(format_args!("the command ended before it said {text:?}"));
        let text = text.as_bytes().to_vec();
        async move {
            while !contains(&self.stdout, &text) && !contains(&self.terminal, &text) {
                if self.next().await?.is_none() {
                    return Err(self.explain(early));
                }
            }
            Ok(())
        }
    }

    /// Listens to the end.
    pub(crate) async fn end(&mut self) -> Result<ExitStatus> {
        while self.next().await?.is_some() {}
        self.process
            .exit()
            .ok_or_else(|| self.explain(Stop::failed("the command has no exit")))
    }

    /// All output, over all streams, dropped bytes included.
    pub(crate) fn total(&self) -> u64 {
        (self.stdout.len() + self.stderr.len() + self.terminal.len()) as u64 + self.lost
    }

    fn explain(&self, stop: Stop) -> Stop {
        let Stop::Failed(message) = stop else {
            return stop;
        };
        Stop::Failed(format!(
            "{message}\n  exit: {:?}\n  stdout: {}\n  stderr: {}\n  terminal: {}",
            self.process.exit(),
            shown(&self.stdout),
            shown(&self.stderr),
            shown(&self.terminal),
        ))
    }
}

/// Whether `text` is somewhere in `all`.
pub(crate) fn contains(all: &[u8], text: &[u8]) -> bool {
    text.is_empty() || all.windows(text.len()).any(|window| window == text)
}

/// Starts a command.
pub(crate) async fn start(sandbox: &dyn Sandbox, command: Command) -> Result<Heard> {
    Ok(Heard::new(sandbox.spawn(command).await?))
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn succeed<'a>(
    sandbox: &'a dyn Sandbox,
    command: Command,
) -> impl Future<Output = Result<Output>> + Send + 'a {
    let failed = Stop::failed(format_args!("{:?} should succeed", command.program));
    async move {
        let output = sandbox.exec(command).await?;
        if output.status.success() {
            return Ok(output);
        }
        let Stop::Failed(message) = failed else {
            return Err(failed);
        };
        Err(Stop::Failed(format!(
            "{message}\n  {}\n  stdout: {}\n  stderr: {}",
            output.status,
            shown(&output.stdout),
            shown(&output.stderr)
        )))
    }
}

/// Runs a script that must succeed, and gives its standard output as text without the newline at its end.
#[track_caller]
pub(crate) fn sh<'a>(
    sandbox: &'a dyn Sandbox,
    script: &str,
) -> impl Future<Output = Result<String>> + Send + 'a {
    let output = succeed(sandbox, Command::shell(script));
    async move {
        Ok(output
            .await?
            .stdout_text()
            .trim_end_matches('\n')
            .to_owned())
    }
}

/// Whether `need` is met, for cases that assert more where there is more.
pub(crate) fn has(sandbox: &dyn Sandbox, need: Need) -> bool {
    need.is_met(&sandbox.capabilities())
}
