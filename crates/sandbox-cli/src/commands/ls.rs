//! `sandbox ls`: the sandboxes as a table, as ids, or as JSON.

use crate::{
    args::LsArgs,
    output,
    provider::{self, Sandboxes, Silent},
    table::Listing,
};
use anyhow::Result;
use sandbox::{Limits, ListOptions, Ownership, SandboxInfo, SandboxState};
use serde::Serialize;
use std::{borrow::Cow, collections::BTreeMap, path::Path, time::SystemTime};

pub(crate) async fn ls(state_dir: Option<&Path>, args: LsArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let mut options = ListOptions::new();
    if !args.metadata.is_empty() {
        options = options.metadata(args.metadata.into_iter().collect::<BTreeMap<_, _>>());
    }
    let mut sandboxes = provider::list(provider.as_ref(), options).await?;
    let total = sandboxes.answering.len();
    if !args.all {
        sandboxes.answering.retain(provider::is_independent);
    }
    if args.json {
        output::print_json(&entries(&sandboxes))?;
    } else if args.quiet {
        for id in sandboxes.ids() {
            output::print(id)?;
        }
    } else if sandboxes.ids().next().is_some() {
        output::print(table(&sandboxes, args.all, SystemTime::now()))?;
    } else {
        output::remark(empty(total));
    }
    for silent in &sandboxes.silent {
        silent.note();
    }
    Ok(0)
}

/// What an empty list means.
fn empty(total: usize) -> &'static str {
    match total {
        0 => "there are no sandboxes; `sandbox create` makes one",
        _ => "there are only sandboxes of running programs; `sandbox ls -a` shows them",
    }
}

/// A sandbox for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    id: &'a str,
    name: Option<&'a str>,
    /// `None` if it does not answer.
    state: Option<SandboxState>,
    template: Option<&'a str>,
    created_at: Option<String>,
    expires_at: Option<String>,
    ownership: Option<Ownership>,
    limits: Limits,
    metadata: Cow<'a, BTreeMap<String, String>>,
    /// Why nothing else is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> Entry<'a> {
    pub(crate) fn of(info: &'a SandboxInfo) -> Self {
        Self {
            id: info.id.as_str(),
            name: info.name.as_deref(),
            state: Some(info.state),
            template: info.template.as_ref().map(AsRef::as_ref),
            created_at: info.created_at.map(output::timestamp),
            expires_at: info.expires_at.map(output::timestamp),
            ownership: info.ownership,
            limits: info.limits,
            metadata: Cow::Borrowed(&info.metadata),
            error: None,
        }
    }

    fn silent(silent: &'a Silent) -> Option<Self> {
        Some(Self {
            id: silent.id.as_ref()?.as_str(),
            name: None,
            state: None,
            template: None,
            created_at: None,
            expires_at: None,
            ownership: None,
            limits: Limits::new(),
            metadata: Cow::default(),
            error: Some(silent.error.message().to_owned()),
        })
    }
}

/// All of which the id is known.
fn entries(sandboxes: &Sandboxes) -> Vec<Entry<'_>> {
    let answering = sandboxes.answering.iter().map(Entry::of);
    let silent = sandboxes.silent.iter().filter_map(Entry::silent);
    answering.chain(silent).collect()
}

const COLUMNS: [&str; 8] = [
    "ID", "NAME", "STATE", "TEMPLATE", "CREATED", "EXPIRES", "OWNER", "METADATA",
];

/// The sandboxes for people. Columns that say nothing are left out.
fn table(sandboxes: &Sandboxes, owner: bool, now: SystemTime) -> String {
    let mut table = Listing::new(COLUMNS);
    let moment = |moment: Option<SystemTime>| {
        moment.map_or_else(|| "-".to_owned(), |moment| output::relative(moment, now))
    };
    for info in &sandboxes.answering {
        let metadata: Vec<_> = info
            .metadata
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let cells = [
            info.id.to_string(),
            info.name.clone().unwrap_or_else(|| "-".to_owned()),
            state(info.state).to_owned(),
            info.template
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            moment(info.created_at),
            moment(info.expires_at),
            match info.ownership {
                Some(Ownership::Owned) => "a program".to_owned(),
                _ => "-".to_owned(),
            },
            metadata.join(" "),
        ];
        table.row(cells);
    }
    for id in sandboxes
        .silent
        .iter()
        .filter_map(|silent| silent.id.as_ref())
    {
        let mut cells = ["-"; COLUMNS.len()].map(str::to_owned);
        cells[0] = id.to_string();
        cells[2] = "unknown".to_owned();
        table.row(cells);
    }
    let mut infos = sandboxes.answering.iter();
    let metadata = infos.any(|info| !info.metadata.is_empty());
    if !owner {
        table.hide(6);
    }
    if !metadata {
        table.hide(7);
    }
    table.text()
}

pub(crate) fn state(state: SandboxState) -> &'static str {
    match state {
        SandboxState::Starting => "starting",
        SandboxState::Running => "running",
        SandboxState::Paused => "paused",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::{Error, ErrorKind};
    use std::time::Duration;

    fn sandboxes() -> (Sandboxes, SystemTime) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut build = SandboxInfo::new("sjx2k4q7ab3m5np6".into(), SandboxState::Running);
        build.name = Some("build".to_owned());
        build.template = Some("host".into());
        build.created_at = Some(now - Duration::from_secs(125));
        build.expires_at = Some(now + Duration::from_secs(7075));
        build.ownership = Some(Ownership::Detached);
        build.limits = Limits::new().memory(2 << 30).cpus(0.5).processes(512);
        build.metadata = [("job".to_owned(), "nightly".to_owned())].into();
        let mut hostile = SandboxInfo::new("s2".into(), SandboxState::Paused);
        hostile.name = Some("a\u{1b}[2J\nb".to_owned());
        hostile.ownership = Some(Ownership::Owned);
        let silent = Silent {
            id: Some("s3".into()),
            error: Error::new(ErrorKind::Timeout, "no answer within 15s"),
        };
        let sandboxes = Sandboxes {
            answering: vec![build, hostile],
            silent: vec![silent],
        };
        (sandboxes, now)
    }

    fn plain(sandboxes: &Sandboxes, owner: bool, now: SystemTime) -> String {
        anstream::adapter::strip_str(&table(sandboxes, owner, now)).to_string()
    }

    #[test]
    fn the_table_is_reviewed() {
        let (mut sandboxes, now) = sandboxes();
        insta::assert_snapshot!("table_all", plain(&sandboxes, true, now));
        sandboxes.answering.remove(0);
        sandboxes.silent.clear();
        insta::assert_snapshot!("table", plain(&sandboxes, false, now));
    }

    #[test]
    fn the_json_is_reviewed() {
        let (sandboxes, _) = sandboxes();
        insta::assert_json_snapshot!("json", entries(&sandboxes));
    }

    #[test]
    fn no_name_can_play_tricks_on_the_terminal() {
        let (sandboxes, now) = sandboxes();
        let text = plain(&sandboxes, true, now);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        assert_eq!(text.lines().count(), 4);
    }
}
