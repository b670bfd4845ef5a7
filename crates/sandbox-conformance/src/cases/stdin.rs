//! Standard input: at its end unless it was asked to be open.

use crate::{
    case::Case,
    failure::{Result, ensure, refused, same, same_bytes},
    process::{start, succeed},
    spec::cases,
};
use bytes::Bytes;
use sandbox_core::{Command, ErrorKind, ExitStatus, Stdin};

cases! { "stdin":
    it_is_closed_unless_asked_for [Shell],
    a_closed_one_cannot_be_written [Shell],
    what_is_written_arrives [Shell, Stdin],
    closing_ends_it [Shell, Stdin],
    a_dialogue_works [Shell, Stdin],
    much_goes_both_ways_at_once [Shell, Stdin],
    bytes_arrive_as_they_are [Shell, Stdin],
    a_closed_end_cannot_be_written_again [Shell, Stdin],
    a_program_that_does_not_read_any_more_is_invalid_state [Shell, Stdin],
    an_ended_command_cannot_be_written_to [Shell, Stdin],
}

fn open(command: Command) -> Command {
    command.stdin(Stdin::Open)
}

async fn it_is_closed_unless_asked_for(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    same_bytes(
        succeed(&*sandbox, Command::new("cat")).await?.stdout,
        "",
        "cat",
    )?;
    let script = "if read line; then echo \"got $line\"; else echo end; fi";
    let output = succeed(&*sandbox, Command::shell(script)).await?;
    same_bytes(output.stdout, "end\n", "read")
}

async fn a_closed_one_cannot_be_written(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    command.until("ready\n").await?;
    let written = command
        .process
        .control()
        .write_stdin(Bytes::from_static(b"x"))
        .await;
    refused(written, ErrorKind::InvalidState, "writing")
}

async fn what_is_written_arrives(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, open(Command::new("cat"))).await?;
    let control = command.process.control();
    for piece in ["one\n", "two", "", " three\n"] {
        control
            .write_stdin(Bytes::from_static(piece.as_bytes()))
            .await?;
    }
    command.until("two three\n").await?;
    control.close_stdin().await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    same_bytes(command.stdout, "one\ntwo three\n", "output")
}

async fn closing_ends_it(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, open(Command::shell("echo ready; wc -c"))).await?;
    command.until("ready\n").await?;
    command.process.control().close_stdin().await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    let counted = String::from_utf8_lossy(&command.stdout).replace("ready", "");
    same(counted.trim(), "0", "bytes that arrived")
}

async fn a_dialogue_works(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "while read -r line; do echo \"<$line>\"; done; echo bye";
    let mut command = start(&*sandbox, open(Command::shell(script))).await?;
    let control = command.process.control();
    for question in ["first", "second", "third"] {
        control.write_stdin(format!("{question}\n").into()).await?;
        command.until(&format!("<{question}>\n")).await?;
    }
    control.close_stdin().await?;
    command.until("bye\n").await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")
}

async fn much_goes_both_ways_at_once(case: &Case) -> Result {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 128;
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, open(Command::new("cat"))).await?;
    let control = command.process.control();
    // From a task of its own: neither side may wait for the other.
    let writer = tokio::spawn(async move {
        for number in 0..PIECES {
            let byte = u8::try_from(number).unwrap_or_default();
            control.write_stdin(vec![byte; PIECE].into()).await?;
        }
        control.close_stdin().await
    });
    let status = command.end().await?;
    writer.await.map_err(crate::failure::Stop::failed)??;
    same(status, ExitStatus::Code(0), "exit")?;
    same(command.stdout.len(), PIECE * PIECES, "bytes that came back")?;
    for (number, piece) in command.stdout.chunks(PIECE).enumerate() {
        let right = piece.iter().all(|byte| usize::from(*byte) == number);
        ensure(right, format_args!("piece {number} differs"))?;
    }
    Ok(())
}

async fn bytes_arrive_as_they_are(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let all: Vec<u8> = (0..=255).collect();
    let mut command = start(&*sandbox, open(Command::new("cat"))).await?;
    let control = command.process.control();
    control.write_stdin(all.clone().into()).await?;
    control.close_stdin().await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    same_bytes(command.stdout, all, "every byte there is")
}

async fn a_closed_end_cannot_be_written_again(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, open(Command::shell("cat; echo end; sleep 1000"))).await?;
    let control = command.process.control();
    control.close_stdin().await?;
    command.until("end\n").await?;
    let written = control.write_stdin(Bytes::from_static(b"x")).await;
    refused(written, ErrorKind::InvalidState, "writing after the close")
}

async fn a_program_that_does_not_read_any_more_is_invalid_state(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "exec < /dev/null; echo closed; exec sleep 1000";
    let mut command = start(&*sandbox, open(Command::shell(script))).await?;
    command.until("closed\n").await?;
    let control = command.process.control();
    let patience = case.patience("an error from writing to a program that closed its input");
    loop {
        match control.write_stdin(vec![b'x'; 4096].into()).await {
            Ok(()) => patience.rest().await?,
            error => return refused(error, ErrorKind::InvalidState, "writing"),
        }
    }
}

async fn an_ended_command_cannot_be_written_to(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, open(Command::new("true"))).await?;
    command.end().await?;
    let written = command
        .process
        .control()
        .write_stdin(Bytes::from_static(b"x"))
        .await;
    refused(written, ErrorKind::InvalidState, "writing after the end")
}
