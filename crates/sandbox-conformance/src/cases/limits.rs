//! Ceilings and the network, where the provider's report says that they hold.

use crate::{
    case::Case,
    failure::{Result, Stop, ensure, refused, same},
    process::{contains, sh, start},
    spec::cases,
};
use sandbox_core::{
    Command, CreateOptions, Enforcement, ErrorKind, ExitStatus, FilesExt, Limits, NetworkPolicy,
    Sandbox, SandboxExt,
};
use std::{net::TcpListener, sync::Arc};

cases! { "limits":
    memory_ends_the_offender_alone [Shell],
    processes_are_capped [Shell],
    a_full_disk_is_told_and_can_be_cleaned [Shell],
    network_off_reaches_nothing [Shell],
}

/// A sandbox with `options`, if the report says that `wall` holds there.
async fn walled(case: &Case, wall: &str, options: CreateOptions) -> Result<Arc<dyn Sandbox>> {
    let report = case.provider().enforcement(&options);
    match report.wall(wall) {
        Some(wall) if wall.enforcement == Enforcement::Enforced => {}
        Some(wall) => return Err(Stop::Ignored(format!("`{}`: {}", wall.name, wall.detail))),
        None => return Err(Stop::Ignored(format!("the report has no wall `{wall}`"))),
    }
    case.sandbox_with(options).await
}

async fn memory_ends_the_offender_alone(case: &Case) -> Result {
    let options = case
        .options()
        .limits(Limits::new().memory(128 * 1024 * 1024));
    let sandbox = walled(case, "memory", options).await?;
    let script = "echo $$ > bystander; echo ready; exec sleep 1000";
    let mut bystander = start(&*sandbox, Command::shell(script)).await?;
    bystander.until("ready\n").await?;
    // tail keeps the last line, and this input is one line without end.
    let output = sandbox.exec(Command::new("tail").arg("/dev/zero")).await?;
    same(
        output.status,
        ExitStatus::OutOfMemory,
        "the exit of a command that takes all memory",
    )?;
    sh(&*sandbox, "kill -0 $(cat bystander)").await?;
    Ok(())
}

async fn processes_are_capped(case: &Case) -> Result {
    let options = case.options().limits(Limits::new().processes(32));
    let sandbox = walled(case, "processes", options).await?;
    // Not bash, which tries again for a long while.
    let bomb = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let output = sandbox.exec(Command::new("sh").args(["-c", bomb])).await?;
    let all = output.status.success() && contains(&output.stdout, b"all");
    ensure(!all, "100 processes run where 32 are allowed")
}

async fn a_full_disk_is_told_and_can_be_cleaned(case: &Case) -> Result {
    const DISK: u64 = 16 * 1024 * 1024;
    let limits = Limits::new().memory(8 * DISK).disk(DISK);
    let sandbox = walled(case, "disk", case.options().limits(limits)).await?;
    let fill = "head -c 64000000 /dev/zero > fill";
    let output = sandbox.exec(Command::shell(fill)).await?;
    same(
        output.status.code(),
        1,
        "the exit of a command that fills the disk",
    )?;
    let written = sandbox.files().write_bytes("more", vec![1; 1 << 20]).await;
    refused(written, ErrorKind::StorageFull, "a write to a full disk")?;
    let clean = "rm -f fill more; echo after > note; cat note";
    same(
        sh(&*sandbox, clean).await?.as_str(),
        "after",
        "after cleaning",
    )
}

async fn network_off_reaches_nothing(case: &Case) -> Result {
    let options = case.options().network(NetworkPolicy::Off);
    let sandbox = walled(case, "network", options).await?;
    let listener = TcpListener::bind("0.0.0.0:0").map_err(Stop::failed)?;
    listener.set_nonblocking(true).map_err(Stop::failed)?;
    let port = listener.local_addr().map_err(Stop::failed)?.port();
    let script = format!("(exec 3<>/dev/tcp/127.0.0.1/{port}) && echo connected");
    let output = sandbox.exec(Command::shell(script)).await?;
    ensure(
        !output.status.success(),
        "connected to a port of the caller's machine",
    )?;
    ensure(
        listener.accept().is_err(),
        "the caller's machine was connected to",
    )
}
