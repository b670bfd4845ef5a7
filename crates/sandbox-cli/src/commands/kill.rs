//! `sandbox kill`: kills sandboxes by id, or all that belong to no program.

use crate::{FAILED, args::KillArgs, output, provider};
use anyhow::Result;
use futures_util::{StreamExt, stream};
use sandbox::{ListOptions, SandboxId, SandboxProvider};
use serde::Serialize;
use std::path::Path;

/// How many sandboxes are killed at a time.
const AT_A_TIME: usize = 8;

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Those that were killed.
    killed: Vec<SandboxId>,
    /// Those that had ended meanwhile.
    gone: Vec<SandboxId>,
    /// What came to nothing, and why.
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    /// As it was asked for.
    id: String,
    error: String,
}

impl Failed {
    fn new(id: &str, error: impl ToString) -> Self {
        Self {
            id: id.to_owned(),
            error: error.to_string(),
        }
    }
}

/// The ends of sandboxes, told as they come.
#[derive(Debug)]
struct Kills<'a> {
    provider: &'a dyn SandboxProvider,
    json: bool,
    report: Report,
}

pub(crate) async fn kill(state_dir: Option<&Path>, args: KillArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let mut kills = Kills {
        provider: provider.as_ref(),
        json: args.json,
        report: Report::default(),
    };
    if args.all {
        kills.all().await?;
    } else {
        kills.some(&args.ids).await?;
    }
    if args.json {
        output::print_json(&kills.report)?;
    }
    let failed = !kills.report.failed.is_empty();
    Ok(if failed { FAILED } else { 0 })
}

impl Kills<'_> {
    async fn all(&mut self) -> Result<()> {
        let sandboxes = provider::list(self.provider, ListOptions::new()).await?;
        for silent in &sandboxes.silent {
            // It may belong to a running program.
            silent.note();
            let id = silent.id.as_ref().map_or("", SandboxId::as_str);
            self.report
                .failed
                .push(Failed::new(id, silent.error.message()));
        }
        let independent = sandboxes.answering.into_iter();
        let ids = independent
            .filter(provider::is_independent)
            .map(|info| info.id);
        let gone = self.each(ids).await?;
        self.report.gone.extend(gone);
        Ok(())
    }

    /// What is an id is killed without a look at any sandbox: it need not answer, nor need the others.
    async fn some(&mut self, texts: &[String]) -> Result<()> {
        let mut wanted = Vec::new();
        for text in texts {
            let id = SandboxId::new(text.as_str());
            match provider::require_text(text) {
                Ok(()) if wanted.contains(&id) => {}
                Ok(()) => wanted.push(id),
                Err(error) => self.fail(text, &error),
            }
        }
        let others = self.each(wanted).await?;
        if others.is_empty() {
            return Ok(());
        }
        let sandboxes = provider::list(self.provider, ListOptions::new()).await?;
        let mut ids = Vec::new();
        for text in others {
            match sandboxes.pick(text.as_str()) {
                Ok(id) if ids.contains(id) => {}
                Ok(id) => ids.push(id.clone()),
                // One wrong id is no reason to let the others live.
                Err(error) => self.fail(text.as_str(), &error),
            }
        }
        let gone = self.each(ids).await?;
        self.report.gone.extend(gone);
        Ok(())
    }

    /// Kills sandboxes and says so; those that were not there.
    async fn each(&mut self, ids: impl IntoIterator<Item = SandboxId>) -> Result<Vec<SandboxId>> {
        let provider = self.provider;
        let mut gone = Vec::new();
        let mut kills = stream::iter(ids)
            .map(|id| async move { (provider::kill(provider, &id).await, id) })
            .buffered(AT_A_TIME);
        while let Some((killed, id)) = kills.next().await {
            match killed {
                Ok(true) => {
                    if !self.json {
                        output::print(&id)?;
                    }
                    self.report.killed.push(id);
                }
                Ok(false) => gone.push(id),
                Err(error) => self.fail(id.as_str(), &error),
            }
        }
        Ok(gone)
    }

    fn fail(&mut self, id: &str, error: &anyhow::Error) {
        output::report(error);
        let error = output::chain(error);
        self.report.failed.push(Failed::new(id, error));
    }
}
