//! Options of the commands that print what other programs know of this one.

use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// Print a script that completes this command's words in a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox completions bash > /etc/bash_completion.d/sandbox\n  \
    sandbox completions zsh > ~/.zfunc/_sandbox\n  \
    sandbox completions fish > ~/.config/fish/completions/sandbox.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Print the manual page, or write those of all commands
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox man | man -l -\n  \
    sandbox man --directory /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
}
