//! `sandbox logs`: what commands in a sandbox have printed, as far as the sandbox keeps it.

use crate::{
    args::LogsArgs,
    output, provider,
    session::{Sink, Stream},
};
use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, stream};
use sandbox::{
    Attach, Bytes, Error, ErrorKind, Position, Process, ProcessEvent, ProcessId, ProcessInfo,
    SandboxExt,
};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// A longer line is printed in pieces.
const LONGEST_LINE: usize = 64 * 1024;

/// A line for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Number of the command.
    command: &'a str,
    /// `stdout`, `stderr`, or `terminal`.
    stream: &'static str,
    /// Without the end of the line; what is not UTF-8 is replaced.
    text: &'a str,
}

pub(crate) async fn logs(state_dir: Option<&Path>, args: &LogsArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    let attach = sandbox.require_attach()?;
    let commands = commands(attach, args.command).await?;
    if commands.is_empty() {
        output::remark("nothing has run in the sandbox yet");
    }
    let form = match (args.json, args.command) {
        (true, _) => Form::Json,
        (false, Some(_)) => Form::Bytes,
        (false, None) if commands.len() == 1 => Form::Bytes,
        (false, None) => Form::Lines,
    };
    let mut printer = Printer::new(form);
    let printed = print(attach, &commands, args.follow, &mut printer).await;
    let finished = printer.finish().await;
    printed?;
    finished?;
    Ok(0)
}

/// The commands that are meant, oldest first.
async fn commands(attach: &dyn Attach, number: Option<u64>) -> Result<Vec<ProcessInfo>> {
    let mut all = attach.processes().await?;
    if let Some(number) = number.map(|number| number.to_string()) {
        all.retain(|command| command.id.as_str() == number);
        if all.is_empty() {
            bail!("the sandbox knows no command {number}; `sandbox inspect` shows their numbers");
        }
    }
    Ok(all)
}

async fn print(
    attach: &dyn Attach,
    commands: &[ProcessInfo],
    follow: bool,
    printer: &mut Printer,
) -> Result<()> {
    let mut running = Vec::new();
    for ProcessInfo { id, exit, .. } in commands {
        let has_ended = exit.is_some();
        let failed = || format!("cannot read what command {id} has printed");
        let Some(Opened { mut process, end }) = open(attach, id).await.with_context(failed)? else {
            continue;
        };
        while process.exit().is_none() && (has_ended || process.cursor() < end) {
            let event = process.try_next().await.with_context(failed)?;
            printer.event(id, event).await?;
        }
        // Each that is kept open takes a descriptor, here and in the sandbox.
        if follow && !has_ended {
            running.push(process);
        }
    }
    let mut events = stream::select_all(running.into_iter().map(|process| events(process).boxed()));
    while let Some((id, event)) = events.next().await {
        printer.event(&id, Some(event?)).await?;
    }
    Ok(())
}

/// A command that is read from its first byte that is kept, and how much it has printed until now.
struct Opened {
    process: Process,
    end: u64,
}

/// `None` if the command is not known any more.
async fn open(attach: &dyn Attach, id: &ProcessId) -> Result<Option<Opened>, Error> {
    let both = async {
        let end = attach.attach(id, Position::Now).await?.cursor();
        let process = attach.attach(id, Position::Cursor(0)).await?;
        Ok::<_, Error>(Opened { process, end })
    };
    match both.await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// What a command goes on to print, up to its end.
fn events(
    process: Process,
) -> impl futures_util::Stream<Item = (ProcessId, Result<ProcessEvent, Error>)> {
    stream::unfold(process, async |mut process| {
        let event = process.try_next().await.transpose()?;
        Some(((process.id().clone(), event), process))
    })
}

/// How output is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it came.
    Bytes,
    /// Line by line, with the command's number before each.
    Lines,
    Json,
}

/// Prints output, whole lines at a time where they carry the command's number.
struct Printer {
    form: Form,
    sink: Sink,
    /// Beginnings of lines.
    started: BTreeMap<(ProcessId, &'static str), Vec<u8>>,
}

impl Printer {
    fn new(form: Form) -> Self {
        Self {
            form,
            sink: Sink::start(),
            started: BTreeMap::new(),
        }
    }

    async fn event(&mut self, id: &ProcessId, event: Option<ProcessEvent>) -> Result<()> {
        match event {
            Some(ProcessEvent::Stdout(bytes)) => self.output(id, "stdout", bytes).await,
            Some(ProcessEvent::Stderr(bytes)) => self.output(id, "stderr", bytes).await,
            Some(ProcessEvent::Pty(bytes)) => self.output(id, "terminal", bytes).await,
            Some(ProcessEvent::Lost { bytes }) => {
                output::note(format!("{bytes} bytes of command {id} are not kept"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn output(&mut self, id: &ProcessId, stream: &'static str, bytes: Bytes) -> Result<()> {
        if self.form == Form::Bytes {
            return self.write(stream, bytes).await;
        }
        let mut line = self
            .started
            .remove(&(id.clone(), stream))
            .unwrap_or_default();
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") || line.len() >= LONGEST_LINE {
                whole.extend(self.line(id, stream, &line)?);
                line.clear();
            }
        }
        if !line.is_empty() {
            self.started.insert((id.clone(), stream), line);
        }
        if whole.is_empty() {
            return Ok(());
        }
        self.write(stream, whole.into()).await
    }

    fn line(&self, id: &ProcessId, stream: &'static str, line: &[u8]) -> Result<Vec<u8>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if self.form == Form::Json {
            let text = &String::from_utf8_lossy(line);
            let command = id.as_str();
            let mut json = serde_json::to_vec(&Line {
                command,
                stream,
                text,
            })?;
            json.push(b'\n');
            return Ok(json);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let number = format!("[{}] ", output::printable(id.as_str()));
        // Whoever goes back to the start of a line begins another one, or could write another number there.
        let parts = line.split(|byte| *byte == b'\r');
        Ok(parts
            .flat_map(|part| [number.as_bytes(), part, b"\n"])
            .collect::<Vec<_>>()
            .concat())
    }

    async fn write(&mut self, stream: &'static str, bytes: Bytes) -> Result<()> {
        let to = match (self.form, stream) {
            (Form::Bytes | Form::Lines, "stderr") => Stream::Stderr,
            _ => Stream::Stdout,
        };
        self.sink.write(to, bytes).await
    }

    /// Prints the lines that never ended, and waits until all is printed.
    async fn finish(mut self) -> Result<()> {
        for ((id, stream), line) in std::mem::take(&mut self.started) {
            let line = self.line(&id, stream, &line)?;
            self.write(stream, line.into()).await?;
        }
        self.sink.finish().await
    }
}
