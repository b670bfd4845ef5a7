//! Signals, and who gets them.

use crate::{
    case::Case,
    failure::{Result, Stop, refused, same, same_bytes},
    process::{start, succeed},
    spec::cases,
};
use sandbox_core::{Command, ErrorKind, ExitStatus, Sandbox, SandboxExt, Signal};

cases! { "signals":
    kill_ends_a_command [Shell],
    kill_reaches_double_forked_children [Shell],
    kill_spares_other_commands [Shell],
    an_ended_command_gets_no_signal [Shell],
    a_program_may_handle_a_signal [Shell, Signals],
    term_and_interrupt_end_a_program [Shell, Signals],
    a_signal_reaches_the_whole_group [Shell, Signals],
    signals_beyond_kill_are_unsupported_where_lacking [Shell],
}

/// Waits until the process whose number is in `file` is gone.
pub(super) async fn gone(case: &Case, sandbox: &dyn Sandbox, file: &str) -> Result {
    let patience = case.patience("a process to be gone");
    let script = format!("kill -0 $(cat {file})");
    while sandbox
        .exec(Command::shell(&script))
        .await?
        .status
        .success()
    {
        patience.rest().await?;
    }
    Ok(())
}

/// Leaves a child in a session of its own, below PID 1, and says `ready` when it runs.
pub(super) const DOUBLE_FORK: &str = "(setsid sh -c 'trap \"\" TERM HUP; echo $$ > child.new; mv child.new child; \
     exec sleep 1000' > /dev/null 2>&1 < /dev/null &); until [ -e child ]; do sleep 0.05; done; echo ready; ";

async fn kill_ends_a_command(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    command.process.control().signal(Signal::KILL).await?;
    same(command.end().await?.code(), 137, "exit")?;
    same_bytes(command.stdout, "ready\n", "what it said before")
}

async fn kill_reaches_double_forked_children(case: &Case) -> Result {
    let sandbox = case.sandbox_with_whole_kills().await?;
    let script = format!("{DOUBLE_FORK} sleep 1000");
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    succeed(&*sandbox, Command::shell("kill -0 $(cat child)")).await?;
    command.process.control().signal(Signal::KILL).await?;
    same(command.end().await?.code(), 137, "exit")?;
    gone(case, &*sandbox, "child").await
}

async fn kill_spares_other_commands(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "echo ready; until [ -e go ]; do sleep 0.05; done; echo went";
    let mut spared = start(&*sandbox, Command::shell(script)).await?;
    let mut killed = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    spared.until("ready\n").await?;
    killed.until("ready\n").await?;
    killed.process.control().signal(Signal::KILL).await?;
    same(killed.end().await?.code(), 137, "exit of the one")?;
    succeed(&*sandbox, Command::new("touch").arg("go")).await?;
    same(
        spared.end().await?,
        ExitStatus::Code(0),
        "exit of the other",
    )
}

async fn an_ended_command_gets_no_signal(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, Command::new("true")).await?;
    command.end().await?;
    let signalled = command.process.control().signal(Signal::KILL).await;
    refused(signalled, ErrorKind::InvalidState, "a signal after the end")
}

async fn a_program_may_handle_a_signal(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "trap 'echo handled; exit 7' USR1; echo ready; while :; do sleep 0.1; done";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    command.process.control().signal(Signal::USR1).await?;
    same(command.end().await?, ExitStatus::Code(7), "exit")?;
    same_bytes(command.stdout, "ready\nhandled\n", "output")
}

async fn term_and_interrupt_end_a_program(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR2] {
        let script = "echo ready; exec sleep 1000";
        let mut command = start(&*sandbox, Command::shell(script)).await?;
        command.until("ready\n").await?;
        command.process.control().signal(signal).await?;
        same(
            command.end().await?,
            ExitStatus::Signal(signal.number()),
            "exit",
        )?;
    }
    Ok(())
}

async fn a_signal_reaches_the_whole_group(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "trap 'wait; echo parent; exit 0' TERM; \
        sh -c 'trap \"echo child; exit 0\" TERM; echo ready; while :; do sleep 0.1; done' & \
        while :; do sleep 0.1; done";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    command.process.control().signal(Signal::TERM).await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    same_bytes(command.stdout, "ready\nchild\nparent\n", "who handled it")
}

async fn signals_beyond_kill_are_unsupported_where_lacking(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    if sandbox.capabilities().signals {
        return Err(Stop::Ignored("the provider has all signals".into()));
    }
    let mut command = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    command.until("ready\n").await?;
    let signalled = command.process.control().signal(Signal::USR1).await;
    refused(signalled, ErrorKind::Unsupported, "USR1")
}
