//! A command's time: it ends the whole tree and keeps what was said.

use super::signals::{DOUBLE_FORK, gone};
use crate::{
    case::Case,
    failure::{Result, same, same_bytes},
    process::{start, succeed},
    spec::cases,
};
use sandbox_core::{Command, ExitStatus, SandboxExt};
use std::time::Duration;

cases! { "timeout":
    keeps_what_was_said [Shell],
    fires_during_silence [Shell],
    lets_a_program_clean_up [Shell],
    ends_a_program_that_does_not_listen [Shell],
    reaches_double_forked_children [Shell],
    does_not_wait_for_a_pipe_that_is_held_open [Shell],
    fires_while_nobody_reads [Shell],
    spares_a_command_that_ends_in_time [Shell],
    spares_the_sandbox [Shell],
}

const SHORT: Duration = Duration::from_secs(1);
/// Enough for a program to start and say so, on a slow machine too.
const TO_START: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_millis(200);

async fn keeps_what_was_said(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "echo out; echo more; printf half; sleep 1000; echo late";
    let output = sandbox
        .exec(Command::shell(script).timeout(TO_START))
        .await?;
    same(output.status, ExitStatus::TimedOut, "exit")?;
    same(output.status.code(), 124, "exit as a number")?;
    same_bytes(output.stdout, "out\nmore\nhalf", "output until then")
}

async fn fires_during_silence(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for command in [
        Command::new("sleep").arg("1000"),
        Command::shell("while :; do :; done"),
    ] {
        let output = sandbox.exec(command.timeout(SHORT)).await?;
        same(output.status, ExitStatus::TimedOut, "exit")?;
        same_bytes(output.stdout, "", "output")?;
    }
    Ok(())
}

async fn lets_a_program_clean_up(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let command = Command::shell(script)
        .timeout(TO_START)
        .grace(Duration::from_secs(60));
    let output = sandbox.exec(command).await?;
    same(output.status, ExitStatus::TimedOut, "exit")?;
    same_bytes(output.stdout, "ready\ncleaned\n", "output")
}

async fn ends_a_program_that_does_not_listen(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done";
    let output = sandbox
        .exec(Command::shell(script).timeout(TO_START).grace(GRACE))
        .await?;
    same(output.status, ExitStatus::TimedOut, "exit")?;
    same_bytes(output.stdout, "ready\n", "output")
}

async fn reaches_double_forked_children(case: &Case) -> Result {
    let sandbox = case.sandbox_with_whole_kills().await?;
    let script = format!("{DOUBLE_FORK} sleep 1000");
    let command = Command::shell(script).timeout(TO_START).grace(GRACE);
    let output = sandbox.exec(command).await?;
    same(output.status, ExitStatus::TimedOut, "exit")?;
    same_bytes(output.stdout, "ready\n", "output")?;
    gone(case, &*sandbox, "child").await
}

async fn does_not_wait_for_a_pipe_that_is_held_open(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    // This child holds the pipe, is in another session and does not listen.
    let script = "(setsid sh -c 'trap \"\" TERM; sleep 1000' &); echo ready; sleep 1000";
    let output = sandbox
        .exec(Command::shell(script).timeout(TO_START).grace(GRACE))
        .await?;
    same(output.status, ExitStatus::TimedOut, "exit")?;
    same_bytes(output.stdout, "ready\n", "output")
}

async fn fires_while_nobody_reads(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let command =
        Command::shell("echo $$ > number.new; mv number.new number; exec yes").timeout(TO_START);
    let mut command = start(&*sandbox, command).await?;
    let patience = case.patience("the command to start");
    let there = Command::shell("test -e number");
    while !sandbox.exec(there.clone()).await?.status.success() {
        patience.rest().await?;
    }
    gone(case, &*sandbox, "number").await?;
    // Only now does anybody read.
    same(command.process.wait().await?, ExitStatus::TimedOut, "exit")
}

async fn spares_a_command_that_ends_in_time(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for timeout in [
        Duration::from_secs(100),
        Duration::from_secs(u64::from(u32::MAX)),
        Duration::MAX,
    ] {
        let command = Command::shell("echo done; exit 3")
            .timeout(timeout)
            .grace(timeout);
        let output = sandbox.exec(command).await?;
        same(
            output.status,
            ExitStatus::Code(3),
            format_args!("exit within {timeout:?}"),
        )?;
        same_bytes(output.stdout, "done\n", "output")?;
    }
    Ok(())
}

async fn spares_the_sandbox(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut other = start(
        &*sandbox,
        Command::shell("echo ready; until [ -e go ]; do sleep 0.05; done"),
    )
    .await?;
    other.until("ready\n").await?;
    let slow = Command::new("sleep")
        .arg("1000")
        .timeout(Duration::from_millis(300));
    same(
        sandbox.exec(slow).await?.status,
        ExitStatus::TimedOut,
        "exit of the slow command",
    )?;
    succeed(&*sandbox, Command::new("touch").arg("go")).await?;
    same(
        other.end().await?,
        ExitStatus::Code(0),
        "exit of the other command",
    )
}
