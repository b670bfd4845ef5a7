//! `sandbox volumes`: directories that sandboxes share and that outlive them.

use crate::{
    FAILED,
    args::{VolumeNames, VolumesAction, VolumesArgs},
    output, provider,
};
use anyhow::{Context, Result};
use sandbox::{Error, local::LocalProvider};
use std::path::Path;

pub(crate) async fn volumes(state_dir: Option<&Path>, args: VolumesArgs) -> Result<u8> {
    let local = provider::local(state_dir)
        .build()
        .context("cannot use the sandboxes of this machine")?;
    match args.action {
        None => list(&local, args.json).await,
        Some(VolumesAction::Ls(ls)) => list(&local, args.json || ls.json).await,
        Some(VolumesAction::Create(VolumeNames { names, json })) => {
            let make = async |name: &str| local.create_volume(name).await;
            each(&names, json, "cannot make the volume", make).await
        }
        Some(VolumesAction::Rm(VolumeNames { names, json })) => {
            let remove = async |name: &str| local.remove_volume(name).await;
            each(&names, json, "cannot remove the volume", remove).await
        }
    }
}

/// Does it to all. One that cannot be is no reason to leave the others out.
async fn each(
    names: &[String],
    json: bool,
    cannot: &'static str,
    act: impl AsyncFn(&str) -> Result<(), Error>,
) -> Result<u8> {
    let (mut done, mut code) = (Vec::new(), 0);
    for name in names {
        match act(name).await.context(cannot) {
            Ok(()) => done.push(name.clone()),
            Err(error) => {
                output::report(&error);
                code = FAILED;
            }
        }
    }
    show(&done, json)?;
    Ok(code)
}

async fn list(local: &LocalProvider, json: bool) -> Result<u8> {
    let names = local.volumes().await.context("cannot list the volumes")?;
    if names.is_empty() && !json {
        output::remark("there are no volumes; `sandbox volumes create` makes one");
    }
    show(&names, json)?;
    Ok(0)
}

fn show(names: &[String], json: bool) -> Result<()> {
    if json {
        output::print_json(&names)?;
    } else {
        for name in names {
            output::print(name)?;
        }
    }
    Ok(())
}
