//! Options of the commands that run something in a sandbox.

use crate::parse;
use clap::Args;
use std::time::Duration;

/// Run a command in a sandbox
///
/// Standard input is passed on and the command's exit code is returned; it is 127 if there is no such program. On a
/// terminal the command gets one too. Ctrl-C goes to the command, a second one kills it.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandbox exec [OPTIONS] ID [--] COMMAND [ARGS]...",
    after_help = "Examples:\n  \
        sandbox exec build -- make test\n  \
        sandbox exec --user root build -- apt-get install -y ./tool.deb\n  \
        tar c src | sandbox exec 3f -- tar x\n  \
        sandbox exec 3f -- sh -c 'ls *.csv | wc -l'\n  \
        sandbox exec --detach build -- ./serve        its number is printed, and it runs on"
)]
pub(crate) struct ExecArgs {
    /// Id of the sandbox, the start of it, or its name
    pub(crate) id: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,

    /// Set a variable; NAME alone passes on its value here (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse::variable)]
    pub(crate) env: Vec<(String, String)>,

    /// Directory to run in, instead of the user's home
    #[arg(short = 'w', long, value_name = "DIRECTORY")]
    pub(crate) cwd: Option<String>,

    /// Run as this user of the sandbox: a name, UID or UID:GID
    #[arg(short, long)]
    pub(crate) user: Option<String>,

    /// End the command after this long: seconds, or as in 90s, 2m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,

    /// Give it a terminal, even if standard input or output here is none
    #[arg(short, long, overrides_with = "no_tty")]
    pub(crate) tty: bool,

    /// Give it no terminal
    #[arg(short = 'T', long)]
    pub(crate) no_tty: bool,

    /// Leave it running, print its number, and end; `sandbox logs` and `sandbox attach` take the number
    #[arg(short, long, conflicts_with_all = ["tty", "no_tty"])]
    pub(crate) detach: bool,
}

/// Open a shell in a sandbox
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox shell build\n  \
    sandbox shell --user root 3f")]
pub(crate) struct ShellArgs {
    /// Id of the sandbox, the start of it, or its name
    pub(crate) id: String,

    /// Set a variable; NAME alone passes on its value here (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse::variable)]
    pub(crate) env: Vec<(String, String)>,

    /// Directory to start in, instead of the user's home
    #[arg(short = 'w', long, value_name = "DIRECTORY")]
    pub(crate) cwd: Option<String>,

    /// Be this user of the sandbox: a name, UID or UID:GID
    #[arg(short, long)]
    pub(crate) user: Option<String>,
}
