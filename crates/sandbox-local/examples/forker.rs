//! A program that forks the sandbox of its first argument until it is killed: before each fork it writes a number into it,
//! which it prints when that is there.

use sandbox_core::{SandboxId, prelude::*};
use sandbox_local::LocalProvider;
use std::{io::Write, path::PathBuf};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let id = SandboxId::new(args.next().unwrap_or_default());
    let first: u64 = args.next().map_or(Ok(0), |number| number.parse())?;
    let mut builder = LocalProvider::builder().keep_leftovers();
    if let Some(path) = std::env::var_os("SANDBOX_STATE_DIR") {
        builder = builder.state_dir(PathBuf::from(path));
    }
    let provider = builder.build()?;
    let sandbox = provider.sandbox(&id);
    let mut stdout = std::io::stdout();
    for number in first.. {
        sandbox
            .files()
            .write_bytes("number", number.to_string())
            .await?;
        writeln!(stdout, "{number}")?;
        stdout.flush()?;
        let forks = provider.fork(&id, 1, CreateOptions::new()).await?;
        let forked = forks[0].files().read_text("number").await?;
        anyhow::ensure!(forked == number.to_string(), "{forked} is not {number}");
        forks[0].kill().await?;
    }
    Ok(())
}
