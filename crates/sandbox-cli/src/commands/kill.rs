//! `sandbox kill`: ends sandboxes by id, or all that belong to no program.

use crate::{FAILED, args::KillArgs, output, provider};
use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use sandbox::{ListOptions, SandboxId, SandboxProvider};
use serde::Serialize;
use std::path::Path;

/// How many sandboxes are ended at a time.
const AT_A_TIME: usize = 8;

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Those that were ended.
    killed: Vec<SandboxId>,
    /// Those that had ended meanwhile.
    gone: Vec<SandboxId>,
}

pub(crate) async fn kill(state_dir: Option<&Path>, args: KillArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let infos = provider::list(provider.as_ref(), ListOptions::new()).await?;
    let mut failed = false;
    let mut ids = Vec::new();
    if args.all {
        let independent = infos.iter().filter(|info| provider::is_independent(info));
        ids.extend(independent.map(|info| info.id.clone()));
    }
    for text in &args.ids {
        match provider::pick(&infos, text) {
            Ok(info) if ids.contains(&info.id) => {}
            Ok(info) => ids.push(info.id.clone()),
            // One wrong id is no reason to let the others live.
            Err(error) => {
                output::report(&error);
                failed = true;
            }
        }
    }
    failed |= end(provider.as_ref(), ids, args.json).await?;
    Ok(if failed { FAILED } else { 0 })
}

/// Ends sandboxes and says so; true if one could not be ended.
async fn end(provider: &dyn SandboxProvider, ids: Vec<SandboxId>, json: bool) -> Result<bool> {
    let mut report = Report::default();
    let mut failed = false;
    let mut ends = stream::iter(ids)
        .map(|id| async move {
            let killed = provider.kill(&id).await;
            (
                killed.with_context(|| format!("cannot end the sandbox {id}")),
                id,
            )
        })
        .buffered(AT_A_TIME);
    while let Some((killed, id)) = ends.next().await {
        match killed {
            Ok(true) => {
                if !json {
                    output::print(&id)?;
                }
                report.killed.push(id);
            }
            Ok(false) => report.gone.push(id),
            Err(error) => {
                output::report(&error);
                failed = true;
            }
        }
    }
    if json {
        output::print_json(&report)?;
    }
    Ok(failed)
}
