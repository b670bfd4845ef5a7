//! The protocol of a process: which events come, what a cursor counts, and what dropping does.

use crate::{
    case::Case,
    failure::{Result, Stop, ensure, refused, same},
    process::{Heard, sh, start},
    spec::cases,
};
use sandbox_core::{Command, ErrorKind, ExitStatus, FilesExt, ProcessEvent, PtySize};
use std::time::Duration;

cases! { "process":
    started_is_first_and_exited_last [Shell],
    a_pid_is_that_of_the_sandbox [Shell],
    ids_are_never_shared [Shell],
    the_cursor_counts_every_byte [Shell],
    nothing_is_lost_when_a_wait_is_given_up [Shell],
    dropping_detaches_and_does_not_kill [Shell],
    a_program_does_not_wait_for_a_reader_that_left [Shell],
    a_command_without_a_terminal_cannot_be_resized [Shell],
}

async fn started_is_first_and_exited_last(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let commands = [
        Command::new("true"),
        Command::shell("echo out; echo err >&2; exit 3"),
        Command::new("conformance-no-such-program"),
        Command::shell("echo said; sleep 1000").timeout(Duration::from_secs(1)),
    ];
    for command in commands {
        let what = format!("{:?}", command.program);
        let mut process = sandbox.spawn(command).await?;
        let mut events = Vec::new();
        while let Some(event) = process.try_next().await? {
            events.push(event);
        }
        let started = |event: &ProcessEvent| matches!(event, ProcessEvent::Started { .. });
        let exited = |event: &ProcessEvent| matches!(event, ProcessEvent::Exited(_));
        same(
            events.iter().position(started),
            Some(0),
            format_args!("{what}: where it started"),
        )?;
        same(
            events.iter().filter(|event| started(event)).count(),
            1,
            format_args!("{what}: starts"),
        )?;
        let last = events.len() - 1;
        same(
            events.iter().position(exited),
            Some(last),
            format_args!("{what}: where it exited"),
        )?;
        same(
            process.try_next().await?,
            None,
            format_args!("{what}: after the last event"),
        )?;
        let empty = events.iter().any(|event| {
            matches!(event, ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) if bytes.is_empty())
        });
        ensure(!empty, format_args!("{what}: an output event is empty"))?;
    }
    Ok(())
}

async fn a_pid_is_that_of_the_sandbox(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut process = sandbox.spawn(Command::shell("exec sleep 1000")).await?;
    let Some(ProcessEvent::Started { pid }) = process.try_next().await? else {
        return Err(Stop::failed("the first event is not the start"));
    };
    let Some(pid) = pid else {
        return Err(Stop::Ignored("the provider tells no pid".into()));
    };
    sh(&*sandbox, &format!("kill -9 {pid}")).await?;
    same(
        process.wait().await?.code(),
        137,
        "exit of the process with that pid",
    )
}

async fn ids_are_never_shared(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let mut process = sandbox.spawn(Command::new("true")).await?;
        process.wait().await?;
        ensure(ids.insert(process.id().clone()), "an id was used again")?;
    }
    Ok(())
}

async fn the_cursor_counts_every_byte(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "echo 12345; echo 123 >&2; head -c 100000 /dev/zero";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    same(command.process.cursor(), 0, "cursor at the start")?;
    while command.next().await?.is_some() {
        same(
            command.process.cursor(),
            command.total(),
            "cursor after an event",
        )?;
    }
    same(command.process.cursor(), 100_010, "cursor at the end")
}

async fn nothing_is_lost_when_a_wait_is_given_up(case: &Case) -> Result {
    const SIZE: usize = 4 * 1024 * 1024;
    let sandbox = case.sandbox().await?;
    let script = format!("until [ -e go ]; do sleep 0.05; done; yes | head -c {SIZE}; exit 4");
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    let mut given_up = 0;
    loop {
        // Polls once and drops the future, unless the event is there already.
        match tokio::time::timeout(Duration::ZERO, command.process.try_next()).await {
            Err(_) => {
                given_up += 1;
                if given_up == 3 {
                    // Only now there is something to lose.
                    sandbox.files().write_bytes("go", "").await?;
                }
            }
            Ok(event) => match event? {
                Some(ProcessEvent::Stdout(bytes)) => command.stdout.extend_from_slice(&bytes),
                Some(ProcessEvent::Exited(status)) => {
                    same(status, ExitStatus::Code(4), "exit")?;
                    break;
                }
                _ => {}
            },
        }
        tokio::task::yield_now().await;
    }
    let right = command.stdout == "y\n".repeat(SIZE / 2).as_bytes();
    let len = command.stdout.len();
    ensure(right, format_args!("output of {len} bytes differs"))
}

async fn dropping_detaches_and_does_not_kill(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "echo ready; until [ -e go ]; do sleep 0.05; done; echo went > gone";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    drop(command);
    sh(&*sandbox, "touch go").await?;
    let patience = case.patience("a command to go on after its handle was dropped");
    while !sandbox.files().exists("gone").await? {
        patience.rest().await?;
    }
    Ok(())
}

async fn a_program_does_not_wait_for_a_reader_that_left(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "echo ready; until [ -e go ]; do sleep 0.05; done; head -c 33554432 /dev/zero; echo x > written";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    drop(command);
    sh(&*sandbox, "touch go").await?;
    let patience = case.patience("a command to write 32 MiB that nobody reads");
    while !sandbox.files().exists("written").await? {
        patience.rest().await?;
    }
    Ok(())
}

async fn a_command_without_a_terminal_cannot_be_resized(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = Heard::new(
        sandbox
            .spawn(Command::shell("echo ready; sleep 1000"))
            .await?,
    );
    command.until("ready\n").await?;
    let resized = command.process.control().resize(PtySize::default()).await;
    refused(resized, ErrorKind::InvalidState, "resize")
}
