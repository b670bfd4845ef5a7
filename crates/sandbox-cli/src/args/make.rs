//! Options of the commands that make a sandbox, or what others can be made from.

use super::NetworkArgs;
use crate::parse;
use clap::Args;
use sandbox::local::VolumeMount;
use std::{ffi::OsString, path::PathBuf, time::Duration};

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

    #[command(flatten)]
    pub(crate) network: NetworkArgs,

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
