//! What every check needs: where the workspace lies and how to call its tools.

use std::{
    cell::OnceCell,
    env,
    ffi::OsStr,
    io::{IsTerminal as _, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{command::Command, metadata::Metadata};

/// The workspace under check.
#[derive(Debug)]
pub(crate) struct Context {
    root: PathBuf,
    colour: bool,
    metadata: OnceCell<Metadata>,
}

impl Context {
    /// Finds the workspace that this program was built from.
    pub(crate) fn new() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies at the top of the file system")?;
        Ok(Self {
            root: root.to_owned(),
            colour: stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
            metadata: OnceCell::new(),
        })
    }

    /// Top directory of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A program that runs in the top directory, with nothing on standard input.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(program.as_ref(), &self.root)
    }

    /// Cargo with these arguments: the one that runs us, so that all steps share its artifacts.
    pub(crate) fn cargo<I>(&self, args: I) -> Command
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let colour = if self.colour { "always" } else { "never" };
        self.command(cargo)
            .shown_as("cargo")
            .env("CARGO_TERM_COLOR", colour)
            .args(args)
    }

    /// The workspace as Cargo sees it; read once.
    pub(crate) fn metadata(&self) -> Result<&Metadata> {
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        let metadata = Metadata::read(self)?;
        Ok(self.metadata.get_or_init(|| metadata))
    }
}
