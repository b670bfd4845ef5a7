//! A fork of an idle sandbox with a GiB of changes, beside `cp -a` of the same files.

use crate::{
    measure::{Aim, Row, Times},
    rows::run,
};
use anyhow::{Context, Result, ensure};
use sandbox_core::{Enforcement, Source, prelude::*};
use sandbox_local::LocalProvider;
use std::{fs, path::Path, time::Instant};

/// Files of half a MiB each.
const FILES: usize = 2000;
const FEW: usize = 20;
const SIZE: usize = 512 * 1024;

/// A row for each kind of store that this machine has, and a word on those that it lacks. Takes a tenth of `n` turns.
pub(crate) async fn rows(
    provider: &LocalProvider,
    disk: &Path,
    n: usize,
) -> Result<(Vec<Row>, String)> {
    // With two turns it is only tried whether it runs.
    let files = if n > 2 { FILES } else { FEW };
    let tree = disk.join("tree");
    fs::create_dir(&tree)?;
    for number in 0..files {
        fs::write(tree.join(number.to_string()), vec![b'x'; SIZE])?;
    }
    let plain = CreateOptions::new();
    let own = CreateOptions::new().limits(Limits::new().disk(4 << 30));
    let mut all = vec![
        row(
            "fork of 1 GiB, plain directory",
            provider,
            plain,
            &tree,
            files,
            n,
        )
        .await?,
    ];
    let report = provider.enforcement(&own);
    let wall = report
        .wall("disk")
        .context("the report tells of the disk")?;
    if wall.enforcement == Enforcement::Enforced {
        all.push(
            row(
                "fork of 1 GiB, btrfs of our own",
                provider,
                own,
                &tree,
                files,
                n,
            )
            .await?,
        );
    }
    fs::remove_dir_all(tree)?;
    Ok((all, format!("disks of their own: {}", wall.detail)))
}

async fn row(
    what: &'static str,
    provider: &LocalProvider,
    options: CreateOptions,
    tree: &Path,
    files: usize,
    n: usize,
) -> Result<Row> {
    let sandbox = provider.create(options.clone()).await?;
    let script = format!("for n in range({files}): open(f'f{{n}}', 'wb').write(b'x' * {SIZE})");
    let write = Command::new("python3").args(["-c", &script]);
    sandbox.exec(write).await?.check()?;
    // What is not on the disk yet is no part of a fork's work.
    sandbox.exec(Command::new("sync")).await?.check()?;
    let copy = tree.with_extension("copy");
    let paths = tree
        .to_str()
        .zip(copy.to_str())
        .context("a path is no text")?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for _ in 0..n.div_ceil(10) {
        // Something of its own, so that the next fork cannot stand on what the last one did.
        sandbox.files().write_bytes("/tmp/more", "x").await?;
        let start = Instant::now();
        let source = Source::Fork(sandbox.id().clone());
        let fork = provider.create(options.clone().source(source)).await?;
        ours.since(start);
        let count = fork.exec(Command::shell("ls | wc -l")).await?.check()?;
        ensure!(
            count.stdout_text().trim() == files.to_string(),
            "files are missing"
        );
        fork.kill().await?;
        let start = Instant::now();
        run("cp", &["-a", paths.0, paths.1]).await?;
        theirs.since(start);
        fs::remove_dir_all(&copy)?;
    }
    sandbox.kill().await?;
    Ok(Row {
        what,
        against: "cp -a",
        ours,
        theirs: Ok(theirs),
        aim: Aim::Faster(50.0),
    })
}
