//! `sandbox volumes`: directories that sandboxes share and that outlive them.

use crate::{
    args::{VolumeNames, VolumesAction, VolumesArgs},
    output, provider,
};
use anyhow::{Context, Result};
use sandbox::local::LocalProvider;
use std::path::Path;

pub(crate) async fn volumes(state_dir: Option<&Path>, args: VolumesArgs) -> Result<u8> {
    let local = provider::local(state_dir)
        .build()
        .context("cannot use the sandboxes of this machine")?;
    match args.action {
        None => list(&local, args.json).await,
        Some(VolumesAction::Ls(ls)) => list(&local, args.json || ls.json).await,
        Some(VolumesAction::Create(VolumeNames { names, json })) => {
            for name in &names {
                let made = local.create_volume(name).await;
                made.context("cannot make the volume")?;
            }
            show(&names, json)
        }
        Some(VolumesAction::Rm(VolumeNames { names, json })) => {
            for name in &names {
                let removed = local.remove_volume(name).await;
                removed.context("cannot remove the volume")?;
            }
            show(&names, json)
        }
    }
}

async fn list(local: &LocalProvider, json: bool) -> Result<u8> {
    let names = local.volumes().await.context("cannot list the volumes")?;
    if names.is_empty() && !json {
        output::remark("there are no volumes; `sandbox volumes create` makes one");
    }
    show(&names, json)
}

fn show(names: &[String], json: bool) -> Result<u8> {
    if json {
        output::print_json(&names)?;
    } else {
        for name in names {
            output::print(name)?;
        }
    }
    Ok(0)
}
