//! Gives an ordinary user a cgroup of version 2, as systemd does it.

use crate::ordinary::UID;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// Run by root with the top of the hierarchy, the group that root is in, a name for another, its owner, and a command.
/// Moves into a group below the new one, runs the command there and removes both.
const DELEGATE: &str = r#"
    top=$1 own=$2 group=$1/$3 user=$4
    shift 4
    mkdir "$group" "$group/main" || exit 1
    for each in "$group" "$group/main"; do
        chown "$user:$user" "$each" "$each/cgroup.procs" "$each/cgroup.subtree_control" "$each/cgroup.threads"
    done
    echo $$ >"$group/main/cgroup.procs"
    "$@"
    code=$?
    echo $$ >"$top$own/cgroup.procs"
    find "$group" -depth -type d -exec rmdir {} +
    exit $code
"#;

/// `program`, in a group of its own that is the ordinary user's; as it is where there is no version 2.
pub(crate) fn delegated(program: &Command) -> Command {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let (Some(own), Some(top)) = (own, hierarchy()) else {
        let mut same = Command::new(program.get_program());
        same.args(program.get_args());
        copy_environment(program, &mut same);
        return same;
    };
    let name = format!("sandbox-test-{}", process::id());
    let user = UID.to_string();
    let mut command = Command::new("sh");
    command.args(["-c", DELEGATE, "sh"]).arg(top);
    command.args([own.trim_end_matches('/'), &name, &user]);
    command.arg(program.get_program()).args(program.get_args());
    copy_environment(program, &mut command);
    command
}

fn copy_environment(from: &Command, to: &mut Command) {
    let variables = from.get_envs();
    to.envs(variables.filter_map(|(name, value)| Some((name, value?))));
}

/// Where version 2 is mounted.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut lines = mounts.lines();
    let line = lines.find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ')
        .nth(4)
        .map(|point| Path::new(point).to_owned())
}
