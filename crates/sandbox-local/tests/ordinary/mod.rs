//! Runs a test program again as an ordinary user, whom nobody else is, with or without subordinate ids.
//!
//! The user gets a home and a way to the program in a mount namespace of its own, since the directory that cargo builds
//! in may be closed to others. All runs share the home, because the template in it takes a while to make.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{self, Command},
};

/// Uid and gid; Debian gives those from 65000 on to nobody.
pub(crate) const UID: u32 = 65_123;

/// What an ordinary user's programs have in their environment.
const MARK: &str = "SANDBOX_TEST_AS_ORDINARY_USER";

/// Its name, where it must have one.
const NAME: &str = "sandbox-test";

/// Run by root in a mount namespace of its own, with the home, the directory of built programs, this program's name in
/// it, the user's number, what comes on top of `/etc` if anything, and the program's arguments.
const SCRIPT: &str = r#"
    set -e
    home=$1 built=$2 program=$3 user=$4 etc=$5
    shift 5
    [ -z "$etc" ] || mount -t overlay -o "ro,lowerdir=$etc:/etc" none /etc
    # The kernel gives ordinary users no overlay of what others have mounted something on.
    while read -r _ _ _ _ point _; do
        case $point in /usr/*) umount --lazy "$point" ;; esac
    done </proc/self/mountinfo
    mount --bind "$home" /mnt
    mount --bind "$built" /media
    cd /mnt
    exec setpriv --reuid="$user" --regid="$user" --clear-groups env -i "$MARK=1" HOME=/mnt PATH=/usr/bin:/bin \
        CARGO_TARGET_TMPDIR=none "SANDBOX_TEST_IDS=$etc" \
        RUST_BACKTRACE="$RUST_BACKTRACE" "/media/$program" "$@"
"#;

/// Whether this program runs as that user.
pub(crate) fn is_ordinary() -> bool {
    env::var_os(MARK).is_some()
}

/// This program, to be run as an ordinary user: with `ids` in `/etc/subuid` and `/etc/subgid` (first one and number), or
/// with what the machine has there, which is nothing.
pub(crate) fn this_program(ids: Option<&str>) -> Command {
    let Some(ids) = ids else {
        return again("home", None);
    };
    let home = format!(
        "home-{}",
        ids.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    );
    let etc = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{home}-etc"));
    fs::create_dir_all(&etc).unwrap();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let user = format!("{users}{NAME}:x:{UID}:{UID}::/mnt:/bin/sh\n");
    let line = format!("{NAME}:{ids}\n");
    for (name, text) in [("passwd", &user), ("subuid", &line), ("subgid", &line)] {
        // Others may be starting with the file that is there.
        let new = etc.join(format!(".{name}-{}", process::id()));
        fs::write(&new, text).unwrap();
        fs::rename(new, etc.join(name)).unwrap();
    }
    again(&home, Some(&etc))
}

fn again(home: &str, etc: Option<&Path>) -> Command {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(home);
    fs::create_dir_all(&home).unwrap();
    chown(&home, Some(UID), Some(UID)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let program = env::current_exe().unwrap();
    let (tests, name) = (program.parent().unwrap(), program.file_name().unwrap());
    let built = tests.parent().unwrap();
    let name = Path::new(tests.file_name().unwrap()).join(name);
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        SCRIPT,
        "sh",
    ]);
    command.args([home.as_path(), built, &name]);
    command
        .arg(UID.to_string())
        .arg(etc.unwrap_or(Path::new("")));
    command.env("MARK", MARK);
    command
}
