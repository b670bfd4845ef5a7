//! `cargo xtask ci`: all checks in order. No check is written here, only their list.

use anyhow::Result;

use crate::{
    advisories,
    context::Context,
    deny, docs, features, fmt, lint, msrv, package, portable, prerequisites,
    report::{Outcome, Report},
    semver, test, tidy,
};

/// Options of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs the steps after a failed one as well.
    #[arg(long)]
    keep_going: bool,
}

/// What is not for every run, and why.
const ELSEWHERE: [(&str, &str); 3] = [
    (
        "fuzz",
        "takes minutes and a nightly compiler: `cargo xtask fuzz`",
    ),
    ("vm", "emulates a machine for minutes: `cargo xtask vm`"),
    ("bench", "wants a quiet machine: `cargo xtask bench local`"),
];

/// A check that runs alone or as a part of `ci`.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(crate) enum Step {
    /// Installs the Debian packages that the tests need, or names them.
    Prerequisites,
    /// Formatting.
    Fmt,
    /// House rules: dependency levels, manifests, module headers, `unsafe`, file length.
    Tidy,
    /// Licences and origins of all dependencies.
    Deny,
    /// Known vulnerabilities of the dependencies.
    Advisories,
    /// Clippy on all targets, warnings denied.
    Lint,
    /// Unit, integration and documentation tests.
    Test,
    /// Documentation, warnings denied.
    Docs,
    /// Each feature alone, none and all; what must stay out of a crate.
    Features,
    /// The library crates on other systems.
    Portable,
    /// Packages the published crates and builds them from their packages.
    Package,
    /// The oldest supported compiler.
    Msrv,
    /// API changes since the last release.
    Semver,
}

impl Step {
    /// In the order of `ci`: what fails fast comes first.
    const ALL: [Self; 13] = [
        Self::Prerequisites,
        Self::Fmt,
        Self::Tidy,
        Self::Deny,
        Self::Advisories,
        Self::Lint,
        Self::Test,
        Self::Docs,
        Self::Features,
        Self::Portable,
        Self::Package,
        Self::Msrv,
        Self::Semver,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Prerequisites => "prerequisites",
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Deny => "deny",
            Self::Advisories => "advisories",
            Self::Lint => "lint",
            Self::Test => "test",
            Self::Docs => "docs",
            Self::Features => "features",
            Self::Portable => "portable",
            Self::Package => "package",
            Self::Msrv => "msrv",
            Self::Semver => "semver",
        }
    }

    fn run(self, context: &Context) -> Result<Outcome> {
        match self {
            Self::Prerequisites => prerequisites::run(context),
            Self::Fmt => fmt::run(context),
            Self::Tidy => tidy::run(context),
            Self::Deny => deny::run(context),
            Self::Advisories => advisories::run(context),
            Self::Lint => lint::run(context),
            Self::Test => test::run(context),
            Self::Docs => docs::run(context),
            Self::Features => features::run(context),
            Self::Portable => portable::run(context),
            Self::Package => package::run(context),
            Self::Msrv => msrv::run(context),
            Self::Semver => semver::run(context),
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
    for (name, why) in ELSEWHERE {
        report.step(name, || Ok(Outcome::Skipped(why.to_owned())));
    }
    report.summary();
    Ok(passed)
}
