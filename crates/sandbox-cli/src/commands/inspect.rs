//! `sandbox inspect`: all that is known of a sandbox and of the commands in it.

use super::ls::{self, Entry};
use crate::{
    FAILED,
    args::InspectArgs,
    output::{self, STRONG, binary},
    provider,
    table::Listing,
};
use anyhow::{Context, Result};
use sandbox::{
    CreateOptions, Enforcement, Error, ExitStatus, Limits, Ownership, ProcessInfo, Sandbox,
    SandboxInfo, SandboxProvider, Usage, Wall,
};
use serde::Serialize;
use std::{
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::time;

/// How long a sandbox may take for each of the answers.
const WITHIN: Duration = Duration::from_secs(10);

/// What is known of one sandbox.
#[derive(Debug)]
struct Known {
    info: SandboxInfo,
    /// What a sandbox with its template and limits is behind.
    walls: Vec<Wall>,
    commands: Vec<ProcessInfo>,
    usage: Usage,
}

/// The same for programs.
#[derive(Debug, Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    sandbox: Entry<'a>,
    /// In bytes and numbers.
    usage: UsageObject,
    walls: &'a [Wall],
    commands: Vec<CommandObject<'a>>,
}

#[derive(Debug, Serialize)]
struct UsageObject {
    memory: Option<u64>,
    processes: Option<u64>,
    disk: Option<u64>,
    files: Option<u64>,
}

#[derive(Debug, Serialize)]
struct CommandObject<'a> {
    /// As `logs` and `attach` take it.
    number: &'a str,
    pid: Option<u32>,
    tag: Option<&'a str>,
    argv: &'a [String],
    tty: bool,
    /// `null` while it runs.
    exit_code: Option<i32>,
    /// Seconds from its start to now or to its end.
    seconds: Option<f64>,
}

pub(crate) async fn inspect(state_dir: Option<&Path>, args: &InspectArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let mut all = Vec::new();
    let mut code = 0;
    for text in &args.ids {
        let found = async {
            let sandbox = provider::reach(provider.as_ref(), text).await?;
            let known = find_out(provider.as_ref(), sandbox.as_ref()).await;
            known.with_context(|| format!("cannot inspect the sandbox {text}"))
        };
        match found.await {
            Ok(known) => all.push(known),
            Err(error) => {
                output::report(&error);
                code = FAILED;
            }
        }
    }
    if args.json {
        output::print_json(&all.iter().map(object).collect::<Vec<_>>())?;
    } else if !all.is_empty() {
        let now = SystemTime::now();
        let texts: Vec<_> = all.iter().map(|known| text(known, now)).collect();
        output::print(texts.join("\n\n"))?;
    }
    Ok(code)
}

async fn find_out(provider: &dyn SandboxProvider, sandbox: &dyn Sandbox) -> Result<Known> {
    let info = within(sandbox.info()).await?;
    let commands = match sandbox.attach() {
        Some(attach) => within(attach.processes()).await?,
        None => Vec::new(),
    };
    let usage = match sandbox.metrics() {
        Some(metrics) => within(metrics.usage()).await?,
        None => Usage::new(),
    };
    let mut options = CreateOptions::new().limits(info.limits);
    if let Some(template) = &info.template {
        options = options.template(template.clone());
    }
    if let Some(network) = sandbox.network() {
        options = options.network(within(network.policy()).await?);
    }
    Ok(Known {
        walls: provider.enforcement(&options).walls,
        info,
        commands,
        usage,
    })
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answer = time::timeout(WITHIN, answer).await;
    answer.unwrap_or_else(|_| Err(provider::late(WITHIN)))
}

fn object(known: &Known) -> Object<'_> {
    Object {
        sandbox: Entry::of(&known.info),
        usage: UsageObject {
            memory: known.usage.memory,
            processes: known.usage.processes,
            disk: known.usage.disk,
            files: known.usage.inodes,
        },
        walls: &known.walls,
        commands: known.commands.iter().map(command).collect(),
    }
}

fn command(command: &ProcessInfo) -> CommandObject<'_> {
    CommandObject {
        number: command.id.as_str(),
        pid: command.pid,
        tag: command.tag.as_deref(),
        argv: &command.argv,
        tty: command.pty,
        exit_code: command.exit.map(ExitStatus::code),
        seconds: command.elapsed.map(|time| time.as_secs_f64()),
    }
}

/// Facts, one a line, and below them the commands.
fn text(known: &Known, now: SystemTime) -> String {
    let info = &known.info;
    let moment = |moment: SystemTime| {
        let (relative, exact) = (output::relative(moment, now), output::timestamp(moment));
        format!("{relative} ({exact})")
    };
    let metadata: Vec<_> = info
        .metadata
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let owner = match info.ownership {
        Some(Ownership::Owned) => Some("a program, with which it ends".to_owned()),
        _ => None,
    };
    let facts = [
        ("id", Some(info.id.to_string())),
        ("name", info.name.clone()),
        ("state", Some(ls::state(info.state).to_owned())),
        ("template", info.template.as_ref().map(ToString::to_string)),
        ("created", info.created_at.map(moment)),
        ("ends", info.expires_at.map(moment)),
        ("owner", owner),
        ("limits", limits(&info.limits)),
        ("uses", usage(&known.usage)),
        ("walls", Some(walls(&known.walls))),
        (
            "metadata",
            Some(metadata.join(" ")).filter(|text| !text.is_empty()),
        ),
    ];
    let mut lines: Vec<_> = facts
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .map(|(name, value)| {
            let value = output::printable(&value);
            format!("{STRONG}{name:9}{STRONG:#} {value}")
        })
        .collect();
    if !known.commands.is_empty() {
        lines.push(String::new());
        lines.push(table(&known.commands));
    }
    lines.join("\n")
}

fn limits(limits: &Limits) -> Option<String> {
    let each = [
        limits
            .memory
            .map(|bytes| format!("{} of memory", binary(bytes))),
        limits.cpus.map(|cpus| format!("{cpus} processors")),
        limits.processes.map(|count| format!("{count} processes")),
        limits
            .disk
            .map(|bytes| format!("{} of disk", binary(bytes))),
        limits.inodes.map(|count| format!("{count} files")),
    ];
    listed(each)
}

fn usage(usage: &Usage) -> Option<String> {
    let each = [
        usage
            .memory
            .map(|bytes| format!("{} of memory", binary(bytes))),
        usage.processes.map(|count| format!("{count} processes")),
        usage.disk.map(|bytes| format!("{} of disk", binary(bytes))),
        usage.inodes.map(|count| format!("{count} files")),
    ];
    listed(each)
}

fn listed<const N: usize>(each: [Option<String>; N]) -> Option<String> {
    let known: Vec<_> = each.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// Whether all hold, or which do not.
fn walls(walls: &[Wall]) -> String {
    let open = walls
        .iter()
        .filter(|wall| wall.enforcement != Enforcement::Enforced);
    let open: Vec<_> = open.map(|wall| wall.name.to_string()).collect();
    if open.is_empty() {
        "all hold".to_owned()
    } else {
        format!(
            "all hold but {}; `sandbox doctor` says why",
            open.join(", ")
        )
    }
}

fn table(commands: &[ProcessInfo]) -> String {
    let mut table = Listing::new(["NUMBER", "STATE", "TIME", "COMMAND"]);
    for command in commands {
        let state = command
            .exit
            .map_or_else(|| "running".to_owned(), |exit| exit.to_string());
        let time = command
            .elapsed
            .map_or_else(|| "-".to_owned(), output::spell);
        let cells = [command.id.to_string(), state, time, command.argv.join(" ")];
        table.row(cells);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::SandboxState;

    fn known() -> (Known, SystemTime) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut info = SandboxInfo::new("sjx2k4q7ab3m5np6".into(), SandboxState::Running);
        info.name = Some("bu\u{1b}[2Jild".to_owned());
        info.template = Some("host".into());
        info.created_at = Some(now - Duration::from_secs(125));
        info.expires_at = Some(now + Duration::from_secs(7075));
        info.limits = Limits::new().memory(2 << 30).cpus(0.5).processes(512);
        info.metadata = [("job".to_owned(), "nightly".to_owned())].into();
        let mut running = ProcessInfo::new("3".into());
        running.argv = vec!["make".to_owned(), "te\nst".to_owned()];
        running.elapsed = Some(Duration::from_secs(61));
        let mut ended = ProcessInfo::new("2".into());
        ended.exit = Some(ExitStatus::Signal(9));
        let mut usage = Usage::new();
        usage.memory = Some(5 << 20);
        usage.inodes = Some(33);
        let wall = |name: &'static str, enforcement| Wall::new(name, enforcement, "because");
        let known = Known {
            info,
            walls: vec![
                wall("files", Enforcement::Enforced),
                wall("disk", Enforcement::NotEnforced),
            ],
            commands: vec![ended, running],
            usage,
        };
        (known, now)
    }

    #[test]
    fn the_text_is_reviewed() {
        let (known, now) = known();
        let text = text(&known, now);
        insta::assert_snapshot!("inspect", anstream::adapter::strip_str(&text));
    }

    #[test]
    fn the_json_is_reviewed() {
        insta::assert_json_snapshot!("inspect_json", object(&known().0));
    }
}
