//! `cargo xtask`: everything that is done to the workspace rather than with it.
//!
//! One file per command. `cargo xtask ci` runs every check; each check is a command of its own as well.

mod advisories;
mod bench;
mod ci;
mod command;
mod context;
mod deny;
mod docs;
mod features;
mod fmt;
mod fuzz;
mod lint;
mod metadata;
mod msrv;
mod package;
mod portable;
mod prerequisites;
mod report;
mod semver;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::Parser as _;
use context::Context;
use report::Report;

/// Checks the workspace.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Task {
    /// Runs every check, as continuous integration does.
    Ci(ci::Args),
    /// Measures what a provider costs, beside other tools.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Runs the fuzz targets.
    Fuzz(fuzz::Args),
    /// Runs the local provider's tests in an emulated guest with cgroup version 2.
    Vm(vm::Args),
    #[command(flatten)]
    Step(ci::Step),
}

fn main() -> ExitCode {
    let task = Task::parse();
    let result = Context::new().and_then(|context| match task {
        Task::Ci(args) => ci::run(&context, &args),
        Task::Bench(bench) => bench::run(&context, &bench),
        Task::Fuzz(args) => Ok(Report::default().step("fuzz", || fuzz::run(&context, &args))),
        Task::Vm(args) => Ok(Report::default().step("vm", || vm::run(&context, &args))),
        Task::Step(step) => ci::run_step(&context, step),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}
