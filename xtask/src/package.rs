//! `cargo xtask package`: the published crates build from what a registry would hand out.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{context::Context, report::Outcome};

/// Packages all published crates and builds each from its package, with nothing fetched.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let members = context.metadata()?.members();
    let names = members.values().filter(|member| member.is_published());
    let packages: Vec<_> = names
        .flat_map(|member| ["--package", &member.name])
        .collect();
    // Nothing of earlier runs: Cargo takes packages of the same version for the same.
    let directory = context.metadata()?.target_directory.join("packaging");
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    let home = directory.join("home");
    fill(&home)?;
    // Whatever is being worked on is packaged as well.
    context
        .cargo(["package", "--quiet", "--offline", "--allow-dirty"])
        .arg("--target-dir")
        .arg(directory.join("target"))
        .args(&packages)
        .env("CARGO_HOME", home)
        .run()?;
    Ok(Outcome::PassedOn(format!("{} crates", packages.len() / 2)))
}

/// Makes a home for Cargo that has what the usual one has but packages of this workspace from earlier runs.
fn fill(home: &Path) -> Result<()> {
    let usual = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir()
            .context("there is no home directory")?
            .join(".cargo"),
    };
    for part in ["registry/cache", "registry/index", "registry/src"] {
        fs::create_dir_all(home.join(part))?;
        for entry in fs::read_dir(usual.join(part)).into_iter().flatten() {
            let entry = entry?;
            // Registries on disk have no name before the hash.
            if !entry.file_name().as_encoded_bytes().starts_with(b"-") {
                symlink(entry.path(), home.join(part).join(entry.file_name()))?;
            }
        }
    }
    let config = usual.join("config.toml");
    if config.exists() {
        symlink(config, home.join("config.toml"))?;
    }
    Ok(())
}
