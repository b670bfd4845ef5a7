//! A program with sandboxes of its own: makes as many as its first argument says (`detached` as the second lets them
//! live on), prints their ids, and holds them until its standard input ends. The third is the size of its pool, which is
//! full before anything else happens. With a fourth it also forks each while nothing runs in it, keeps its state when something
//! does, and forks it onto a disk of its own, a `large` or a `small` one.

use sandbox_core::{SnapshotOptions, prelude::*};
use sandbox_local::LocalProvider;
use std::{
    io::{Read, Write},
    path::PathBuf,
    time::Duration,
};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().unwrap_or_else(|| "1".into()).parse()?;
    let ownership = match args.next().as_deref() {
        Some("detached") => Ownership::Detached,
        _ => Ownership::Owned,
    };
    let pool = args.next().map_or(Ok(0), |size| size.parse())?;
    let forks = args.next();
    let builder = LocalProvider::builder().pool(pool);
    let provider = match std::env::var_os("SANDBOX_STATE_DIR") {
        Some(path) => builder.state_dir(PathBuf::from(path)).build()?,
        None => builder.build()?,
    };
    while provider.pool_status().ready < pool {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut stdout = std::io::stdout();
    for _ in 0..count {
        let sandbox = provider
            .create(CreateOptions::new().ownership(ownership))
            .await?;
        if forks.is_some() {
            sandbox.files().write_bytes("idle", "yes").await?;
            let options = CreateOptions::new().ownership(ownership);
            provider.fork(sandbox.id(), 1, options).await?;
        }
        sandbox
            .exec(Command::shell("sleep 1000 & echo started > started"))
            .await?;
        if let Some(kind) = &forks {
            let snapshots = sandbox.require_snapshots()?;
            snapshots.snapshot(SnapshotOptions::new()).await?;
            let limits = match kind.as_str() {
                "large" => Limits::new().memory(64 << 20).disk(100 << 20),
                _ => Limits::new().disk(16 << 20),
            };
            let options = CreateOptions::new().ownership(ownership).limits(limits);
            let forks = provider.fork(sandbox.id(), 1, options).await?;
            forks[0].files().write_bytes("more", "of it").await?;
        }
        writeln!(stdout, "{}", sandbox.id())?;
        stdout.flush()?;
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
