//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy knows. Messages say the fix.

mod documents;
mod files;
mod levels;
mod manifests;
mod sources;
mod strip;

use std::{fmt, fs};

use anyhow::{Result, bail};

use crate::{context::Context, report::Outcome};

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// File below the workspace, or the name of a crate.
    place: String,
    /// Line, counted from 1.
    line: Option<usize>,
    /// What is wrong and how to mend it.
    message: String,
}

impl Problem {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            line: None,
            message: message.into(),
        }
    }

    fn at(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Checks all rules and names every place that breaks one.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let mut problems = levels::check(context.metadata()?);
    let workspace = fs::read_to_string(context.root().join("Cargo.toml"))?;
    let files = files::find(context.root())?;
    for path in &files {
        problems.extend(files::check_name(path));
        let Some(text) = files::read(context.root(), path)? else {
            continue;
        };
        problems.extend(files::check_text(path, &text));
        if path.ends_with(".rs") {
            problems.extend(sources::check(path, &text));
        }
        if path.ends_with(".md") {
            problems.extend(documents::check_links(context.root(), path, &text));
        }
        match path.as_str() {
            documents::DESIGN => problems.extend(documents::check_reasons(&workspace, &text)),
            documents::README => problems.extend(documents::check_version(&workspace, &text)),
            _ => {}
        }
        if path.ends_with("Cargo.toml") {
            problems.extend(manifests::check(path, &text));
        }
    }
    if problems.is_empty() {
        return Ok(Outcome::Passed);
    }
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    bail!("{}", lines.join("\n"))
}
