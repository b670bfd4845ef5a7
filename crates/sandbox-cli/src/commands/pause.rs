//! `sandbox pause` and `sandbox resume`: stops what runs in sandboxes, and lets it go on.

use crate::{FAILED, output, provider};
use anyhow::{Context, Result};
use sandbox::{Error, Sandbox, SandboxExt};
use std::{path::Path, time::Duration};
use tokio::time;

/// How long a sandbox may take to stop, which it gives up itself before, or to go on.
const WITHIN: Duration = Duration::from_secs(30);

/// What is done to a sandbox.
#[derive(Debug, Clone, Copy)]
enum Change {
    Pause,
    Resume,
}

pub(crate) async fn pause(state_dir: Option<&Path>, ids: &[String]) -> Result<u8> {
    each(state_dir, ids, Change::Pause).await
}

pub(crate) async fn resume(state_dir: Option<&Path>, ids: &[String]) -> Result<u8> {
    each(state_dir, ids, Change::Resume).await
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    async fn make(self, sandbox: &dyn Sandbox) -> Result<(), Error> {
        let pause = sandbox.require_pause()?;
        let change = async {
            match self {
                Self::Pause => pause.pause().await,
                Self::Resume => pause.resume().await,
            }
        };
        let made = time::timeout(WITHIN, change).await;
        made.unwrap_or_else(|_| Err(provider::late(WITHIN)))
    }
}

/// Does it to all that can be reached. One that cannot is no reason to leave the others out.
async fn each(state_dir: Option<&Path>, ids: &[String], change: Change) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let mut code = 0;
    for text in ids {
        let done = async {
            let sandbox = provider::reach(provider.as_ref(), text).await?;
            let made = change.make(sandbox.as_ref()).await;
            made.with_context(|| format!("cannot {} the sandbox {text}", change.name()))?;
            output::print(sandbox.id())
        };
        if let Err(error) = done.await {
            output::report(&error);
            code = FAILED;
        }
    }
    Ok(code)
}
