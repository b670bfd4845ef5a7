//! What a sandbox uses.

use crate::{
    case::Case,
    failure::{Result, Stop, ensure, same},
    process::{sh, start},
    spec::cases,
};
use sandbox_core::{Command, ErrorKind, Sandbox, SandboxExt, Usage};
use std::time::Duration;

cases! { "metrics":
    looking_changes_nothing [Metrics],
    processor_time_is_counted [Metrics, Shell],
    processes_are_counted [Metrics, Shell],
    files_are_counted [Metrics, Shell],
    memory_is_counted [Metrics, Shell],
    it_can_be_measured_while_paused [Metrics, Pause],
}

async fn usage(sandbox: &dyn Sandbox) -> Result<Usage> {
    Ok(sandbox.require_metrics()?.usage().await?)
}

/// A number that a provider need not know.
fn known<T>(number: Option<T>, what: &str) -> Result<T> {
    number.ok_or_else(|| Stop::Ignored(format!("the provider does not know {what}")))
}

async fn looking_changes_nothing(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let (one, two) = (usage(&*sandbox).await?, usage(&*sandbox).await?);
    same(one.processes, two.processes, "processes, asked twice")?;
    sandbox.kill().await?;
    let gone = sandbox.require_metrics()?.usage().await;
    crate::failure::refused(gone, ErrorKind::SandboxNotFound, "usage after the end")
}

async fn processor_time_is_counted(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let before = known(usage(&*sandbox).await?.cpu_time, "processor time")?;
    // Its own clock says how much it has used at least: the process has ended then, and counts all the same.
    sh(
        &*sandbox,
        "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done",
    )
    .await?;
    let after = known(usage(&*sandbox).await?.cpu_time, "processor time")?;
    let used = after.saturating_sub(before);
    let fits = (Duration::from_millis(10)..Duration::from_secs(60)).contains(&used);
    ensure(
        fits,
        format_args!("counting to 200,000 took {used:?} of processor time"),
    )
}

async fn processes_are_counted(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    known(usage(&*sandbox).await?.processes, "processes")?;
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    same(
        usage(&*sandbox).await?.processes,
        Some(3),
        "processes of a command",
    )?;
    command
        .process
        .control()
        .signal(sandbox_core::Signal::KILL)
        .await?;
    command.end().await?;
    let patience = case.patience("the end of its processes");
    while usage(&*sandbox).await?.processes != Some(0) {
        patience.rest().await?;
    }
    Ok(())
}

async fn files_are_counted(case: &Case) -> Result {
    const SIZE: u64 = 4 * 1024 * 1024;
    let sandbox = case.sandbox().await?;
    let before = usage(&*sandbox).await?;
    let (bytes, files) = (
        known(before.disk, "the disk")?,
        known(before.inodes, "files")?,
    );
    sh(
        &*sandbox,
        &format!("mkdir d; head -c {SIZE} /dev/urandom > d/file; sync d/file"),
    )
    .await?;
    let after = usage(&*sandbox).await?;
    let more = after.disk.unwrap_or(0).saturating_sub(bytes);
    ensure(
        (SIZE..2 * SIZE).contains(&more),
        format_args!("a file of {SIZE} bytes took {more} on disk"),
    )?;
    ensure(
        after.inodes >= Some(files + 2),
        "a file and a directory were not counted",
    )
}

async fn memory_is_counted(case: &Case) -> Result {
    const SIZE: u64 = 32 * 1024 * 1024;
    let sandbox = case.sandbox().await?;
    let before = known(usage(&*sandbox).await?.memory, "memory")?;
    sh(
        &*sandbox,
        &format!("head -c {SIZE} /dev/zero > /dev/shm/file"),
    )
    .await?;
    let after = known(usage(&*sandbox).await?.memory, "memory")?;
    ensure(
        after >= before + SIZE / 2,
        format_args!("{SIZE} bytes more made {before} to {after}"),
    )
}

async fn it_can_be_measured_while_paused(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.require_pause()?.pause().await?;
    usage(&*sandbox).await?;
    let state = sandbox.info().await?.state;
    same(
        state,
        sandbox_core::SandboxState::Paused,
        "state afterwards",
    )
}
