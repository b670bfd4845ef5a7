//! `sandbox snapshot` and `sandbox fork`: keeps the files of a sandbox, and starts others from them.

use super::{
    create::{self, DEFAULT_LIFETIME},
    ls::Entry,
};
use crate::{
    args::{ForkArgs, SnapshotArgs},
    output::{self, Stop},
    provider,
    signals::Signals,
};
use anyhow::{Context, Result};
use sandbox::{
    CreateOptions, Ownership, ProviderExt, Sandbox, SandboxExt, SnapshotInfo, SnapshotOptions,
};
use serde::Serialize;
use std::{path::Path, sync::Arc};

/// A snapshot for programs.
#[derive(Debug, Serialize)]
struct Kept<'a> {
    id: &'a str,
    name: Option<&'a str>,
    created_at: Option<String>,
    bytes: Option<u64>,
    /// Whether what ran is part of it.
    processes: bool,
}

impl<'a> Kept<'a> {
    fn of(info: &'a SnapshotInfo) -> Self {
        Self {
            id: info.id.as_str(),
            name: info.name.as_deref(),
            created_at: info.created_at.map(output::timestamp),
            bytes: info.bytes,
            processes: info.processes,
        }
    }
}

pub(crate) async fn snapshot(state_dir: Option<&Path>, args: SnapshotArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    let mut options = SnapshotOptions::new();
    options.name = args.name;
    let taken = async { sandbox.require_snapshots()?.snapshot(options).await };
    let taken = taken
        .await
        .with_context(|| format!("cannot keep the files of the sandbox {}", args.id))?;
    if args.json {
        output::print_json(&Kept::of(&taken))?;
    } else {
        output::print(&taken.id)?;
    }
    Ok(0)
}

pub(crate) async fn fork(state_dir: Option<&Path>, args: ForkArgs) -> Result<u8> {
    let mut signals = Signals::new()?;
    let provider = provider::open(state_dir)?;
    let mut options = CreateOptions::new()
        .lifetime(args.lifetime.unwrap_or(DEFAULT_LIFETIME))
        .ownership(Ownership::Detached);
    options.limits = create::limits(&args.limits);
    let make = async {
        let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
        let forks = provider.fork(sandbox.id(), args.number.into(), options);
        let forks = forks.await;
        forks.with_context(|| format!("cannot fork the sandbox {}", args.id))
    };
    tokio::pin!(make);
    let stop = tokio::select! {
        forks = &mut make => return tell(&forks?, args.json).await,
        signal = signals.next() => Stop::Signal(signal),
    };
    // Those that are made already are known to nobody else.
    kill(&make.await?).await;
    Err(stop.into())
}

async fn tell(forks: &[Arc<dyn Sandbox>], json: bool) -> Result<u8> {
    let told = announce(forks, json).await;
    if told.is_err() {
        kill(forks).await;
    }
    told.map(|()| 0)
}

/// Kills sandboxes that nobody would ever find.
async fn kill(forks: &[Arc<dyn Sandbox>]) {
    for fork in forks {
        if let Err(error) = fork.kill().await {
            let id = fork.id();
            output::note(format!("the sandbox {id} could not be killed: {error}"));
        }
    }
}

async fn announce(forks: &[Arc<dyn Sandbox>], json: bool) -> Result<()> {
    if !json {
        return forks.iter().try_for_each(|fork| output::print(fork.id()));
    }
    let mut infos = Vec::new();
    for fork in forks {
        infos.push(fork.info().await.context("cannot look at a new sandbox")?);
    }
    let entries: Vec<_> = infos.iter().map(Entry::of).collect();
    output::print_json(&entries)
}
