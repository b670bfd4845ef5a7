//! What commands say: every byte, in order, as it comes, however slow the reader is.

use crate::{
    case::{Case, path},
    failure::{Result, Stop, ensure, same, same_bytes},
    process::{Heard, sh, start, succeed},
    spec::cases,
};
use sandbox_core::{Command, ExitStatus, FilesExt, Output, ProcessEvent, SandboxExt, WriteOptions};

cases! { "output":
    a_silent_command_says_nothing [Shell],
    the_last_line_needs_no_newline [Shell],
    streams_come_apart [Shell, SplitStderr],
    each_stream_is_in_order [Shell, SplitStderr],
    merged_streams_keep_the_programs_order [Shell],
    output_that_is_not_utf8_comes_as_it_is [Shell],
    output_comes_while_the_command_runs [Shell],
    a_background_child_does_not_delay_the_exit [Shell],
    a_background_child_lives_on [Shell],
    all_is_said_before_the_exit [Shell],
    much_output_reaches_a_slow_reader [Shell],
    both_streams_may_flood [Shell, SplitStderr],
    collected_output_is_bounded [Shell],
}

async fn a_silent_command_says_nothing(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let output = succeed(&*sandbox, Command::new("true")).await?;
    same_bytes(output.stdout, "", "standard output")?;
    same_bytes(output.stderr, "", "standard error")?;
    ensure(!output.truncated, "it counts as truncated")
}

async fn the_last_line_needs_no_newline(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for text in ["x", "a\nb", "\n", "\n\n", "\r\n", "\r", " "] {
        let output = succeed(&*sandbox, Command::new("printf").args(["%s", text])).await?;
        same_bytes(output.stdout, text, "output")?;
    }
    Ok(())
}

async fn streams_come_apart(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let command = Command::shell("echo out; echo err >&2; echo out2; exit 3");
    let output = sandbox.exec(command).await?;
    same(output.status, ExitStatus::Code(3), "exit")?;
    same_bytes(output.stdout, "out\nout2\n", "standard output")?;
    same_bytes(output.stderr, "err\n", "standard error")
}

async fn each_stream_is_in_order(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let output = succeed(&*sandbox, Command::shell(script)).await?;
    let lines = |letter: char| {
        (0..2000)
            .map(move |i| format!("{letter}{i}\n"))
            .collect::<String>()
    };
    same_bytes(output.stdout, lines('o'), "standard output")?;
    same_bytes(output.stderr, lines('e'), "standard error")
}

async fn merged_streams_keep_the_programs_order(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let output = succeed(&*sandbox, Command::shell(script).merge_stderr()).await?;
    let lines: String = (0..2000).map(|i| format!("o{i}\ne{i}\n")).collect();
    same_bytes(output.stdout, lines, "both streams")?;
    same_bytes(output.stderr, "", "standard error")
}

async fn output_that_is_not_utf8_comes_as_it_is(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    sandbox.files().write_bytes("bytes", all.clone()).await?;
    let output = succeed(&*sandbox, Command::new("cat").arg("bytes")).await?;
    same_bytes(output.stdout, all, "every byte there is")?;
    let output = succeed(&*sandbox, Command::shell("printf '\\377\\376\\000\\303'")).await?;
    same_bytes(
        output.stdout,
        b"\xff\xfe\x00\xc3",
        "half a character at the end",
    )
}

async fn output_comes_while_the_command_runs(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "printf first; until [ -e go ]; do sleep 0.05; done; printf second";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("first").await?;
    same_bytes(&command.stdout, "first", "what came before it may go on")?;
    sandbox
        .files()
        .write(&path("go")?, "".into(), WriteOptions::new())
        .await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    same_bytes(command.stdout, "firstsecond", "all of it")
}

async fn a_background_child_does_not_delay_the_exit(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    // The child keeps both pipes open long after the deadline.
    for script in [
        "sleep 1000 & echo done",
        "(setsid sleep 1000 &) ; echo done",
        "sleep 1000 & echo done; exit 3",
    ] {
        let output = sandbox.exec(Command::shell(script)).await?;
        same_bytes(
            output.stdout,
            "done\n",
            format_args!("output of {script:?}"),
        )?;
        let code = if script.ends_with('3') { 3 } else { 0 };
        same(
            output.status,
            ExitStatus::Code(code),
            format_args!("exit of {script:?}"),
        )?;
    }
    Ok(())
}

async fn a_background_child_lives_on(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script =
        "(until [ -e go ]; do sleep 0.05; done; echo went > gone) > /dev/null 2>&1 & echo started";
    same(
        sh(&*sandbox, script).await?,
        "started",
        "the command that starts it",
    )?;
    sh(&*sandbox, "touch go").await?;
    let patience = case.patience("a background child to go on after its command has ended");
    while !sandbox.files().exists("gone").await? {
        patience.rest().await?;
    }
    Ok(())
}

async fn all_is_said_before_the_exit(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for size in [1, 4095, 4096, 65_536, 65_537, 1_000_000] {
        let command = Command::new("head").args(["-c", &size.to_string(), "/dev/zero"]);
        let output = succeed(&*sandbox, command).await?;
        same(output.stdout.len(), size, "bytes of output")?;
    }
    Ok(())
}

/// Checks that pieces repeat a line of 16 bytes, without keeping them.
struct Repeated {
    expected: Vec<u8>,
    at: u64,
}

impl Repeated {
    const LINE: &str = "0123456789abcde\n";

    fn new() -> Self {
        Self {
            expected: Self::LINE.as_bytes().repeat(256 * 1024),
            at: 0,
        }
    }

    fn check(&mut self, mut piece: &[u8]) -> Result {
        while !piece.is_empty() {
            let from = usize::try_from(self.at % 16).unwrap_or_default();
            let len = piece.len().min(self.expected.len() - from);
            let (now, rest) = piece.split_at(len);
            let right = now == &self.expected[from..from + len];
            ensure(
                right,
                format_args!("wrong bytes somewhere after byte {}", self.at),
            )?;
            self.at += len as u64;
            piece = rest;
        }
        Ok(())
    }
}

async fn much_output_reaches_a_slow_reader(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let size = case.harness().output_bytes;
    let script = format!("yes {} | head -c {size}", Repeated::LINE.trim_end());
    let mut process = sandbox.spawn(Command::shell(script)).await?;
    let before = resident_bytes();
    let mut text = Repeated::new();
    let mut pause = size / 10;
    let status = loop {
        match process.try_next().await? {
            Some(ProcessEvent::Stdout(piece)) => text.check(&piece)?,
            Some(ProcessEvent::Exited(status)) => break status,
            Some(ProcessEvent::Started { .. }) => {}
            other => return Err(Stop::failed(format_args!("unexpected event: {other:?}"))),
        }
        if text.at >= pause {
            pause += size / 10;
            // The reader is slow because it has other things to do in the same sandbox.
            succeed(&*sandbox, Command::new("true")).await?;
            let grown = resident_bytes().saturating_sub(before);
            let held = format!("{grown} of {size} bytes are held in the caller's memory");
            ensure(grown < size.max(128 << 20) * 3 / 4, held)?;
        }
    };
    same(status, ExitStatus::Code(0), "exit")?;
    same(text.at, size, "bytes of output")
}

/// Memory of this program in bytes; 0 where that cannot be told.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0u64) * 1024
}

async fn both_streams_may_flood(case: &Case) -> Result {
    const SIZE: usize = 8 * 1024 * 1024;
    let sandbox = case.sandbox().await?;
    let script = format!("head -c {SIZE} /dev/zero >&2 & head -c {SIZE} /dev/zero; wait");
    let mut command = Heard::new(sandbox.spawn(Command::shell(script)).await?);
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    same(command.stdout.len(), SIZE, "bytes of standard output")?;
    same(command.stderr.len(), SIZE, "bytes of standard error")?;
    same(command.lost, 0, "bytes lost")
}

async fn collected_output_is_bounded(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let size = Output::DEFAULT_LIMIT + 1_000_000;
    let script = format!("head -c {size} /dev/zero; exit 9");
    let output = sandbox.exec(Command::shell(script)).await?;
    same(output.status, ExitStatus::Code(9), "exit")?;
    same(output.stdout.len(), Output::DEFAULT_LIMIT, "bytes kept")?;
    ensure(output.truncated, "it does not count as truncated")
}
