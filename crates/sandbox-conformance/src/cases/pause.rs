//! Rest without loss: what stops, what still answers, and what the clocks do meanwhile.

use crate::{
    case::Case,
    failure::{Result, ensure, refused, same, same_bytes},
    process::{Heard, sh, start},
    spec::cases,
};
use futures_util::{TryStreamExt, future::try_join};
use sandbox_core::{
    Command, ConnectOptions, ErrorKind, ExitStatus, Expiry, FilesExt, ListOptions, Position,
    Sandbox, SandboxExt, SandboxState, Signal, Stdin,
};
use std::time::Duration;

cases! { "pause":
    keeps_files_and_resume_goes_on [Pause],
    twice_is_once [Pause],
    a_list_shows_it [Pause],
    nothing_is_started_meanwhile [Pause],
    a_paused_sandbox_can_be_killed [Pause],
    connecting_reaches_it [Pause],
    a_command_stops_and_goes_on [Pause, Shell, Stdin],
    what_was_said_can_be_read_meanwhile [Pause, Shell, Attach],
    a_paused_command_can_be_killed [Pause, Shell],
    a_signal_waits_for_the_end [Pause, Shell, Signals],
    its_time_does_not_count_for_a_timeout [Pause, Shell],
    its_time_counts_for_the_lifetime [Pause, Lifecycle],
    the_lifetime_may_end_in_a_pause [Pause, Lifecycle],
    a_sandbox_may_end_for_idleness [Shell],
    an_idle_sandbox_may_be_paused [Pause],
}

async fn state(sandbox: &dyn Sandbox) -> Result<SandboxState> {
    Ok(sandbox.info().await?.state)
}

async fn pause(sandbox: &dyn Sandbox) -> Result {
    sandbox.require_pause()?.pause().await?;
    let state = state(sandbox).await?;
    same(state, SandboxState::Paused, "state of a paused sandbox")
}

async fn resume(sandbox: &dyn Sandbox) -> Result {
    sandbox.require_pause()?.resume().await?;
    let state = state(sandbox).await?;
    same(state, SandboxState::Running, "state of a resumed sandbox")
}

async fn keeps_files_and_resume_goes_on(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("note", "here").await?;
    pause(&*sandbox).await?;
    resume(&*sandbox).await?;
    same_bytes(
        sandbox.files().read_bytes("note").await?,
        "here",
        "after resume",
    )?;
    if sandbox.capabilities().shell {
        let read = sh(&*sandbox, "cat note").await?;
        same(read, "here", "a command after resume")?;
    }
    Ok(())
}

async fn twice_is_once(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    resume(&*sandbox).await?;
    let again = sandbox.require_pause()?;
    try_join(again.pause(), again.pause()).await?;
    pause(&*sandbox).await?;
    try_join(again.resume(), again.resume()).await?;
    resume(&*sandbox).await
}

async fn a_list_shows_it(case: &Case) -> Result {
    let options = case.options().label("conformance", case.label());
    let sandbox = case.create(options).await?;
    pause(&*sandbox).await?;
    let wanted = [("conformance".to_owned(), case.label().to_owned())];
    let list = case
        .provider()
        .list(ListOptions::new().metadata(std::collections::BTreeMap::from(wanted)));
    let found: Vec<_> = list.try_collect().await?;
    let states: Vec<_> = found.iter().map(|info| (&info.id, info.state)).collect();
    same(
        states,
        vec![(sandbox.id(), SandboxState::Paused)],
        "in the list",
    )
}

async fn nothing_is_started_meanwhile(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    pause(&*sandbox).await?;
    let started = sandbox.spawn(Command::new("true")).await;
    refused(started, ErrorKind::InvalidState, "a command while paused")?;
    same(
        state(&*sandbox).await?,
        SandboxState::Paused,
        "state after a refusal",
    )
}

async fn a_paused_sandbox_can_be_killed(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut running = None;
    if sandbox.capabilities().shell {
        running = Some(start(&*sandbox, Command::shell("sleep 1000")).await?);
    }
    pause(&*sandbox).await?;
    same(sandbox.kill().await?, true, "kill while paused")?;
    refused(
        sandbox.info().await,
        ErrorKind::SandboxNotFound,
        "info after the end",
    )?;
    if let Some(running) = &mut running
        && let Ok(status) = running.process.wait().await
    {
        same(status.code(), 137, "the exit of a command in it")?;
    }
    Ok(())
}

async fn connecting_reaches_it(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    pause(&*sandbox).await?;
    let provider = case.provider();
    let again = provider
        .connect(sandbox.id(), ConnectOptions::new())
        .await?;
    // It may have been resumed by that, or not.
    resume(&*again).await
}

/// A command that answers each line.
async fn echo(sandbox: &dyn Sandbox) -> Result<Heard> {
    let script = "echo ready; while read line; do echo \"got $line\"; done";
    let mut heard = start(sandbox, Command::shell(script).stdin(Stdin::Open)).await?;
    heard.until("ready\n").await?;
    Ok(heard)
}

async fn a_command_stops_and_goes_on(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = echo(&*sandbox).await?;
    pause(&*sandbox).await?;
    let control = command.process.control();
    control.write_stdin("word\n".into()).await?;
    let silent = tokio::time::timeout(Duration::from_millis(300), command.process.try_next()).await;
    ensure(silent.is_err(), "a paused command goes on")?;
    resume(&*sandbox).await?;
    command.until("ready\ngot word\n").await?;
    control.close_stdin().await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")
}

async fn what_was_said_can_be_read_meanwhile(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    command.until("ready\n").await?;
    pause(&*sandbox).await?;
    let attach = sandbox.require_attach()?;
    let id = command.process.id();
    let listed = attach.processes().await?;
    ensure(
        listed
            .iter()
            .any(|info| info.id == *id && info.exit.is_none()),
        "the command is not listed",
    )?;
    let mut late = Heard::new(attach.attach(id, Position::Cursor(0)).await?);
    late.until("ready\n").await
}

async fn a_paused_command_can_be_killed(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    command.until("ready\n").await?;
    pause(&*sandbox).await?;
    command.process.control().signal(Signal::KILL).await?;
    same(command.end().await?.code(), 137, "exit")?;
    same(
        state(&*sandbox).await?,
        SandboxState::Paused,
        "state afterwards",
    )
}

async fn a_signal_waits_for_the_end(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    pause(&*sandbox).await?;
    command.process.control().signal(Signal::TERM).await?;
    resume(&*sandbox).await?;
    same(command.end().await?, ExitStatus::Code(7), "exit")?;
    same_bytes(&command.stdout, "ready\ntold\n", "output")
}

async fn its_time_does_not_count_for_a_timeout(case: &Case) -> Result {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let sandbox = case.sandbox().await?;
    let script = "echo ready; read line; echo $line";
    let limited = Command::shell(script).stdin(Stdin::Open).timeout(TIMEOUT);
    let mut command = start(&*sandbox, limited).await?;
    command.until("ready\n").await?;
    pause(&*sandbox).await?;
    // The fact to wait for is that its time would be over.
    tokio::time::sleep(TIMEOUT).await;
    let control = command.process.control();
    control.write_stdin("in time\n".into()).await?;
    resume(&*sandbox).await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")
}

async fn its_time_counts_for_the_lifetime(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    pause(&*sandbox).await?;
    let lifecycle = sandbox.require_lifecycle()?;
    lifecycle.set_lifetime(Duration::from_secs(1)).await?;
    let patience = case.patience("the paused sandbox to expire");
    while sandbox.info().await.is_ok() {
        patience.rest().await?;
    }
    let info = sandbox.info().await;
    refused(info, ErrorKind::SandboxNotFound, "info after the end")
}

async fn paused_by_itself(case: &Case, sandbox: &dyn Sandbox) -> Result {
    let patience = case.patience("the sandbox to be paused");
    while state(sandbox).await? != SandboxState::Paused {
        patience.rest().await?;
    }
    let end = sandbox.info().await?.expires_at;
    same(end, None, "the end of one that was paused by its own clock")
}

async fn the_lifetime_may_end_in_a_pause(case: &Case) -> Result {
    let options = case.options().on_expiry(Expiry::Pause);
    let options = options.lifetime(Duration::from_secs(2));
    let sandbox = case.sandbox_with(options).await?;
    sandbox.files().write_bytes("note", "here").await?;
    paused_by_itself(case, &*sandbox).await?;
    sandbox.require_pause()?.resume().await?;
    let lifecycle = sandbox.require_lifecycle()?;
    lifecycle.set_lifetime(Duration::from_secs(300)).await?;
    same(
        state(&*sandbox).await?,
        SandboxState::Running,
        "state of a resumed sandbox",
    )?;
    let read = sandbox.files().read_bytes("note").await?;
    same_bytes(read, "here", "after resume")?;
    // Without a word about the lifetime it begins anew, and so ends again.
    lifecycle.set_lifetime(Duration::from_secs(1)).await?;
    paused_by_itself(case, &*sandbox).await?;
    sandbox.require_pause()?.resume().await?;
    paused_by_itself(case, &*sandbox).await
}

async fn a_sandbox_may_end_for_idleness(case: &Case) -> Result {
    const IDLE: Duration = Duration::from_secs(2);
    let options = case.options().idle_timeout(IDLE);
    let sandbox = case.sandbox_with(options).await?;
    // Who follows a command uses the sandbox.
    let mut command = start(&*sandbox, Command::shell("sleep 4; echo done")).await?;
    command.until("done\n").await?;
    drop(command);
    let patience = case.patience("the idle sandbox to end");
    // To ask is no use.
    while sandbox.info().await.is_ok() {
        patience.rest().await?;
    }
    refused(
        sandbox.info().await,
        ErrorKind::SandboxNotFound,
        "info after the end",
    )
}

async fn an_idle_sandbox_may_be_paused(case: &Case) -> Result {
    let options = case.options().on_expiry(Expiry::Pause);
    let options = options.idle_timeout(Duration::from_secs(1));
    let sandbox = case.sandbox_with(options).await?;
    paused_by_itself(case, &*sandbox).await
}
