//! Where the sandboxes of a command come from, and how one is found among them.

use crate::output;
use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use sandbox::{
    ConnectOptions, ListOptions, Ownership, ProviderExt, Sandbox, SandboxInfo, SandboxProvider,
    layers::TracingLayer,
    local::{LocalBuilder, LocalProvider},
};
use std::{path::Path, sync::Arc};

/// How the sandboxes of this machine are opened: where the option says, else the environment, else the default.
pub(crate) fn local(state_dir: Option<&Path>) -> LocalBuilder {
    let folder = state_dir.map(Path::to_owned).or_else(|| {
        let folder = std::env::var_os("SANDBOX_STATE_DIR")?;
        (!folder.is_empty()).then(|| folder.into())
    });
    match folder {
        Some(folder) => LocalProvider::builder().state_dir(folder),
        None => LocalProvider::builder(),
    }
}

/// The provider that commands use.
pub(crate) fn open(state_dir: Option<&Path>) -> Result<Arc<dyn SandboxProvider>> {
    let provider = local(state_dir)
        .build()
        .context("cannot use the sandboxes of this machine")?;
    Ok(if output::is_logging() {
        Arc::new(provider.layer(TracingLayer::new()))
    } else {
        Arc::new(provider)
    })
}

/// All living sandboxes.
pub(crate) async fn list(
    provider: &dyn SandboxProvider,
    options: ListOptions,
) -> Result<Vec<SandboxInfo>> {
    provider
        .list(options)
        .try_collect()
        .await
        .context("cannot list the sandboxes")
}

/// Finds a sandbox by id, name, or the start of its id.
pub(crate) async fn find(provider: &dyn SandboxProvider, text: &str) -> Result<SandboxInfo> {
    let infos = list(provider, ListOptions::new()).await?;
    Ok(pick(&infos, text)?.clone())
}

/// Reaches a sandbox by id, name, or the start of its id.
pub(crate) async fn reach(provider: &dyn SandboxProvider, text: &str) -> Result<Arc<dyn Sandbox>> {
    let id = find(provider, text).await?.id;
    provider
        .connect(&id, ConnectOptions::new())
        .await
        .with_context(|| format!("cannot reach the sandbox {text}"))
}

/// Whether it is its own master, and not part of a running program.
pub(crate) fn is_independent(info: &SandboxInfo) -> bool {
    info.ownership != Some(Ownership::Owned)
}

/// The sandbox that `text` means: an id before a name, and both before the start of an id.
pub(crate) fn pick<'a>(infos: &'a [SandboxInfo], text: &str) -> Result<&'a SandboxInfo> {
    if text.is_empty() {
        bail!("an id must not be empty; `sandbox ls -a` shows the ids");
    }
    let exact = infos
        .iter()
        .find(|info| info.id.as_str() == text)
        .or_else(|| infos.iter().find(|info| info.name.as_deref() == Some(text)));
    if let Some(info) = exact {
        return Ok(info);
    }
    let matches: Vec<_> = infos
        .iter()
        .filter(|info| info.id.as_str().starts_with(text))
        .collect();
    match matches[..] {
        [info] => Ok(info),
        [] => bail!("there is no sandbox {text:?}; `sandbox ls -a` shows those that live"),
        _ => {
            let ids: Vec<_> = matches.iter().map(|info| info.id.as_str()).collect();
            bail!(
                "{text:?} can mean {}; write more of the id",
                ids.join(" or ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbox::{SandboxId, SandboxState};

    fn info(id: &str, name: Option<&str>) -> SandboxInfo {
        let mut info = SandboxInfo::new(SandboxId::new(id), SandboxState::Running);
        info.name = name.map(str::to_owned);
        info
    }

    fn picked(infos: &[SandboxInfo], text: &str) -> Result<String, String> {
        pick(infos, text)
            .map(|info| info.id.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn id_then_name_then_start_of_id() {
        let infos = [
            info("abc1", Some("x")),
            info("abd2", Some("abc1")),
            info("x9", None),
        ];
        assert_eq!(picked(&infos, "abc1").unwrap(), "abc1");
        assert_eq!(picked(&infos, "x").unwrap(), "abc1");
        assert_eq!(picked(&infos, "abd").unwrap(), "abd2");
        assert_eq!(picked(&infos, "x9").unwrap(), "x9");
    }

    #[test]
    fn what_is_meant_must_be_clear() {
        let infos = [info("abc1", None), info("abd2", None)];
        assert!(picked(&infos, "ab").unwrap_err().contains("abc1 or abd2"));
        assert!(
            picked(&infos, "z")
                .unwrap_err()
                .contains("no sandbox \"z\"")
        );
        assert!(picked(&infos, "").unwrap_err().contains("empty"));
        assert!(picked(&[], "a\u{1b}[2J").unwrap_err().contains("\\u{1b}"));
    }

    proptest! {
        #[test]
        fn every_id_finds_itself(ids in prop::collection::btree_set("[0-9a-f]{4,8}", 1..20)) {
            let infos: Vec<_> = ids.iter().map(|id| info(id, None)).collect();
            for id in &ids {
                prop_assert_eq!(&picked(&infos, id).unwrap(), id);
            }
        }
    }
}
