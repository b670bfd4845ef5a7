//! The command line: what can be asked for, and the help that says so. Nothing is done here.

mod look;
mod make;
mod network;
mod pages;
mod programs;
mod servers;
mod templates;
mod volumes;

use crate::parse;
use clap::{ArgAction, Args, Parser, Subcommand};
pub(crate) use look::{AttachArgs, InspectArgs, LogsArgs};
pub(crate) use make::{CreateArgs, ForkArgs, LimitArgs, RunArgs, SandboxArgs, SnapshotArgs};
pub(crate) use network::{NetArgs, NetworkArgs, RelayArgs};
pub(crate) use pages::{CompletionsArgs, ManArgs};
pub(crate) use programs::{ExecArgs, ShellArgs};
pub(crate) use servers::{Listen, PortArgs, ProxyArgs};
use std::path::PathBuf;
pub(crate) use templates::{ImportArgs, TemplatesAction, TemplatesArgs};
pub(crate) use volumes::{VolumeNames, VolumesAction, VolumesArgs};

/// Runs programs in sandboxes, and looks after the sandboxes.
#[derive(Debug, Parser)]
#[command(
    name = "sandbox",
    version,
    long_about = "Runs programs in sandboxes, and looks after the sandboxes.\n\n\
        A sandbox has this machine's own programs, its own files, processes and users, and no network unless it is \
        given one. What runs in it sees nothing of this machine's homes, secrets and processes, and everything it does is gone with it.",
    after_help = "Examples:\n  \
        sandbox run sales.py --file sales.csv     a program, with a file next to it\n  \
        sandbox run -c 'print(6 * 7)'             a line of Python\n  \
        id=$(sandbox create --lifetime 1h)        a sandbox that stays\n  \
        sandbox exec $id -- make test             a command in it\n  \
        sandbox cp $id:report.html .              a file out of it\n\n\
        `sandbox help COMMAND` says more about each. What goes wrong on the side of `sandbox` itself ends with 125.",
    arg_required_else_help = true,
    subcommand_value_name = "COMMAND",
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Where the sandboxes of this machine are kept [env: SANDBOX_STATE_DIR] [default: /var/lib/sandbox, of ordinary users
    /// ~/.local/state/sandbox]
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        help_heading = "Global options"
    )]
    pub(crate) state_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    Run(RunArgs),
    Create(CreateArgs),
    Exec(ExecArgs),
    Shell(ShellArgs),
    Attach(AttachArgs),
    Logs(LogsArgs),
    Cp(CpArgs),
    Ls(LsArgs),
    Inspect(InspectArgs),
    Stats(StatsArgs),
    Net(NetArgs),
    Port(PortArgs),
    Proxy(ProxyArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Snapshot(SnapshotArgs),
    Fork(ForkArgs),
    Kill(KillArgs),
    Templates(TemplatesArgs),
    Volumes(VolumesArgs),
    Prune(PruneArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    #[command(hide = true)]
    Relay(RelayArgs),
}

/// Copy files and directories into a sandbox or out of it
///
/// One of the two is in a sandbox and is written ID:PATH; a path that is not absolute starts at the user's home. A
/// directory is copied with all that is in it, into DEST if that is a directory already, else as DEST; of DIRECTORY/.
/// only what is in it. Links are kept if they stay inside the copied directory. What cannot be read in the sandbox is
/// left out and named, and the copy ends with 125. `-` is standard input or output.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox cp data.csv build:\n  \
    sandbox cp src build:project/src\n  \
    sandbox cp build:project/target/report.html .\n  \
    sandbox cp build:log.txt - | less\n  \
    sandbox cp ./a:b build:          a file of this machine with a colon in its name")]
pub(crate) struct CpArgs {
    /// What to copy: PATH, ID:PATH or -
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,

    /// Where to: ID:PATH, PATH or -
    #[arg(value_name = "DEST")]
    pub(crate) destination: String,

    /// With the rights of this user of the sandbox
    #[arg(short, long)]
    pub(crate) user: Option<String>,

    /// Print neither progress nor summary
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,

    /// Print an object that says what was copied
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the sandboxes
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox ls\n  \
    sandbox ls --metadata job=nightly --json | jq -r '.[].id'")]
pub(crate) struct LsArgs {
    /// Also those that belong to a running program and end with it
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Only those with this metadata (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    pub(crate) metadata: Vec<(String, String)>,

    /// Print only the ids
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,

    /// Print an array of objects
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what sandboxes use, until Ctrl-C
///
/// CPU is what is used at the moment, in percent of one processor: 200 % are two. Memory and files are what is used now,
/// bytes read and written, and those that were sent and received, are counted from the beginning on. `-` is what this
/// machine does not count.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox stats\n  \
    sandbox stats --once build\n  \
    sandbox stats --once --json | jq -r '.[].memory'")]
pub(crate) struct StatsArgs {
    /// Ids of the sandboxes, the starts of them, or their names; all that `sandbox ls` shows, if none is given
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,

    /// Print it once and end
    #[arg(long)]
    pub(crate) once: bool,

    /// Print an array of objects, one array a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Pause sandboxes: all that runs in them stops, until they are resumed
///
/// A paused sandbox keeps its memory, and its lifetime runs on. Its files can be copied; commands in it are refused.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox pause build 3f\n  \
    sandbox resume build")]
pub(crate) struct PauseArgs {
    /// Ids of the sandboxes, the starts of them, or their names
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

/// Let paused sandboxes go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sandbox resume build 3f")]
pub(crate) struct ResumeArgs {
    /// Ids of the sandboxes, the starts of them, or their names
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

/// Kill sandboxes, with all that runs in them and all their files
#[derive(Debug, Args)]
#[command(
    override_usage = "sandbox kill [OPTIONS] ID...\n       sandbox kill [OPTIONS] --all",
    after_help = "Examples:\n  \
        sandbox kill build 3f\n  \
        sandbox kill --all"
)]
pub(crate) struct KillArgs {
    /// Ids of the sandboxes, the starts of them, or their names
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub(crate) ids: Vec<String>,

    /// All that `sandbox ls` shows; those of running programs stay
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) all: bool,

    /// Print an object that says which were killed
    #[arg(long)]
    pub(crate) json: bool,
}

/// Remove what crashed programs have left behind
///
/// Sandboxes that live are not touched, nor the templates that they use. Every other command does the same by itself,
/// and says nothing of it, but for a last template that is out of date, and for imported ones that have no name and that
/// nothing uses.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox prune\n  \
    sandbox prune --dry-run --json")]
pub(crate) struct PruneArgs {
    /// Only say what would be removed
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    /// Print an object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check whether this machine can isolate, and say how to fix what it lacks
///
/// Ends with 1 if something is missing without which no sandbox can be made.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox doctor\n  \
    sandbox doctor --json | jq '.checks[] | select(.verdict != \"ok\")'")]
pub(crate) struct DoctorArgs {
    /// Print an object
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

    fn parse(line: &str) -> Result<Action, clap::Error> {
        let words = std::iter::once("sandbox").chain(line.split(' '));
        Cli::try_parse_from(words).map(|cli| cli.action)
    }

    fn run(line: &str) -> RunArgs {
        match parse(line).unwrap() {
            Action::Run(args) => args,
            other => panic!("{other:?} is no run"),
        }
    }

    fn exec(line: &str) -> ExecArgs {
        match parse(line).unwrap() {
            Action::Exec(args) => args,
            other => panic!("{other:?} is no exec"),
        }
    }

    #[test]
    fn the_help_texts_are_reviewed() {
        let mut command = Cli::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_long_help());
        insta::assert_snapshot!("help_short", command.render_help());
        for action in command.get_subcommands_mut() {
            if action.get_name() == "help" {
                continue;
            }
            let name = format!("help_{}", action.get_name());
            insta::assert_snapshot!(&*name, action.clone().term_width(100).render_long_help());
            for inner in action
                .get_subcommands_mut()
                .filter(|inner| inner.get_name() != "help")
            {
                let name = format!("{name}_{}", inner.get_name());
                insta::assert_snapshot!(name, inner.clone().term_width(100).render_long_help());
            }
        }
    }

    #[test]
    fn options_of_run_stand_on_either_side_of_the_file() {
        let args = run("run a.py x --file b y -- --z -q");
        assert_eq!(args.words, ["a.py", "x", "y", "--z", "-q"]);
        assert_eq!(args.files, ["b"]);
        assert_eq!(run("run --timeout 2m -").words, ["-"]);
        assert_eq!(run("run -c -1 x").code.as_deref(), Some("-1"));
        assert_eq!(
            parse("run").unwrap_err().kind(),
            ErrorKind::MissingRequiredArgument
        );
        assert_eq!(
            parse("run a.py --z").unwrap_err().kind(),
            ErrorKind::UnknownArgument
        );
    }

    #[test]
    fn what_follows_the_id_of_exec_is_the_command() {
        let args = exec("exec -w /x id -- ls -la --user y");
        assert_eq!(args.command, ["ls", "-la", "--user", "y"]);
        assert_eq!(args.cwd.as_deref(), Some("/x"));
        assert_eq!(exec("exec id ls -w /y").command, ["ls", "-w", "/y"]);
        assert_eq!(exec("exec id -w /x ls -w /y").command, ["ls", "-w", "/y"]);
        assert_eq!(exec("exec id -- -x").command, ["-x"]);
        assert!(parse("exec id").is_err());
    }

    #[test]
    fn kill_takes_ids_or_all() {
        assert!(parse("kill").is_err());
        assert!(parse("kill --all x").is_err());
        assert!(parse("kill x y").is_ok());
        assert!(parse("kill --all").is_ok());
    }
}
