//! `sandbox cp`: files and directories into a sandbox or out of it.

use crate::{
    FAILED,
    args::CpArgs,
    output, provider, stdio,
    transfer::{
        Progress, Report,
        download::Download,
        spec::{Place, Side},
        upload::Upload,
    },
};
use anyhow::{Result, bail};
use std::path::Path;

pub(crate) async fn cp(state_dir: Option<&Path>, args: CpArgs) -> Result<u8> {
    let (source, destination) = (Side::parse(&args.source)?, Side::parse(&args.destination)?);
    // To standard output goes what was asked for, and nothing else.
    let json = args.json && destination != Side::Stdio;
    let report = match (source, destination) {
        (Side::Sandbox { .. }, Side::Sandbox { .. }) => {
            bail!(
                "one of the two must be of this machine; copy out of one sandbox, then into the other"
            )
        }
        (source, Side::Sandbox { id, path }) => into(state_dir, &args, source, &id, &path).await?,
        (Side::Sandbox { id, path }, destination) => {
            out_of(state_dir, &args, &id, &path, destination).await?
        }
        _ => bail!("one of the two must be in a sandbox, written ID:PATH"),
    };
    if json {
        output::print_json(&report)?;
    } else if !args.quiet {
        report.note_skipped();
        output::remark(report.summary());
    }
    Ok(if report.incomplete { FAILED } else { 0 })
}

async fn into(
    state_dir: Option<&Path>,
    args: &CpArgs,
    source: Side,
    id: &str,
    path: &str,
) -> Result<Report> {
    let place = Place::parse(path)?;
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), id).await?;
    let upload = Upload {
        sandbox: sandbox.as_ref(),
        user: args.user.clone(),
        progress: progress(args),
    };
    match source {
        Side::Here(source) => upload.copy(&source, &place).await,
        // In the background it is stopped by its terminal, as anything that has to read.
        _ => upload.stream(stdio::read_stdin(|| false), &place).await,
    }
}

async fn out_of(
    state_dir: Option<&Path>,
    args: &CpArgs,
    id: &str,
    path: &str,
    destination: Side,
) -> Result<Report> {
    let place = Place::parse(path)?;
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), id).await?;
    let download = Download {
        sandbox: sandbox.as_ref(),
        user: args.user.clone(),
        progress: progress(args),
    };
    match destination {
        Side::Here(destination) => download.copy(&place, &destination).await,
        _ => download.print(&place).await,
    }
}

fn progress(args: &CpArgs) -> Progress {
    if args.quiet || args.json {
        Progress::hidden()
    } else {
        Progress::shown()
    }
}
