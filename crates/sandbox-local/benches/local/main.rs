//! What the local provider costs, side by side with what else does the same work. Run by `cargo xtask bench local`.
//!
//! Each row takes turns between the two sides, so that a noisy moment hits both. A row that misses its aim is named at
//! the end, and the exit code is 1.
#![expect(clippy::print_stdout, reason = "its purpose is to print")]

mod crowd;
mod forks;
mod measure;
mod networks;
mod pooled;
mod rows;
mod steps;
mod transfers;

use anyhow::Context;
use measure::{Bound, Row, machine};
use sandbox_core::Limits;
use sandbox_local::LocalProvider;
use std::{path::PathBuf, process::ExitCode};

fn main() -> anyhow::Result<ExitCode> {
    // `cargo test --benches` does not say that it is to be measured: does it run at all?
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // Before we make the machine busy ourselves.
    let machine = machine();
    let state = tempfile::TempDir::with_prefix("sandbox-bench-")?;
    let provider = LocalProvider::builder()
        .state_dir(state.path())
        .default_limits(Limits::new())
        .build()?;
    let n = if quick { 2 } else { 100 };
    if std::env::args().any(|arg| arg == "--network") {
        let measured = runtime.block_on(networks::measure(state.path(), n, quick))?;
        return Ok(report_networks(&machine, &measured, quick));
    }
    let mut rows = runtime.block_on(rows::all(&provider, state.path(), n))?;
    let (forked, stores) = runtime.block_on(forks::rows(&provider, state.path(), n))?;
    rows.extend(forked);
    provider.prune()?;
    drop(provider);
    let (pooled, note) = runtime.block_on(pooled::rows(state.path(), n))?;
    rows.extend(pooled);
    let crowd = runtime.block_on(crowd::measure(state.path(), quick))?;
    rows.extend(crowd.rows);
    // Last, for the clock stays.
    let steps = runtime.block_on(steps::measure(state.path(), n))?;

    for line in &machine {
        println!("{line}");
    }
    println!();
    println!("{}", Row::HEADER);
    for row in &rows {
        println!("{row}");
    }
    println!("{note}");
    println!("{stores}");
    println!();
    for line in &crowd.growth {
        println!("{line}");
    }
    for bound in &crowd.bounds {
        println!("{bound}");
    }
    println!();
    for line in &steps {
        println!("{line}");
    }
    if let Some(file) = argument_after("--json") {
        let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
        let bounds: Vec<_> = crowd.bounds.iter().map(Bound::to_json).collect();
        let all = serde_json::json!({
            "machine": machine,
            "rows": rows,
            "bounds": bounds,
            "pool": note,
            "stores": stores,
            "growth": crowd.growth,
            "steps": steps,
        });
        std::fs::write(&file, format!("{all:#}\n"))
            .with_context(|| format!("write {}", file.display()))?;
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
    let over: Vec<_> = crowd
        .bounds
        .iter()
        .filter(|bound| bound.is_missed())
        .collect();
    for bound in &over {
        println!("missed: {bound}");
    }
    Ok(if (missed.is_empty() && over.is_empty()) || quick {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints what a network costs.
fn report_networks(machine: &[String], measured: &networks::Networks, quick: bool) -> ExitCode {
    for line in machine {
        println!("{line}");
    }
    println!("\n{}\n{}", Row::HEADER, measured.row);
    for bound in &measured.bounds {
        println!("{bound}");
    }
    let is_missed = measured.row.is_missed() || measured.bounds.iter().any(Bound::is_missed);
    match is_missed && !quick {
        true => {
            println!("missed an aim");
            ExitCode::FAILURE
        }
        false => ExitCode::SUCCESS,
    }
}

fn argument_after(name: &str) -> Option<PathBuf> {
    let mut arguments = std::env::args_os();
    arguments.find(|argument| argument == name)?;
    arguments.next().map(PathBuf::from)
}
