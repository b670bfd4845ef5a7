//! `sandbox exec` and `sandbox shell`: commands in a sandbox that exists.

use crate::{
    args::{ExecArgs, ShellArgs},
    output::{self, Stop},
    provider,
    session::{self, Options},
    terminal::{self, RawMode},
};
use anyhow::{Context, Result, bail};
use sandbox::{Command, ExitStatus, Process, Sandbox, SandboxExt, Signal, Stdin};
use std::{path::Path, time::Duration};
use tokio::time;

const FAILURE: &str = "cannot start the command";

/// Takes the place of the shell that starts it, so that the terminal's signals reach the right one.
const SHELL: &str = "if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi";

pub(crate) async fn exec(state_dir: Option<&Path>, args: ExecArgs) -> Result<u8> {
    let mut words = args.command.into_iter();
    let program = words.next().context("a command is missing")?;
    let mut command = Command::new(program).args(words).stdin(Stdin::Open);
    command.env = args.env.into_iter().collect();
    command.cwd = args.cwd;
    command.user = args.user;
    command.timeout = args.timeout;
    let tty = !args.no_tty && (args.tty || terminal::is_interactive());
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    if args.detach {
        return detach(sandbox.as_ref(), command.stdin(Stdin::Closed)).await;
    }
    let status = perform(sandbox.as_ref(), command, tty, true).await?;
    explain(status, args.timeout);
    Ok(code(status))
}

/// Starts a command, prints its number, and leaves it running.
async fn detach(sandbox: &dyn Sandbox, command: Command) -> Result<u8> {
    // Without a reader the command waits for nobody.
    sandbox.require_attach()?;
    let process = sandbox.spawn(command).await.context(FAILURE)?;
    output::print(process.id())?;
    Ok(0)
}

pub(crate) async fn shell(state_dir: Option<&Path>, args: ShellArgs) -> Result<u8> {
    if !terminal::is_interactive() {
        bail!(
            "a shell needs a terminal; for a script use `sandbox exec {} -- sh`",
            args.id
        );
    }
    let mut command = Command::shell(SHELL);
    command.env = args.env.into_iter().collect();
    command.cwd = args.cwd;
    command.user = args.user;
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    let status = perform(sandbox.as_ref(), command, true, true).await?;
    Ok(code(status))
}

/// Runs a command to its end, joined to our own streams, on a terminal or not. With `signals`, requests to end go to
/// the command.
pub(crate) async fn perform(
    sandbox: &dyn Sandbox,
    command: Command,
    tty: bool,
    signals: bool,
) -> Result<ExitStatus> {
    let stdin = tty || command.stdin == Stdin::Open;
    let (process, _raw) = start(sandbox, command, tty).await?;
    let control = process.control();
    let options = Options {
        stdin,
        signals,
        resize: tty,
        joined: false,
    };
    let status = session::follow(process, options).await;
    if let Err(error) = &status
        && error.is::<Stop>()
    {
        // As a program whose reader has left would end on the spot. It may just have ended by itself, and its sandbox
        // may never answer.
        let _ = time::timeout(Command::DEFAULT_GRACE, control.signal(Signal::KILL)).await;
    }
    status
}

/// Starts a command; the terminal here is raw for as long as the second value lives.
async fn start(
    sandbox: &dyn Sandbox,
    mut command: Command,
    tty: bool,
) -> Result<(Process, Option<RawMode>)> {
    if !tty {
        return Ok((sandbox.spawn(command).await.context(FAILURE)?, None));
    }
    if let Ok(kind) = std::env::var("TERM") {
        command.env.entry("TERM".to_owned()).or_insert(kind);
    }
    let pty = sandbox.require_pty()?;
    let process = pty
        .spawn(command, terminal::size())
        .await
        .context(FAILURE)?;
    let raw = RawMode::enable().context("cannot set up the terminal")?;
    Ok((process, Some(raw)))
}

/// Says what an exit code alone would not.
pub(crate) fn explain(status: ExitStatus, timeout: Option<Duration>) {
    match status {
        ExitStatus::TimedOut => {
            let timeout = timeout.map_or_else(String::new, |timeout| {
                format!(" after {}", humantime::format_duration(timeout))
            });
            output::error(format!("timed out{timeout}; give it more with --timeout"));
        }
        ExitStatus::OutOfMemory => {
            output::error("out of memory; give the sandbox more with --memory");
        }
        ExitStatus::Signal(signal) if ![1, 2, 3, 13, 15].contains(&signal) => {
            let name = match signal {
                4 => " (illegal instruction)",
                6 => " (abort)",
                7 => " (bus error)",
                8 => " (arithmetic error)",
                9 => " (killed)",
                11 => " (segmentation fault)",
                31 => " (forbidden system call)",
                _ => "",
            };
            output::error(format!("ended by signal {signal}{name}"));
        }
        _ => {}
    }
}

/// The exit code to end with.
pub(crate) fn code(status: ExitStatus) -> u8 {
    u8::try_from(status.code() & 0xff).unwrap_or(crate::FAILED)
}
