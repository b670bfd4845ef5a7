//! `cargo xtask ci`: all checks in order. No check is written here, only their list.

use anyhow::Result;

use crate::{
    context::Context,
    fmt, lint, prerequisites,
    report::{Outcome, Report},
    test, tidy,
};

/// Options of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs the steps after a failed one as well.
    #[arg(long)]
    keep_going: bool,
}

/// A check that runs alone or as a part of `ci`.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(crate) enum Step {
    /// Installs the Debian packages that the tests need, or names them.
    Prerequisites,
    /// Formatting.
    Fmt,
    /// Clippy on all targets, warnings denied.
    Lint,
    /// House rules: dependency levels, manifests, module headers, `unsafe`, file length.
    Tidy,
    /// Unit, integration and documentation tests.
    Test,
}

impl Step {
    /// In the order of `ci`: what fails fast comes first.
    const ALL: [Self; 5] = [
        Self::Prerequisites,
        Self::Fmt,
        Self::Tidy,
        Self::Lint,
        Self::Test,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Prerequisites => "prerequisites",
            Self::Fmt => "fmt",
            Self::Lint => "lint",
            Self::Tidy => "tidy",
            Self::Test => "test",
        }
    }

    fn run(self, context: &Context) -> Result<Outcome> {
        match self {
            Self::Prerequisites => prerequisites::run(context),
            Self::Fmt => fmt::run(context),
            Self::Lint => lint::run(context),
            Self::Tidy => tidy::run(context),
            Self::Test => test::run(context),
        }
    }
}

/// Runs one step; false if it failed.
pub(crate) fn run_step(context: &Context, step: Step) -> Result<bool> {
    Ok(Report::default().step(step.name(), || step.run(context)))
}

/// Runs all steps; false if one failed.
pub(crate) fn run(context: &Context, args: &Args) -> Result<bool> {
    let mut report = Report::default();
    let mut passed = true;
    for step in Step::ALL {
        if passed || args.keep_going {
            passed &= report.step(step.name(), || step.run(context));
        } else {
            report.not_run(step.name());
        }
    }
    report.summary();
    Ok(passed)
}
