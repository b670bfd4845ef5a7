//! `sandbox ls`: the sandboxes as a table, as ids, or as JSON.

use crate::{
    args::LsArgs,
    output::{self, STRONG},
    provider,
};
use anyhow::Result;
use comfy_table::{ColumnConstraint, Table, presets};
use sandbox::{Limits, ListOptions, Ownership, SandboxInfo, SandboxState};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path, time::SystemTime};

pub(crate) async fn ls(state_dir: Option<&Path>, args: LsArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let mut options = ListOptions::new();
    if !args.label.is_empty() {
        options = options.metadata(args.label.into_iter().collect::<BTreeMap<_, _>>());
    }
    let mut infos = provider::list(provider.as_ref(), options).await?;
    let total = infos.len();
    if !args.all {
        infos.retain(provider::is_independent);
    }
    if args.json {
        output::print_json(&infos.iter().map(Entry::of).collect::<Vec<_>>())?;
    } else if args.quiet {
        for info in &infos {
            output::print(&info.id)?;
        }
    } else if infos.is_empty() {
        output::remark(empty(total));
    } else {
        output::print(table(&infos, args.all, SystemTime::now()))?;
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
    state: SandboxState,
    template: Option<&'a str>,
    created_at: Option<String>,
    expires_at: Option<String>,
    ownership: Option<Ownership>,
    limits: Limits,
    labels: &'a BTreeMap<String, String>,
}

impl<'a> Entry<'a> {
    pub(crate) fn of(info: &'a SandboxInfo) -> Self {
        Self {
            id: info.id.as_str(),
            name: info.name.as_deref(),
            state: info.state,
            template: info.template.as_ref().map(AsRef::as_ref),
            created_at: info.created_at.map(output::timestamp),
            expires_at: info.expires_at.map(output::timestamp),
            ownership: info.ownership,
            limits: info.limits,
            labels: &info.metadata,
        }
    }
}

/// The sandboxes for people. Columns that say nothing are left out.
fn table(infos: &[SandboxInfo], owner: bool, now: SystemTime) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "ID", "NAME", "STATE", "TEMPLATE", "CREATED", "EXPIRES", "OWNER", "LABELS",
    ]);
    let moment = |moment: Option<SystemTime>| {
        moment.map_or_else(|| "-".to_owned(), |moment| output::relative(moment, now))
    };
    for info in infos {
        let labels: Vec<_> = info
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
            labels.join(" "),
        ];
        table.add_row(cells.map(|cell| output::printable(&cell)));
    }
    let labels = infos.iter().any(|info| !info.metadata.is_empty());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (index == 6 && !owner) || (index == 7 && !labels) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    let text = table.trim_fmt();
    match text.split_once('\n') {
        Some((header, rows)) => format!("{STRONG}{header}{STRONG:#}\n{rows}"),
        None => text,
    }
}

fn state(state: SandboxState) -> &'static str {
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
    use std::time::Duration;

    fn infos() -> (Vec<SandboxInfo>, SystemTime) {
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
        (vec![build, hostile], now)
    }

    fn plain(infos: &[SandboxInfo], owner: bool, now: SystemTime) -> String {
        anstream::adapter::strip_str(&table(infos, owner, now)).to_string()
    }

    #[test]
    fn the_table_is_reviewed() {
        let (infos, now) = infos();
        insta::assert_snapshot!("table_all", plain(&infos, true, now));
        insta::assert_snapshot!("table", plain(&infos[1..], false, now));
    }

    #[test]
    fn the_json_is_reviewed() {
        let (infos, _) = infos();
        insta::assert_json_snapshot!("json", infos.iter().map(Entry::of).collect::<Vec<_>>());
    }

    #[test]
    fn no_name_can_play_tricks_on_the_terminal() {
        let (infos, now) = infos();
        let text = plain(&infos, true, now);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        assert_eq!(text.lines().count(), 3);
    }
}
