//! `sandbox stats`: what sandboxes use, once or again and again.

use crate::{args::StatsArgs, output, provider, table::Listing};
use anyhow::{Result, bail};
use futures_util::{StreamExt, stream};
use sandbox::{ListOptions, Sandbox, SandboxExt, SandboxId, SandboxProvider, Usage};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, stdout},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::time::{self, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// How long a sandbox may take to be measured.
const WITHIN: Duration = Duration::from_secs(10);

/// How many sandboxes are measured at a time.
const AT_A_TIME: usize = 8;

/// What a sandbox uses, for programs: times in seconds, everything else in bytes or a number.
#[derive(Debug, Default, Serialize)]
struct Row {
    id: String,
    /// Of the processor, on all together, since the beginning.
    cpu_seconds: Option<f64>,
    /// At the moment, in percent of one processor. Not known at the first look.
    cpu_percent: Option<f64>,
    memory: Option<u64>,
    memory_peak: Option<u64>,
    processes: Option<u64>,
    disk: Option<u64>,
    files: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    sent: Option<u64>,
    received: Option<u64>,
    connections: Option<u64>,
    refused: Option<u64>,
}

/// Processor time of a sandbox at the last look.
type Before = BTreeMap<SandboxId, (Instant, Duration)>;

pub(crate) async fn stats(state_dir: Option<&Path>, args: StatsArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let mut named: Vec<Arc<dyn Sandbox>> = Vec::new();
    for text in &args.ids {
        named.push(provider::reach(provider.as_ref(), text).await?);
    }
    let mut before = Before::new();
    if args.once && !args.json {
        // So that there is something to compare with.
        measure(provider.as_ref(), &named, &mut before).await?;
        time::sleep(EVERY / 4).await;
    }
    loop {
        let rows = measure(provider.as_ref(), &named, &mut before).await?;
        if rows.is_empty() && !named.is_empty() {
            bail!(
                "none of these sandboxes answers any more; `sandbox ls -a` shows those that live"
            );
        }
        if args.json {
            output::print(serde_json::to_string(&rows)?)?;
        } else {
            let clear = !args.once && stdout().is_terminal();
            let table = table(&rows);
            // From the top, and nothing of the last table below.
            output::print(if clear {
                format!("\u{1b}[H\u{1b}[J{table}")
            } else {
                table
            })?;
        }
        if args.once {
            return Ok(0);
        }
        time::sleep(EVERY).await;
    }
}

/// Measures the sandboxes that are named, or all. One that ends meanwhile is left out.
async fn measure(
    provider: &dyn SandboxProvider,
    named: &[Arc<dyn Sandbox>],
    before: &mut Before,
) -> Result<Vec<Row>> {
    let mut sandboxes = named.to_vec();
    if named.is_empty() {
        let list = provider::list(provider, ListOptions::new()).await?;
        let meant = list
            .answering
            .iter()
            .filter(|info| provider::is_independent(info));
        sandboxes.extend(meant.map(|info| provider.sandbox(&info.id)));
    }
    let measured: Vec<_> = stream::iter(sandboxes)
        .map(|sandbox| async move {
            let usage = async { sandbox.require_metrics()?.usage().await };
            let usage = time::timeout(WITHIN, usage).await.ok()?.ok()?;
            Some((sandbox.id().clone(), usage))
        })
        .buffered(AT_A_TIME)
        .filter_map(|measured| async { measured })
        .collect()
        .await;
    let now = Instant::now();
    before.retain(|id, _| measured.iter().any(|(measured, _)| measured == id));
    let rows = measured.into_iter();
    Ok(rows
        .map(|(id, usage)| row(id, &usage, now, before))
        .collect())
}

fn row(id: SandboxId, usage: &Usage, now: Instant, before: &mut Before) -> Row {
    let last = usage
        .cpu_time
        .and_then(|used| before.insert(id.clone(), (now, used)));
    let percent = last.zip(usage.cpu_time).and_then(|((then, at), used)| {
        let passed = now.duration_since(then).as_secs_f64();
        (passed > 0.0).then(|| 100.0 * used.saturating_sub(at).as_secs_f64() / passed)
    });
    Row {
        id: id.to_string(),
        cpu_seconds: usage.cpu_time.map(|time| time.as_secs_f64()),
        cpu_percent: percent,
        memory: usage.memory,
        memory_peak: usage.memory_peak,
        processes: usage.processes,
        disk: usage.disk,
        files: usage.inodes,
        read: usage.read,
        written: usage.written,
        sent: usage.sent,
        received: usage.received,
        connections: usage.connections,
        refused: usage.refused,
    }
}

const COLUMNS: [&str; 9] = [
    "ID",
    "CPU",
    "MEMORY",
    "PROCESSES",
    "DISK",
    "READ",
    "WRITTEN",
    "SENT",
    "RECEIVED",
];

/// The rows for people.
fn table(rows: &[Row]) -> String {
    let mut table = Listing::new(COLUMNS);
    let unknown = || "-".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, output::binary);
    for row in rows {
        let percent = row.cpu_percent.map(|percent| format!("{percent:.1}%"));
        let processes = row.processes.map(|count| count.to_string());
        table.row([
            row.id.clone(),
            percent.unwrap_or_else(unknown),
            size(row.memory),
            processes.unwrap_or_else(unknown),
            size(row.disk),
            size(row.read),
            size(row.written),
            size(row.sent),
            size(row.received),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_processor_is_that_since_the_last_look() {
        let mut before = Before::new();
        let id = SandboxId::new("s1");
        let usage = |ms| {
            let mut usage = Usage::new();
            usage.cpu_time = Some(Duration::from_millis(ms));
            usage
        };
        let start = Instant::now();
        let first = row(id.clone(), &usage(500), start, &mut before);
        assert_eq!((first.cpu_seconds, first.cpu_percent), (Some(0.5), None));
        let later = start + Duration::from_secs(2);
        let second = row(id, &usage(3500), later, &mut before);
        assert_eq!(second.cpu_percent, Some(150.0));
        let text = table(&[second, Row::default()]);
        assert!(text.contains("150.0%") && text.contains('-'), "{text}");
    }
}
