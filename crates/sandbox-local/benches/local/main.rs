//! What the local provider costs, side by side with what else does the same work. Run by `cargo xtask bench local`.
//!
//! Each row takes turns between the two sides, so that a noisy moment hits both. A row that misses its aim is named at
//! the end, and the exit code is 1.
#![expect(clippy::print_stdout, reason = "its purpose is to print")]

mod measure;
mod rows;

use measure::{Row, machine};
use sandbox_core::Limits;
use sandbox_local::LocalProvider;
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    // `cargo test --benches` asks whether it runs at all, not how fast.
    let quick = std::env::args().any(|arg| arg == "--test");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let state = tempfile::TempDir::with_prefix("sandbox-bench-")?;
    let provider = LocalProvider::builder()
        .state_dir(state.path())
        .default_limits(Limits::new())
        .build()?;
    let rows = runtime.block_on(rows::all(&provider, if quick { 2 } else { 100 }))?;
    drop(provider);

    for line in machine() {
        println!("{line}");
    }
    println!();
    println!("{}", Row::HEADER);
    for row in &rows {
        println!("{row}");
    }
    let missed: Vec<_> = rows.iter().filter(|row| row.is_missed()).collect();
    for row in &missed {
        println!(
            "missed: {} against {}: {:.2}x, the aim is {}",
            row.what,
            row.against,
            row.ratio(),
            row.aim
        );
    }
    Ok(if missed.is_empty() || quick {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
