//! Commands on a terminal.

use crate::{
    case::Case,
    failure::{Result, Stop, ensure, same},
    process::{Heard, contains},
    spec::cases,
};
use sandbox_core::{Command, ExitStatus, ProcessEvent, PtySize, SandboxExt};
use std::time::Duration;

cases! { "pty":
    a_command_has_a_terminal [Shell, Pty],
    output_comes_as_terminal_output_alone [Shell, Pty],
    it_echoes_and_answers [Shell, Pty],
    it_has_the_size_asked_for [Shell, Pty],
    a_resize_is_seen_and_signalled [Shell, Pty],
    control_c_interrupts [Shell, Pty],
    closing_input_is_end_of_file [Shell, Pty],
    exits_are_as_without_a_terminal [Shell, Pty],
    a_timeout_ends_it [Shell, Pty],
    a_background_child_does_not_delay_its_exit [Shell, Pty],
}

async fn on_terminal(case: &Case, command: Command) -> Result<Heard> {
    let sandbox = case.sandbox().await?;
    let process = sandbox
        .require_pty()?
        .spawn(command, PtySize::new(30, 100))
        .await?;
    Ok(Heard::new(process))
}

async fn a_command_has_a_terminal(case: &Case) -> Result {
    let script = "test -t 0 && test -t 1 && test -t 2 && test -c \"$(tty)\"";
    let mut command = on_terminal(case, Command::shell(script)).await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    let script = "exec 3<>/dev/tty && echo mine >&3";
    let mut command = on_terminal(case, Command::shell(script)).await?;
    same(
        command.end().await?,
        ExitStatus::Code(0),
        "exit of a command that opens its terminal",
    )?;
    ensure(
        contains(&command.terminal, b"mine"),
        "what it wrote there did not come",
    )
}

async fn output_comes_as_terminal_output_alone(case: &Case) -> Result {
    let mut command = on_terminal(case, Command::shell("echo out; echo err >&2")).await?;
    while let Some(event) = command.next().await? {
        let apart = matches!(event, ProcessEvent::Stdout(_) | ProcessEvent::Stderr(_));
        ensure(!apart, format_args!("a terminal said {event:?}"))?;
    }
    let text = String::from_utf8_lossy(&command.terminal).into_owned();
    same(
        text,
        "out\r\nerr\r\n",
        "output, with the terminal's line ends",
    )
}

async fn it_echoes_and_answers(case: &Case) -> Result {
    let script = "echo ready; read -r line; echo \"<$line>\"";
    let mut command = on_terminal(case, Command::shell(script)).await?;
    command.until("ready").await?;
    command
        .process
        .control()
        .write_stdin("typed\n".into())
        .await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    let text = String::from_utf8_lossy(&command.terminal).into_owned();
    same(
        text,
        "ready\r\ntyped\r\n<typed>\r\n",
        "what is on the terminal",
    )
}

async fn it_has_the_size_asked_for(case: &Case) -> Result {
    let mut command = on_terminal(case, Command::new("stty").arg("size")).await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    let text = String::from_utf8_lossy(&command.terminal).into_owned();
    same(text.trim(), "30 100", "rows and columns")
}

async fn a_resize_is_seen_and_signalled(case: &Case) -> Result {
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done";
    let mut command = on_terminal(case, Command::shell(script)).await?;
    command.until("ready").await?;
    command
        .process
        .control()
        .resize(PtySize::new(50, 132))
        .await?;
    command.until("50 132").await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")
}

async fn control_c_interrupts(case: &Case) -> Result {
    let mut command = on_terminal(case, Command::shell("echo ready; exec sleep 1000")).await?;
    command.until("ready").await?;
    command.process.control().write_stdin("\x03".into()).await?;
    same(command.end().await?.code(), 130, "exit")
}

async fn closing_input_is_end_of_file(case: &Case) -> Result {
    let mut command = on_terminal(case, Command::shell("echo ready; cat; echo end")).await?;
    command.until("ready").await?;
    let control = command.process.control();
    control.write_stdin("line\n".into()).await?;
    command.until("line\r\nline").await?;
    control.close_stdin().await?;
    command.until("end").await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")
}

async fn exits_are_as_without_a_terminal(case: &Case) -> Result {
    for (command, code) in [
        (Command::shell("exit 7"), 7),
        (Command::new("conformance-no-such-program"), 127),
        (Command::new("/tmp"), 126),
        (Command::shell("kill -9 $$"), 137),
    ] {
        let what = format!("exit of {:?}", command.program);
        let mut command = on_terminal(case, command).await?;
        same(command.end().await?.code(), code, what)?;
    }
    Ok(())
}

async fn a_timeout_ends_it(case: &Case) -> Result {
    let command = Command::shell("echo ready; sleep 1000").timeout(Duration::from_secs(1));
    let mut command = on_terminal(case, command).await?;
    same(command.end().await?, ExitStatus::TimedOut, "exit")?;
    ensure(
        contains(&command.terminal, b"ready"),
        "what it said is lost",
    )
}

async fn a_background_child_does_not_delay_its_exit(case: &Case) -> Result {
    let script = "(trap '' HUP; sleep 1000) & echo done";
    let mut command = on_terminal(case, Command::shell(script)).await?;
    let status = command.end().await?;
    if !contains(&command.terminal, b"done") {
        return Err(Stop::failed("what it said is lost"));
    }
    same(status, ExitStatus::Code(0), "exit")
}
