//! The comparisons.

use crate::{
    measure::{Aim, Row, Times},
    transfers,
};
use anyhow::{Context, Result, ensure};
use sandbox_core::prelude::*;
use sandbox_local::LocalProvider;
use std::{path::Path, process::Stdio, sync::Arc, time::Instant};
use tokio::{io::AsyncReadExt, process};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Arguments of `bwrap` for all namespaces that it has, a read-only root and the program `true`.
#[rustfmt::skip]
pub(crate) const BWRAP: &[&str] = &[
    "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true",
];

/// Takes all rows, most of them with `n` turns; `disk` is a directory on the disk of the sandboxes.
pub(crate) async fn all(provider: &LocalProvider, disk: &Path, n: usize) -> Result<Vec<Row>> {
    // The first creation makes the template.
    provider.create(CreateOptions::new()).await?.kill().await?;
    let sandbox = provider.create(CreateOptions::new()).await?;
    let rows = vec![
        cold(provider, n).await?,
        exec(&sandbox, n).await?,
        exec_docker(&sandbox, n).await?,
        files(&sandbox, n).await?,
        stdout(&sandbox, n.div_ceil(10)).await?,
        transfers::row(&sandbox, disk, n).await?,
    ];
    sandbox.kill().await?;
    Ok(rows)
}

/// Runs a program to its end, as any caller on this runtime would.
pub(crate) async fn run(program: &str, args: &[&str]) -> Result<()> {
    let status = process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await;
    ensure!(
        status
            .with_context(|| format!("start {program}"))?
            .success(),
        "{program} failed"
    );
    Ok(())
}

pub(crate) async fn is_there(program: &str, args: &[&str]) -> bool {
    let mut command = process::Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

async fn cold(provider: &LocalProvider, n: usize) -> Result<Row> {
    let mut ours = Times::default();
    let mut theirs = if is_there("bwrap", BWRAP).await {
        Ok(Times::default())
    } else {
        Err("bwrap does not run here".into())
    };
    for _ in 0..n {
        let start = Instant::now();
        let sandbox = provider.create(CreateOptions::new()).await?;
        ensure!(
            sandbox.exec(Command::new("true")).await?.status.success(),
            "true failed"
        );
        sandbox.kill().await?;
        ours.since(start);
        if let Ok(theirs) = &mut theirs {
            let start = Instant::now();
            run("bwrap", BWRAP).await?;
            theirs.since(start);
        }
    }
    Ok(Row {
        what: "create + true + kill, no limits",
        against: "bwrap --unshare-all",
        ours,
        theirs,
        aim: Aim::AtMost(1.25),
    })
}

async fn exec(sandbox: &Arc<dyn Sandbox>, n: usize) -> Result<Row> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for _ in 0..n * 3 {
        let start = Instant::now();
        ensure!(
            sandbox.exec(Command::new("true")).await?.status.success(),
            "true failed"
        );
        ours.since(start);
        let start = Instant::now();
        run("true", &[]).await?;
        theirs.since(start);
    }
    Ok(Row {
        what: "exec true",
        against: "fork + exec",
        ours,
        theirs: Ok(theirs),
        aim: Aim::AtMost(1.5),
    })
}

/// Makes an image of some programs of this machine, so that nothing is fetched, and returns its name.
pub(crate) async fn docker_image() -> Result<&'static str> {
    let image = "sandbox-bench-true";
    run("sh", &["-c", &format!("tar -C / -hc bin/sleep bin/true lib lib64 2>/dev/null | docker import - {image} >/dev/null")]).await?;
    Ok(image)
}

async fn exec_docker(sandbox: &Arc<dyn Sandbox>, n: usize) -> Result<Row> {
    let (mut ours, aim) = (Times::default(), Aim::Faster(50.0));
    let (what, against) = ("exec true", "docker exec");
    if !is_there("docker", &["info"]).await {
        ours.since(Instant::now());
        return Ok(Row {
            what,
            against,
            ours,
            theirs: Err("no docker engine answers here".into()),
            aim,
        });
    }
    let image = docker_image().await?;
    run(
        "docker",
        &[
            "run",
            "-d",
            "--rm",
            "--network",
            "none",
            "--name",
            image,
            image,
            "/bin/sleep",
            "600",
        ],
    )
    .await?;
    let mut theirs = Times::default();
    for _ in 0..n.min(30) {
        let start = Instant::now();
        ensure!(
            sandbox.exec(Command::new("true")).await?.status.success(),
            "true failed"
        );
        ours.since(start);
        let start = Instant::now();
        run("docker", &["exec", image, "/bin/true"]).await?;
        theirs.since(start);
    }
    run("docker", &["kill", image]).await?;
    Ok(Row {
        what,
        against,
        ours,
        theirs: Ok(theirs),
        aim,
    })
}

async fn files(sandbox: &Arc<dyn Sandbox>, n: usize) -> Result<Row> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let contents = vec![b'x'; KIB];
    let host = tempfile::tempdir()?;
    let path = host.path().join("file");
    for _ in 0..n * 3 {
        let start = Instant::now();
        sandbox
            .files()
            .write_bytes("/home/user/file", contents.clone())
            .await?;
        ensure!(
            sandbox.files().read_bytes("/home/user/file").await? == contents,
            "contents differ"
        );
        ours.since(start);
        let start = Instant::now();
        tokio::fs::write(&path, &contents).await?;
        ensure!(tokio::fs::read(&path).await? == contents, "contents differ");
        theirs.since(start);
    }
    Ok(Row {
        what: "write and read a file of 1 KiB",
        against: "tokio::fs on the host",
        ours,
        theirs: Ok(theirs),
        aim: Aim::AtMost(5.0),
    })
}

async fn stdout(sandbox: &Arc<dyn Sandbox>, n: usize) -> Result<Row> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let size = 100 * MIB;
    let count = size.to_string();
    for _ in 0..n {
        let start = Instant::now();
        let mut process = sandbox
            .spawn(Command::new("head").args(["-c", &count, "/dev/zero"]))
            .await?;
        let mut read = 0;
        while let Some(event) = process.try_next().await? {
            if let ProcessEvent::Stdout(bytes) = event {
                read += bytes.len();
            }
        }
        ours.since(start);
        ensure!(read == size, "{read} bytes came of {size}");
        let start = Instant::now();
        ensure!(pipe(&count).await? == size, "the pipe lost bytes");
        theirs.since(start);
    }
    Ok(Row {
        what: "100 MiB of stdout",
        against: "a pipe",
        ours,
        theirs: Ok(theirs),
        aim: Aim::AtMost(1.5),
    })
}

async fn pipe(count: &str) -> Result<usize> {
    let mut child = process::Command::new("head")
        .args(["-c", count, "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().context("a pipe was asked for")?;
    let mut buffer = vec![0; 64 * KIB];
    let mut read = 0;
    loop {
        match stdout.read(&mut buffer).await? {
            0 => break,
            count => read += count,
        }
    }
    child.wait().await?;
    Ok(read)
}
