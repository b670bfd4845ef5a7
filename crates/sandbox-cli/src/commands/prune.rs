//! `sandbox prune`: removes what crashed programs have left behind.

use crate::{args::PruneArgs, output, provider};
use anyhow::{Context, Result};
use std::path::Path;

pub(crate) fn prune(state_dir: Option<&Path>, args: &PruneArgs) -> Result<u8> {
    let local = provider::local(state_dir)
        .keep_leftovers()
        .build()
        .context("cannot use the sandboxes of this machine")?;
    let pruned = if args.dry_run {
        local.leftovers()
    } else {
        local.prune()
    }
    .context("cannot clean up")?;
    if args.json {
        output::print_json(&pruned)?;
        return Ok(0);
    }
    for id in &pruned.sandboxes {
        output::print(format_args!("sandbox {id}"))?;
    }
    for name in &pruned.templates {
        output::print(format_args!("template {}", output::printable(name)))?;
    }
    let total = pruned.sandboxes.len() + pruned.templates.len();
    output::remark(match (total, args.dry_run) {
        (0, _) => "there is nothing to remove",
        (_, true) => "this is what `sandbox prune` would remove",
        (_, false) => "this was removed",
    });
    Ok(0)
}
