//! `sandbox attach`: joins this program's own streams to a command that runs already.

use super::exec;
use crate::{
    args::AttachArgs,
    output::{self, Stop},
    provider,
    session::{self, Left, Options},
    terminal::{self, RawMode},
};
use anyhow::{Context, Result, bail};
use sandbox::{Attach, Position, ProcessInfo, SandboxExt};
use std::path::Path;

pub(crate) async fn attach(state_dir: Option<&Path>, args: AttachArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    let attach = sandbox.require_attach()?;
    let command = find(attach, args.command, &args.id).await?;
    let from = if args.replay {
        Position::Cursor(0)
    } else {
        Position::Now
    };
    let process = attach.attach(&command.id, from).await;
    let process = process.with_context(|| format!("cannot join command {}", command.id))?;
    let terminal = command.pty && !args.no_stdin && terminal::is_interactive();
    if terminal {
        // It may have been made for another one.
        process.control().resize(terminal::size()).await.ok();
    }
    let _raw = terminal
        .then(RawMode::enable)
        .transpose()
        .context("cannot set up the terminal")?;
    let options = Options {
        stdin: !args.no_stdin,
        signals: !args.no_stdin,
        resize: terminal,
        joined: true,
    };
    let followed = if args.no_stdin {
        watch(process, options).await
    } else {
        session::follow(process, options).await
    };
    let status = match followed {
        Err(error) if error.is::<Left>() => {
            output::note(format!("command {} runs on", command.id));
            return Ok(0);
        }
        followed => followed?,
    };
    exec::explain(status, None);
    Ok(exec::code(status))
}

/// Only looks on: a signal ends this and nothing else.
async fn watch(process: sandbox::Process, options: Options) -> Result<sandbox::ExitStatus> {
    let mut signals = crate::signals::Signals::new()?;
    tokio::select! {
        status = session::follow(process, options) => status,
        signal = signals.next() => Err(Stop::Signal(signal).into()),
    }
}

/// The command of this number, or the newest that runs.
async fn find(attach: &dyn Attach, number: Option<u64>, sandbox: &str) -> Result<ProcessInfo> {
    let commands = attach.processes().await?;
    let Some(number) = number.map(|number| number.to_string()) else {
        let newest = commands
            .into_iter()
            .rev()
            .find(|command| command.exit.is_none());
        return newest.with_context(|| {
            format!("no command runs in it; `sandbox logs {sandbox}` shows what was printed")
        });
    };
    let found = commands
        .into_iter()
        .find(|command| command.id.as_str() == number);
    match found {
        Some(command) if command.exit.is_some() => bail!(
            "command {number} has ended; `sandbox logs {sandbox} {number}` shows what it has printed"
        ),
        Some(command) => Ok(command),
        None => bail!(
            "the sandbox knows no command {number}; `sandbox inspect {sandbox}` shows their numbers"
        ),
    }
}
