//! The command line: what can be asked for, and the help that says so. Nothing is done here.

mod look;
mod pages;

pub(crate) use look::{AttachArgs, InspectArgs, LogsArgs};
pub(crate) use pages::{CompletionsArgs, ManArgs};

mod templates;
mod volumes;

use crate::parse;
use clap::{ArgAction, Args, Parser, Subcommand};
use sandbox::local::VolumeMount;
use std::{ffi::OsString, path::PathBuf, time::Duration};
pub(crate) use templates::{ImportArgs, TemplatesAction, TemplatesArgs};
pub(crate) use volumes::{VolumeNames, VolumesAction, VolumesArgs};

/// Runs programs in sandboxes, and looks after the sandboxes.
#[derive(Debug, Parser)]
#[command(
    name = "sandbox",
    version,
    long_about = "Runs programs in sandboxes, and looks after the sandboxes.\n\n\
        A sandbox has this machine's own programs, its own files, processes and users, and no network. What runs \
        in it sees nothing of this machine's homes, secrets and processes, and everything it does is gone with it.",
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
}

/// Run a program in a new sandbox, which ends with it
///
/// The language is that of `--lang`, of the file's first line (`#!`), or of its name. Output comes as the program
/// prints it, standard input is passed on, and the program's exit code is returned; it is 124 if the program took too
/// long, 137 if it ran out of memory, and 125 if something of `sandbox` itself went wrong.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandbox run [OPTIONS] FILE|- [ARGS]...\n       sandbox run [OPTIONS] -c CODE [ARGS]...",
    after_help = "Examples:\n  \
        sandbox run sales.py --file sales.csv         a program, with a file next to it\n  \
        sandbox run train.py 3 -- --fast              arguments; those with a dash after `--`\n  \
        sandbox run -c 'print(6 * 7)'                 a line of Python\n  \
        curl -s https://example.com/x.js | sandbox run --lang js -\n  \
        sandbox run --dir project src/main.py         a program among its own files\n  \
        sandbox run build.sh --file .:src --timeout 2m --memory 512M"
)]
pub(crate) struct RunArgs {
    /// The program, `-` for standard input; then what it gets as arguments
    #[arg(value_name = "FILE", required_unless_present = "code")]
    pub(crate) words: Vec<OsString>,

    /// Run this text instead of a file; Python unless `--lang` says otherwise
    #[arg(short, long, value_name = "CODE", allow_hyphen_values = true)]
    pub(crate) code: Option<String>,

    /// Language of the program
    #[arg(short, long, value_name = "LANGUAGE", value_parser = parse::language())]
    pub(crate) lang: Option<String>,

    /// Copy a file or directory next to the program, or to DEST (repeatable)
    #[arg(short, long = "file", value_name = "PATH[:DEST]")]
    pub(crate) files: Vec<String>,

    /// Copy what is in this directory, and run the FILE in it
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,

    /// End the program after this long: seconds, or as in 90s, 2m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,

    /// Run on a terminal, for programs that want one
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Keep the sandbox for later; its id is printed on standard error
    #[arg(long)]
    pub(crate) keep: bool,

    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// What a new sandbox may use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct LimitArgs {
    /// Memory, as in 512M or 2G [default: 2G]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub(crate) memory: Option<u64>,

    /// Processors, as in 0.5 or 2 [default: 2]
    #[arg(long, value_name = "NUMBER", value_parser = parse::cpus)]
    pub(crate) cpus: Option<f64>,

    /// Processes and threads at a time [default: 512]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) processes: Option<u64>,

    /// Bytes of files that it may change or make, as in 512M or 2G [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub(crate) disk: Option<u64>,

    /// Files that it may change or make [default: no limit]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) inodes: Option<u64>,
}

/// What a new sandbox is like.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct SandboxArgs {
    /// What the sandbox starts from; `host`, the machine's own programs, unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) template: Option<String>,

    /// A name by which to find it
    #[arg(long, value_name = "NAME", value_parser = parse::name)]
    pub(crate) name: Option<String>,

    /// How long the sandbox lives: seconds, or as in 90s, 2m, 1h30m [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) lifetime: Option<Duration>,

    /// Set a variable for all that runs in it; NAME alone passes on its value here (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse::variable)]
    pub(crate) env: Vec<(String, String)>,

    /// Metadata to find it by (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    pub(crate) metadata: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// Share a folder of this machine, or a named volume, at DEST; `:ro` to be read only (repeatable)
    #[arg(long = "volume", value_name = "SOURCE:DEST[:ro]", value_parser = parse::volume)]
    pub(crate) volumes: Vec<VolumeMount>,

    /// Say how long creation took, also where standard error is no terminal
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Make a sandbox that stays until its lifetime is over, and print its id
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    id=$(sandbox create)\n  \
    sandbox create --name build --lifetime 2h --memory 4G\n  \
    sandbox create --json | jq -r .id")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,

    /// End it as well after this long without a command that is followed, or work on its files
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) idle_timeout: Option<Duration>,

    /// Pause it when its time is over, instead of ending it
    #[arg(long)]
    pub(crate) pause_at_end: bool,

    /// Print an object instead of the id
    #[arg(long)]
    pub(crate) json: bool,
}

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
/// bytes read and written are counted from the beginning on. `-` is what this machine does not count.
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

/// Keep the files of a sandbox as they are now, to start others from
///
/// What runs in it stops for a moment and goes on; it is not part of the snapshot, nor is what lies in /run and /dev/shm.
/// A snapshot is a template: `--template` takes its id or its name.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox snapshot build --name built\n  \
    sandbox create --template built")]
pub(crate) struct SnapshotArgs {
    /// Id of the sandbox, the start of it, or its name
    pub(crate) id: String,

    /// A name that serves as its id does
    #[arg(long, value_name = "NAME", value_parser = parse::name)]
    pub(crate) name: Option<String>,

    /// Print an object instead of the id
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make sandboxes with the files that another one has now, and print their ids
///
/// All of them start from the same moment, and change nothing in the first one. What runs there goes on there alone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    copy=$(sandbox fork build)\n  \
    sandbox fork build -n 8 --lifetime 1h --json | jq -r '.[].id'")]
pub(crate) struct ForkArgs {
    /// Id of the sandbox, the start of it, or its name
    pub(crate) id: String,

    /// How many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) number: u16,

    /// Print an array of objects instead of the ids
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// How long each lives: seconds, or as in 90s, 2m, 1h30m [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) lifetime: Option<Duration>,
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
