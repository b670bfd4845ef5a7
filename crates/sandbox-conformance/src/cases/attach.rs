//! Several readers of one process: those that leave, come back, come late or are slow.

use crate::{
    case::{Case, path},
    failure::{Result, ensure, refused, same, same_bytes},
    process::{Heard, sh, start},
    spec::cases,
};
use futures_util::future::try_join;
use sandbox_core::{
    Command, ErrorKind, ExitStatus, FilesExt, Position, Process, ProcessId, Sandbox, SandboxExt,
    Signal, Stdin,
};

cases! { "attach":
    a_reader_that_left_comes_back_by_cursor [Shell, Attach],
    several_readers_get_everything [Shell, Attach],
    from_now_is_without_the_past [Shell, Attach],
    a_late_reader_gets_what_is_kept_and_the_exit [Shell, Attach],
    a_slow_reader_stops_nobody [Shell, Attach],
    what_is_not_kept_counts_as_lost [Shell, Attach],
    a_missing_process_is_not_found [Attach],
    processes_are_listed [Shell, Attach],
    another_handle_may_attach [Shell, Attach],
    standard_input_stays_open_between_readers [Shell, Attach, Stdin],
    an_attached_reader_may_kill [Shell, Attach],
}

async fn attach(sandbox: &dyn Sandbox, id: &ProcessId, from: Position) -> Result<Heard> {
    let process: Process = sandbox.require_attach()?.attach(id, from).await?;
    same(process.id(), id, "id of the attached process")?;
    Ok(Heard::new(process))
}

/// Says `first`, waits for the file `go`, says `second`.
const TWICE: &str = "echo first; until [ -e go ]; do sleep 0.05; done; echo second; exit 5";

async fn go(sandbox: &dyn Sandbox) -> Result {
    Ok(sandbox.files().write_bytes("go", "").await?)
}

async fn a_reader_that_left_comes_back_by_cursor(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut first = start(&*sandbox, Command::shell(TWICE)).await?;
    first.until("first\n").await?;
    let (id, cursor) = (first.process.id().clone(), first.process.cursor());
    same(cursor, 6, "cursor after the first line")?;
    drop(first);
    go(&*sandbox).await?;
    let mut again = attach(&*sandbox, &id, Position::Cursor(cursor)).await?;
    same(
        again.process.cursor(),
        cursor,
        "cursor of the attached process",
    )?;
    same(again.end().await?, ExitStatus::Code(5), "exit")?;
    same_bytes(&again.stdout, "second\n", "what came after the cursor")?;
    same(again.process.cursor(), 13, "cursor at the end")?;
    let mut middle = attach(&*sandbox, &id, Position::Cursor(3)).await?;
    same(middle.end().await?, ExitStatus::Code(5), "exit, again")?;
    same_bytes(middle.stdout, "st\nsecond\n", "from the middle of a line")
}

async fn several_readers_get_everything(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut one = start(&*sandbox, Command::shell(TWICE)).await?;
    one.until("first\n").await?;
    let id = one.process.id().clone();
    let mut readers = vec![one];
    for _ in 0..3 {
        readers.push(attach(&*sandbox, &id, Position::Cursor(0)).await?);
    }
    go(&*sandbox).await?;
    for mut reader in readers {
        same(reader.end().await?, ExitStatus::Code(5), "exit")?;
        same_bytes(reader.stdout, "first\nsecond\n", "output")?;
    }
    Ok(())
}

async fn from_now_is_without_the_past(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut first = start(&*sandbox, Command::shell(TWICE)).await?;
    first.until("first\n").await?;
    let mut second = attach(&*sandbox, first.process.id(), Position::Now).await?;
    go(&*sandbox).await?;
    same(second.end().await?, ExitStatus::Code(5), "exit")?;
    same_bytes(&second.stdout, "second\n", "output from now on")?;
    same(second.process.cursor(), 13, "cursor at the end")
}

async fn a_late_reader_gets_what_is_kept_and_the_exit(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let command = Command::shell("printf all; printf ' of it'; exit 3");
    let mut process = sandbox.spawn(command).await?;
    process.wait().await?;
    let id = process.id().clone();
    drop(process);
    let mut late = attach(&*sandbox, &id, Position::Cursor(0)).await?;
    same(late.end().await?, ExitStatus::Code(3), "exit")?;
    same_bytes(late.stdout, "all of it", "output from the start")?;
    let mut late = attach(&*sandbox, &id, Position::Now).await?;
    same(late.end().await?, ExitStatus::Code(3), "exit, from now")?;
    same_bytes(late.stdout, "", "output after the end")?;
    let mut late = attach(&*sandbox, &id, Position::Cursor(9)).await?;
    same(late.end().await?, ExitStatus::Code(3), "exit, from the end")?;
    same_bytes(late.stdout, "", "output beyond the end")
}

async fn a_slow_reader_stops_nobody(case: &Case) -> Result {
    const SIZE: u64 = 32 * 1024 * 1024;
    let sandbox = case.sandbox().await?;
    let script =
        format!("echo ready; until [ -e go ]; do sleep 0.05; done; head -c {SIZE} /dev/zero");
    let mut quick = start(&*sandbox, Command::shell(script)).await?;
    quick.until("ready\n").await?;
    let mut slow = attach(&*sandbox, quick.process.id(), Position::Cursor(0)).await?;
    go(&*sandbox).await?;
    // The slow one does not read before the quick one is done.
    same(quick.end().await?, ExitStatus::Code(0), "exit")?;
    same(
        quick.total(),
        SIZE + 6,
        "bytes that the quick reader got or lost",
    )?;
    same(
        slow.end().await?,
        ExitStatus::Code(0),
        "exit, for the slow reader",
    )?;
    same(
        slow.total(),
        SIZE + 6,
        "bytes that the slow reader got or lost",
    )?;
    same(slow.process.cursor(), SIZE + 6, "its cursor")
}

async fn what_is_not_kept_counts_as_lost(case: &Case) -> Result {
    const SIZE: u64 = 32 * 1024 * 1024;
    let sandbox = case.sandbox().await?;
    let script = format!(
        "echo ready; until [ -e go ]; do sleep 0.05; done; head -c {SIZE} /dev/zero; printf tail"
    );
    let mut first = start(&*sandbox, Command::shell(script)).await?;
    first.until("ready\n").await?;
    let id = first.process.id().clone();
    drop(first);
    go(&*sandbox).await?;
    let mut last = attach(&*sandbox, &id, Position::Now).await?;
    same(last.end().await?, ExitStatus::Code(0), "exit")?;
    let mut late = attach(&*sandbox, &id, Position::Cursor(0)).await?;
    same(
        late.end().await?,
        ExitStatus::Code(0),
        "exit, for a late reader",
    )?;
    same(
        late.total(),
        SIZE + 10,
        "bytes that a late reader got or lost",
    )?;
    same(late.process.cursor(), SIZE + 10, "its cursor")?;
    ensure(
        late.stdout.ends_with(b"\0tail"),
        "the newest bytes are not kept",
    )
}

async fn a_missing_process_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for id in [
        "conformance-no-such-process",
        "",
        "0",
        "-1",
        "999999999",
        "99999999999999999999999",
        "a\0b",
    ] {
        let result = sandbox
            .require_attach()?
            .attach(&ProcessId::new(id), Position::Now)
            .await;
        refused(result, ErrorKind::NotFound, format_args!("process {id:?}"))?;
    }
    Ok(())
}

async fn processes_are_listed(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let attach = sandbox.require_attach()?;
    same(attach.processes().await?, vec![], "in a new sandbox")?;
    let command = Command::new("sleep").arg("1000").tag("mine");
    let mut process = sandbox.spawn(command).await?;
    let listed = attach.processes().await?;
    same(listed.len(), 1, "processes")?;
    same(&listed[0].id, process.id(), "id")?;
    same(listed[0].tag.as_deref(), Some("mine"), "tag")?;
    same(listed[0].exit, None, "exit of a running process")?;
    same(listed[0].pty, false, "whether it has a terminal")?;
    ensure(
        listed[0].argv.iter().any(|arg| arg == "1000"),
        "its arguments are not shown",
    )?;
    process.control().signal(Signal::KILL).await?;
    let status = process.wait().await?;
    let listed = attach.processes().await?;
    let found = listed.iter().find(|info| &info.id == process.id());
    same(
        found.and_then(|info| info.exit),
        Some(status),
        "exit of an ended process",
    )
}

async fn another_handle_may_attach(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut first = start(&*sandbox, Command::shell(TWICE)).await?;
    first.until("first\n").await?;
    let other = case.provider().sandbox(sandbox.id());
    let mut second = attach(&*other, first.process.id(), Position::Cursor(0)).await?;
    go(&*other).await?;
    let ends = try_join(first.end(), second.end()).await?;
    same(ends, (ExitStatus::Code(5), ExitStatus::Code(5)), "exits")?;
    same_bytes(second.stdout, first.stdout, "output of both")
}

async fn standard_input_stays_open_between_readers(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let command = Command::new("cat").stdin(Stdin::Open);
    let mut first = start(&*sandbox, command).await?;
    first.process.control().write_stdin("one\n".into()).await?;
    first.until("one\n").await?;
    let (id, cursor) = (first.process.id().clone(), first.process.cursor());
    drop(first);
    // Anything in between, so that the reader is really gone.
    sh(&*sandbox, ":").await?;
    let mut second = attach(&*sandbox, &id, Position::Cursor(cursor)).await?;
    let control = second.process.control();
    control.write_stdin("two\n".into()).await?;
    second.until("two\n").await?;
    control.close_stdin().await?;
    same(second.end().await?, ExitStatus::Code(0), "exit")
}

async fn an_attached_reader_may_kill(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut first = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    first.until("ready\n").await?;
    let second = attach(&*sandbox, first.process.id(), Position::Now).await?;
    second.process.control().signal(Signal::KILL).await?;
    same(first.end().await?.code(), 137, "exit")?;
    ensure(
        !sandbox.files().exists(path("x")?.as_bytes()).await?,
        "the sandbox answers no more",
    )
}
