//! `sandbox templates`: what sandboxes can start from; imports, shows and removes it.

use crate::{
    FAILED,
    args::{ImportArgs, TemplatesAction, TemplatesArgs},
    output::{self, STRONG},
    provider,
    table::Listing,
};
use anyhow::{Context, Result};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandbox::{
    TemplateId,
    local::{ImportOptions, ImportProgress, ImportedTemplate, LocalProvider, Origin},
};
use serde::Serialize;
use std::{collections::BTreeMap, io::IsTerminal, path::Path, time::SystemTime};

/// Digits of a digest that are shown to people. They are enough to name it.
const DIGITS: usize = 19;

pub(crate) async fn templates(state_dir: Option<&Path>, args: TemplatesArgs) -> Result<u8> {
    let local = provider::local(state_dir)
        .build()
        .context("cannot use the sandboxes of this machine")?;
    match args.action {
        None => list(&local, args.json).await,
        Some(TemplatesAction::Ls(list_args)) => list(&local, args.json || list_args.json).await,
        Some(TemplatesAction::Import(import_args)) => import(&local, import_args).await,
        Some(TemplatesAction::Inspect(inspect)) => {
            let template = local.imported_template(&inspect.id.into()).await;
            let template = template.context("cannot find the template")?;
            if inspect.json {
                output::print_json(&Entry::of(&template))?;
            } else {
                output::print(details(&template))?;
            }
            Ok(0)
        }
        Some(TemplatesAction::Rm(rm)) => remove(&local, &rm.ids, rm.json).await,
    }
}

/// A template for programs.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    id: &'a str,
    names: Vec<&'a str>,
    origin: Option<Origin>,
    created_at: Option<String>,
    bytes: Option<u64>,
    entries: Option<u64>,
    in_use: Option<bool>,
    env: Option<&'a BTreeMap<String, String>>,
    notices: &'a [String],
}

impl<'a> Entry<'a> {
    fn of(template: &'a ImportedTemplate) -> Self {
        Self {
            id: template.id.as_str(),
            names: template.names.iter().map(TemplateId::as_str).collect(),
            origin: Some(template.origin),
            created_at: Some(output::timestamp(template.created_at)),
            bytes: Some(template.bytes),
            entries: Some(template.entries),
            in_use: Some(template.in_use),
            env: Some(&template.env),
            notices: &template.notices,
        }
    }

    /// The one that is always there.
    fn host() -> Self {
        Self {
            id: "host",
            names: vec!["base"],
            origin: None,
            created_at: None,
            bytes: None,
            entries: None,
            in_use: None,
            env: None,
            notices: &[],
        }
    }
}

async fn list(local: &LocalProvider, json: bool) -> Result<u8> {
    let imported = local.imported_templates().await;
    let imported = imported.context("cannot list the templates")?;
    if json {
        let all = std::iter::once(Entry::host()).chain(imported.iter().map(Entry::of));
        output::print_json(&all.collect::<Vec<_>>())?;
        return Ok(0);
    }
    let mut table = Listing::new(["NAME", "ID", "FROM", "SIZE", "CREATED", "USED"]);
    table.row(["host", "-", "this machine's own programs", "-", "-", "-"].map(str::to_owned));
    let now = SystemTime::now();
    for template in &imported {
        let names: Vec<_> = template.names.iter().map(TemplateId::as_str).collect();
        let names = match names.join(", ") {
            none if none.is_empty() => "-".to_owned(),
            names => names,
        };
        table.row([
            names,
            short(template),
            template.origin.to_string(),
            HumanBytes(template.bytes).to_string(),
            output::relative(template.created_at, now),
            if template.in_use { "yes" } else { "no" }.to_owned(),
        ]);
    }
    output::print(table.text())?;
    Ok(0)
}

fn short(template: &ImportedTemplate) -> String {
    template.id.as_str().chars().take(DIGITS).collect()
}

async fn import(local: &LocalProvider, args: ImportArgs) -> Result<u8> {
    let mut options = ImportOptions::new();
    options.name = args.name;
    options.reference = args.reference;
    if let Some(bytes) = args.max_size {
        options = options.max_bytes(bytes);
    }
    if let Some(entries) = args.max_entries {
        options = options.max_entries(entries);
    }
    let bar = if args.json || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
    };
    let shown = bar.clone();
    let options = options.progress(move |progress| show(&shown, progress));
    let imported = local.import_template(&args.path, options).await;
    bar.finish_and_clear();
    let imported =
        imported.with_context(|| format!("cannot import {}", args.path.to_string_lossy()))?;
    for notice in &imported.notices {
        output::note(notice);
    }
    if args.json {
        output::print_json(&Entry::of(&imported))?;
    } else {
        output::print(&imported.id)?;
    }
    Ok(0)
}

/// Draws how far an import has come.
fn show(bar: &ProgressBar, progress: ImportProgress) {
    const BAR: &str = "{msg}  {bar:30} {percent:>3}%  {bytes} of {total_bytes}  {eta} left";
    const NO_TOTAL: &str = "{msg}  {bytes}  {bytes_per_sec}";
    if bar.is_hidden() {
        return;
    }
    let step = if progress.writing {
        "writing"
    } else {
        "reading"
    };
    if bar.message() != step {
        bar.reset();
        bar.set_message(step);
        let style = if progress.total.is_some() {
            BAR
        } else {
            NO_TOTAL
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("━╸─"));
        }
    }
    if let Some(total) = progress.total {
        bar.set_length(total);
    }
    bar.set_position(progress.read);
}

/// All that is known of a template, a line each.
fn details(template: &ImportedTemplate) -> String {
    let names: Vec<_> = template.names.iter().map(TemplateId::as_str).collect();
    let mut lines = vec![
        ("id", template.id.to_string()),
        ("names", names.join(", ")),
        ("from", template.origin.to_string()),
        ("created", output::timestamp(template.created_at)),
        (
            "size",
            format!(
                "{} in {} entries",
                HumanBytes(template.bytes),
                template.entries
            ),
        ),
        (
            "in use",
            if template.in_use { "yes" } else { "no" }.to_owned(),
        ),
    ];
    let env = template
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    lines.extend(env.map(|text| ("env", output::printable(&text))));
    lines.extend(
        template
            .notices
            .iter()
            .map(|notice| ("notice", notice.clone())),
    );
    let lines = lines
        .into_iter()
        .map(|(name, text)| format!("{STRONG}{name:<8}{STRONG:#} {text}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What became of a template that was to be removed.
#[derive(Debug, Serialize)]
struct Removed {
    id: String,
    /// Whether only one of its names has gone.
    kept: bool,
}

/// Removes all that can be. One that cannot is no reason to leave the others.
async fn remove(local: &LocalProvider, ids: &[String], json: bool) -> Result<u8> {
    let (mut removed, mut code) = (Vec::new(), 0);
    for id in ids {
        let gone = local.remove_template(&TemplateId::new(id)).await;
        let gone = match gone.with_context(|| format!("cannot remove {}", output::printable(id))) {
            Ok(gone) => gone,
            Err(error) => {
                output::report(&error);
                code = FAILED;
                continue;
            }
        };
        if !json {
            let kept = if gone { "" } else { " (it has other names)" };
            output::print(format_args!("{}{kept}", output::printable(id)))?;
        }
        removed.push(Removed {
            id: id.clone(),
            kept: !gone,
        });
    }
    if json {
        output::print_json(&removed)?;
    }
    Ok(code)
}
