//! Options of the commands that look at a sandbox and at what runs in it.

use clap::Args;

/// Show all that is known of sandboxes
///
/// What they are, their limits, what really holds of the walls around them, and their commands, with the numbers by which
/// `logs` and `attach` know them. A number is kept for a while after its command has ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox inspect build\n  \
    sandbox inspect --json build | jq -r '.[].commands[].number'")]
pub(crate) struct InspectArgs {
    /// Ids of the sandboxes, the starts of them, or their names
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,

    /// Print an array of objects
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print what commands in a sandbox have printed
///
/// A sandbox keeps the last 1 MiB of each command, for a while also of those that have ended. What a command printed to
/// standard error is printed there. Of several commands each line begins with the command's number; programs that read them use `--json`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox logs build\n  \
    sandbox logs --follow build 3           the third command, until it ends\n  \
    sandbox logs --json build | jq -r .text\n  \
    sandbox logs --network --follow build   connections, as they are made")]
pub(crate) struct LogsArgs {
    /// Id of the sandbox, the start of it, or its name
    pub(crate) id: String,

    /// Number of the command, as `sandbox inspect` shows it; all commands, if it is not given
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<u64>,

    /// Go on with what is printed from now on, until the commands end
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Print what the sandbox has reached for in the network instead, and what of that was refused and why
    #[arg(long, conflicts_with = "command")]
    pub(crate) network: bool,

    /// Print an object for each line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Join a command that runs in a sandbox
///
/// What it prints from now on comes here, and what is typed here goes to it. Ctrl-C goes to the command, a second one
/// kills it; on a terminal Ctrl-P Ctrl-Q leaves it alone and goes. Ends with the command's exit code.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    n=$(sandbox exec --detach build -- make test)\n  \
    sandbox attach build $n\n  \
    sandbox attach --no-stdin --replay build")]
pub(crate) struct AttachArgs {
    /// Id of the sandbox, the start of it, or its name
    pub(crate) id: String,

    /// Number of the command, as `sandbox inspect` shows it; the newest that runs, if it is not given
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<u64>,

    /// Begin with what it has printed before, as far as that is kept
    #[arg(long)]
    pub(crate) replay: bool,

    /// Send it nothing: neither what is typed here nor Ctrl-C, which leaves it alone and goes
    #[arg(long)]
    pub(crate) no_stdin: bool,
}
