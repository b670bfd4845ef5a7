//! A sandbox's clock.

use crate::{
    case::Case,
    failure::{Result, ensure, refused, refused_as, same, same_bytes},
    process::start,
    spec::cases,
};
use sandbox_core::{Command, ErrorKind, FilesExt, Sandbox, SandboxExt, SandboxState};
use std::time::{Duration, SystemTime};

cases! { "lifecycle":
    set_lifetime_moves_the_end [Lifecycle],
    set_lifetime_can_shorten [Lifecycle],
    set_lifetime_can_extend [Lifecycle],
    senseless_lifetimes_are_invalid [Lifecycle],
    expiry_ends_running_commands [Lifecycle, Shell],
}

async fn expires(sandbox: &dyn Sandbox) -> Result<Option<SystemTime>> {
    Ok(sandbox.info().await?.expires_at)
}

async fn gone(case: &Case, sandbox: &dyn Sandbox) -> Result {
    let patience = case.patience("the sandbox to expire");
    while sandbox.info().await.is_ok() {
        patience.rest().await?;
    }
    refused(
        sandbox.info().await,
        ErrorKind::SandboxNotFound,
        "info after the end",
    )?;
    same(sandbox.kill().await?, false, "kill after the end")
}

async fn set_lifetime_moves_the_end(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let lifecycle = sandbox.require_lifecycle()?;
    lifecycle.set_lifetime(Duration::from_secs(100)).await?;
    let near = expires(&*sandbox).await?;
    lifecycle.set_lifetime(Duration::from_secs(250)).await?;
    let far = expires(&*sandbox).await?;
    if let (Some(near), Some(far)) = (near, far) {
        let moved = far.duration_since(near).unwrap_or_default();
        let fits = (100..250).contains(&moved.as_secs());
        ensure(
            fits,
            format_args!("100 s and then 250 s moved the end by {moved:?}"),
        )?;
    }
    lifecycle.set_lifetime(Duration::from_secs(100)).await?;
    let again = expires(&*sandbox).await?;
    ensure(
        again <= far,
        "a shorter lifetime did not bring the end nearer",
    )
}

async fn set_lifetime_can_shorten(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox
        .require_lifecycle()?
        .set_lifetime(Duration::from_secs(1))
        .await?;
    gone(case, &*sandbox).await
}

async fn set_lifetime_can_extend(case: &Case) -> Result {
    const FIRST: Duration = Duration::from_secs(4);
    let sandbox = case.sandbox_with(case.options().lifetime(FIRST)).await?;
    sandbox
        .require_lifecycle()?
        .set_lifetime(Duration::from_secs(300))
        .await?;
    sandbox.files().write_bytes("note", "here").await?;
    // The fact to wait for is that the first end has passed.
    tokio::time::sleep(FIRST + Duration::from_secs(1)).await;
    same_bytes(
        sandbox.files().read_bytes("note").await?,
        "here",
        "after the first end",
    )
}

async fn senseless_lifetimes_are_invalid(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let lifecycle = sandbox.require_lifecycle()?;
    let zero = lifecycle.set_lifetime(Duration::ZERO).await;
    refused(zero, ErrorKind::InvalidArgument, "no lifetime")?;
    if let Some(most) = sandbox.capabilities().max_lifetime {
        let more = lifecycle.set_lifetime(most + Duration::from_secs(1)).await;
        refused(
            more,
            ErrorKind::InvalidArgument,
            "more than the longest lifetime",
        )?;
    }
    if let error @ Err(_) = lifecycle.set_lifetime(Duration::MAX).await {
        refused_as(error, &[ErrorKind::InvalidArgument], "an endless lifetime")?;
    }
    same(
        sandbox.info().await?.state,
        SandboxState::Running,
        "state afterwards",
    )
}

async fn expiry_ends_running_commands(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    command.until("ready\n").await?;
    sandbox
        .require_lifecycle()?
        .set_lifetime(Duration::from_secs(1))
        .await?;
    match command.process.wait().await {
        Ok(status) => same(
            status.code(),
            137,
            "the exit of a command whose sandbox expired",
        ),
        error => refused(
            error,
            ErrorKind::SandboxNotFound,
            "a stream of an expired sandbox",
        ),
    }
}
