//! Where the sandboxes of a command come from, and how one is found among them.

use crate::{args::SandboxArgs, output, parse::Opening};
use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use sandbox::{
    ConnectOptions, Error, ErrorKind, ListOptions, Ownership, ProviderExt, Sandbox, SandboxId,
    SandboxInfo, SandboxProvider,
    layers::TracingLayer,
    local::{LocalBuilder, LocalProvider},
};
use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};
use tokio::time;

/// How long a sandbox may take to say that it is there. It does nothing for that, so this is for very busy machines.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long the end of a sandbox may take. One that does not answer is asked first, and killed then.
const KILL_WITHIN: Duration = Duration::from_secs(60);

/// How the sandboxes of this machine are opened: where the option says, else the environment, else the default.
pub(crate) fn local(state_dir: Option<&Path>) -> LocalBuilder {
    let directory = state_dir.map(Path::to_owned).or_else(|| {
        let directory = std::env::var_os("SANDBOX_STATE_DIR")?;
        (!directory.is_empty()).then(|| directory.into())
    });
    match directory {
        Some(directory) => LocalProvider::builder().state_dir(directory),
        None => LocalProvider::builder(),
    }
}

/// The provider that commands use.
pub(crate) fn open(state_dir: Option<&Path>) -> Result<Arc<dyn SandboxProvider>> {
    build(relayed(local(state_dir))?)
}

/// The provider for a new sandbox, with leave to share the folders and to reach the networks that the command line names:
/// whoever has written it owns them, or could use them anyway.
pub(crate) fn open_for(
    state_dir: Option<&Path>,
    args: &SandboxArgs,
) -> Result<Arc<dyn SandboxProvider>> {
    let folders = args.volumes.iter().map(|volume| &volume.source);
    let mut builder =
        local(state_dir).host_folders(folders.filter(|source| source.starts_with('/')));
    for Opening {
        address,
        prefix,
        port,
    } in args.network.open.iter().cloned()
    {
        builder = builder.open_network(address, prefix, port);
    }
    for port in &args.network.allow_host_port {
        builder = builder.open_network(Ipv4Addr::LOCALHOST.into(), 32, Some(*port));
    }
    let nameservers = &args.network.nameserver;
    if !nameservers.is_empty() {
        builder = builder.nameservers(nameservers.iter().copied());
    }
    build(relayed(builder)?)
}

/// With this very program as that which carries the connections of detached sandboxes.
fn relayed(builder: LocalBuilder) -> Result<LocalBuilder> {
    let program = std::env::current_exe().context("cannot find the program that is running")?;
    Ok(builder.relay_program(program, ["relay"]))
}

fn build(builder: LocalBuilder) -> Result<Arc<dyn SandboxProvider>> {
    let provider = builder
        .build()
        .context("cannot use the sandboxes of this machine")?;
    Ok(if output::is_logging() {
        Arc::new(provider.layer(TracingLayer::new()))
    } else {
        Arc::new(provider)
    })
}

/// All living sandboxes, as far as they answer.
#[derive(Debug, Default)]
pub(crate) struct Sandboxes {
    pub(crate) answering: Vec<SandboxInfo>,
    pub(crate) silent: Vec<Silent>,
}

/// A sandbox that does not say what it is. The others have nothing to do with that.
#[derive(Debug)]
pub(crate) struct Silent {
    /// `None` if not even that is known, or if it may be more than one.
    pub(crate) id: Option<SandboxId>,
    pub(crate) error: Error,
}

impl Silent {
    /// Says of it what is known, and what can be done.
    pub(crate) fn note(&self) {
        let reason = output::printable(self.error.message());
        output::note(match &self.id {
            Some(id) => format!("{id}: {reason}; `sandbox kill {id}` kills it"),
            None => format!("the list is incomplete: {reason}"),
        });
    }
}

/// Lists the living sandboxes.
///
/// # Errors
/// What went wrong, if no sandbox could be found out about at all.
pub(crate) async fn list(
    provider: &dyn SandboxProvider,
    options: ListOptions,
) -> Result<Sandboxes> {
    let mut sandboxes = list_until(provider, options, |_| false).await;
    if sandboxes.ids().next().is_none()
        && let Some(silent) = sandboxes.silent.pop()
    {
        return Err(silent.error).context("cannot list the sandboxes");
    }
    Ok(sandboxes)
}

/// Lists sandboxes up to the one that is enough.
async fn list_until(
    provider: &dyn SandboxProvider,
    options: ListOptions,
    is_enough: impl Fn(&SandboxInfo) -> bool,
) -> Sandboxes {
    let mut entries = provider.list(options);
    let mut sandboxes = Sandboxes::default();
    loop {
        match time::timeout(ANSWER_WITHIN, entries.next()).await {
            Ok(None) => return sandboxes,
            Ok(Some(Ok(info))) => {
                let is_enough = is_enough(&info);
                sandboxes.answering.push(info);
                if is_enough {
                    return sandboxes;
                }
            }
            Ok(Some(Err(error))) => {
                let id = error.context("id").map(SandboxId::new);
                sandboxes.silent.push(Silent { id, error });
            }
            Err(_) => {
                let error = late(ANSWER_WITHIN);
                sandboxes.silent.push(Silent { id: None, error });
                return sandboxes;
            }
        }
    }
}

/// Reaches a sandbox by id, name, or the start of its id. The others are asked only if it is no id.
pub(crate) async fn reach(provider: &dyn SandboxProvider, text: &str) -> Result<Arc<dyn Sandbox>> {
    require_text(text)?;
    match connect(provider, &SandboxId::new(text)).await {
        Err(error) if error.kind() == ErrorKind::SandboxNotFound => {}
        reached => return explained(reached, text),
    }
    // Names are unique, so whoever comes after that one may be as slow as he likes.
    let is_named = |info: &SandboxInfo| info.name.as_deref() == Some(text);
    let sandboxes = list_until(provider, ListOptions::new(), is_named).await;
    let id = sandboxes.pick(text)?;
    explained(connect(provider, id).await, id.as_str())
}

async fn connect(
    provider: &dyn SandboxProvider,
    id: &SandboxId,
) -> Result<Arc<dyn Sandbox>, Error> {
    let reached = provider.connect(id, ConnectOptions::new());
    time::timeout(ANSWER_WITHIN, reached)
        .await
        .unwrap_or_else(|_| Err(late(ANSWER_WITHIN)))
}

fn explained<T>(reached: Result<T, Error>, text: &str) -> Result<T> {
    reached.with_context(|| format!("cannot reach the sandbox {text}"))
}

/// Kills a sandbox, which need not answer; false if it was gone.
pub(crate) async fn kill(provider: &dyn SandboxProvider, id: &SandboxId) -> Result<bool> {
    time::timeout(KILL_WITHIN, provider.kill(id))
        .await
        .unwrap_or_else(|_| Err(late(KILL_WITHIN)))
        .with_context(|| format!("cannot kill the sandbox {id}"))
}

pub(crate) fn late(limit: Duration) -> Error {
    let message = format!("no answer within {}", output::spell(limit));
    Error::new(ErrorKind::Timeout, message)
}

/// Whether it is its own master, and not part of a running program.
pub(crate) fn is_independent(info: &SandboxInfo) -> bool {
    info.ownership != Some(Ownership::Owned)
}

/// Refuses a text that would be the start of every id.
pub(crate) fn require_text(text: &str) -> Result<()> {
    if text.is_empty() {
        bail!("an id must not be empty; `sandbox ls -a` shows the ids");
    }
    Ok(())
}

impl Sandboxes {
    /// The sandbox that `text` means: an id before a name, and both before the start of an id.
    pub(crate) fn pick(&self, text: &str) -> Result<&SandboxId> {
        require_text(text)?;
        let named = |info: &&SandboxInfo| info.name.as_deref() == Some(text);
        let exact = self.ids().find(|id| id.as_str() == text);
        let named = || self.answering.iter().find(named).map(|info| &info.id);
        if let Some(id) = exact.or_else(named) {
            return Ok(id);
        }
        let matches: Vec<_> = self
            .ids()
            .filter(|id| id.as_str().starts_with(text))
            .collect();
        match matches[..] {
            [id] => Ok(id),
            [] if self.silent.is_empty() => {
                bail!("there is no sandbox {text:?}; `sandbox ls -a` shows those that live")
            }
            [] => bail!(
                "no sandbox that answers is named {text:?}; `sandbox ls -a` shows all, use the id"
            ),
            _ => {
                let ids: Vec<_> = matches.iter().map(|id| id.as_str()).collect();
                bail!(
                    "{text:?} can mean {}; write more of the id",
                    ids.join(" or ")
                )
            }
        }
    }

    /// The ids that are known.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &SandboxId> {
        let silent = self.silent.iter().filter_map(|silent| silent.id.as_ref());
        self.answering.iter().map(|info| &info.id).chain(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbox::SandboxState;

    fn info(id: &str, name: Option<&str>) -> SandboxInfo {
        let mut info = SandboxInfo::new(SandboxId::new(id), SandboxState::Running);
        info.name = name.map(str::to_owned);
        info
    }

    fn sandboxes(infos: &[SandboxInfo], silent: &[&str]) -> Sandboxes {
        let silent = silent.iter().map(|id| Silent {
            id: Some(SandboxId::new(*id)),
            error: late(ANSWER_WITHIN),
        });
        Sandboxes {
            answering: infos.to_vec(),
            silent: silent.collect(),
        }
    }

    fn picked(infos: &[SandboxInfo], text: &str) -> Result<String, String> {
        picked_of(&sandboxes(infos, &[]), text)
    }

    fn picked_of(sandboxes: &Sandboxes, text: &str) -> Result<String, String> {
        sandboxes
            .pick(text)
            .map(ToString::to_string)
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

    #[test]
    fn a_sandbox_that_does_not_answer_goes_by_its_id() {
        let infos = [info("abc1", Some("x"))];
        let sandboxes = sandboxes(&infos, &["abd2"]);
        assert_eq!(picked_of(&sandboxes, "abd2").unwrap(), "abd2");
        assert_eq!(picked_of(&sandboxes, "abd").unwrap(), "abd2");
        assert_eq!(picked_of(&sandboxes, "x").unwrap(), "abc1");
        assert!(picked_of(&sandboxes, "ab").unwrap_err().contains(" or "));
        let unknown = picked_of(&sandboxes, "y").unwrap_err();
        assert!(unknown.contains("use the id"), "{unknown}");
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
