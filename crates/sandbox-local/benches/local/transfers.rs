//! A large file into a sandbox and out of it, beside `cp` on the same disk.

use crate::{
    measure::{Aim, Row, Times},
    rows::run,
};
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use sandbox_core::{
    Body, Error, ErrorKind, ReadOptions, RemoveOptions, SandboxPath, WriteOptions, prelude::*,
};
use std::{fs, io::Write, path::Path, sync::Arc, time::Instant};
use tokio::io::AsyncReadExt;

const SIZE: usize = 100 * 1024 * 1024;
/// Bytes that are read at a time.
const PIECE: usize = 512 * 1024;
const INSIDE: &str = "/home/user/large";

/// Takes `n` turns with files in `disk`.
pub(crate) async fn row(sandbox: &Arc<dyn Sandbox>, disk: &Path, n: usize) -> Result<Row> {
    let [source, back, copy, again] =
        ["source", "back", "copy", "again"].map(|name| disk.join(name));
    fs::write(&source, vec![b'x'; SIZE])?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for _ in 0..n {
        let start = Instant::now();
        upload(sandbox, &source).await?;
        download(sandbox, &back).await?;
        ours.since(start);
        ensure!(
            fs::metadata(&back)?.len() == SIZE as u64,
            "bytes are missing"
        );
        let start = Instant::now();
        cp(&source, &copy).await?;
        cp(&copy, &again).await?;
        theirs.since(start);
        let inside = SandboxPath::new(INSIDE)?;
        sandbox
            .files()
            .remove(&inside, RemoveOptions::new())
            .await?;
        for file in [&back, &copy, &again] {
            fs::remove_file(file)?;
        }
    }
    fs::remove_file(source)?;
    Ok(Row {
        what: "100 MiB in and out",
        against: "cp, twice",
        ours,
        theirs: Ok(theirs),
        aim: Aim::AtMost(1.5),
    })
}

async fn upload(sandbox: &Arc<dyn Sandbox>, from: &Path) -> Result<()> {
    let file = tokio::fs::File::open(from).await?;
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await;
        read.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        Ok((!piece.is_empty()).then_some((piece.into(), file)))
    });
    let body = Body::stream(pieces.boxed(), Some(SIZE as u64));
    let files = sandbox.files();
    files
        .write(&SandboxPath::new(INSIDE)?, body, WriteOptions::new())
        .await?;
    Ok(())
}

async fn download(sandbox: &Arc<dyn Sandbox>, to: &Path) -> Result<()> {
    let contents = sandbox
        .files()
        .read(&SandboxPath::new(INSIDE)?, ReadOptions::new())
        .await?;
    let mut file = fs::File::create(to)?;
    let mut pieces = contents.into_stream();
    while let Some(piece) = pieces.try_next().await? {
        file = tokio::task::spawn_blocking(move || file.write_all(&piece).map(|()| file)).await??;
    }
    Ok(())
}

async fn cp(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.to_str(), to.to_str());
    let paths = from.zip(to).context("a path is no text")?;
    run("cp", &[paths.0, paths.1]).await
}
