//! From the fork to the program: what happens in the new process of a command.
//!
//! Order matters. Descriptors of the sandbox's PID 1 are closed before anything else looks at the world; the seccomp
//! filter is on before the change of user; and only then does the process become dumpable, so that no other process
//! can reach into it while it could still do more than the command may.

use std::collections::BTreeMap;
use std::env::set_current_dir;
use std::ffi::{CString, OsStr};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sandbox_agent::protocol::agent::{Failure, Spawn};
use sandbox_agent::protocol::zygote::weaken;
use sandbox_agent::protocol::{Blob, Wire as _};

use super::launch::Launcher;
use super::lookup;
use super::refusal::Refusal;
use crate::account::{self, Account, AccountError};
use crate::sys::{program, pty, signal};

/// Where programs are looked for, unless the sandbox or the command says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The descriptor that says why a command could not be started.
const STATUS: i32 = 3;

/// The descriptors that a command starts with.
#[derive(Debug)]
pub(super) struct Descriptors<'a> {
    /// Standard input, output and error.
    pub(super) standard: [BorrowedFd<'a>; 3],
    /// Where the command starts, instead of where it asked to.
    pub(super) directory: Option<BorrowedFd<'a>>,
    /// Who is told why it could not be started.
    pub(super) told: Told<'a>,
    /// Whether standard input is the terminal of the command.
    pub(super) terminal: bool,
}

/// Who is told why a command could not be started.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told<'a> {
    /// PID 1: an encoded `Event::Failed`. The pipe is closed when the program runs.
    Host(BorrowedFd<'a>),
    /// The user of `sudo`, on standard error.
    Caller,
}

impl Told<'_> {
    /// In whose name messages come.
    fn name(self) -> &'static str {
        match self {
            Self::Host(_) => "sandbox",
            Self::Caller => "sudo",
        }
    }
}

/// Becomes the program of `spawn`, whose environment starts from `base`.
pub(super) fn run(
    launcher: &Launcher,
    spawn: &Spawn,
    base: &[(Blob, Blob)],
    descriptors: &Descriptors<'_>,
) -> ! {
    let told = descriptors.told;
    let code = match prepare(launcher, spawn, descriptors) {
        Ok(account) => start(spawn, &environment(base, spawn, &account), told.name()),
        Err(refusal) => report(refusal, told),
    };
    program::exit(code)
}

/// Turns a copy of PID 1 into an ordinary process of the user.
fn prepare(
    launcher: &Launcher,
    spawn: &Spawn,
    descriptors: &Descriptors<'_>,
) -> Result<Account, Refusal> {
    let step = |what: &'static str| move |error: io::Error| Refusal::system(what, &error);
    let placed = descriptors
        .directory
        .is_some_and(|fd| program::change_directory(fd).is_ok());
    place(descriptors).map_err(step("arrange the command's descriptors"))?;
    signal::reset().map_err(step("reset signals"))?;
    program::set_session().map_err(step("start a session"))?;
    launcher.limit.apply().map_err(step("limit descriptors"))?;
    let account = account::resolve(spawn.user.as_deref()).map_err(unknown_user)?;
    let stdin = io::stdin();
    if descriptors.terminal {
        pty::control_session(stdin.as_fd()).map_err(step("control the terminal"))?;
        program::give_terminal(stdin.as_fd(), account.uid)
            .map_err(step("hand over the terminal"))?;
    }
    confine(launcher).map_err(step("put the command under its filter"))?;
    program::become_user(account.uid, account.gid, &account.groups)
        .map_err(step("become the user"))?;
    program::set_dumpable(true).map_err(step("make the command visible"))?;
    if launcher.spared {
        program::set_normal_oom_score().map_err(step("reset the command's OOM score"))?;
    }
    if !placed {
        enter(spawn.cwd.as_ref(), &account)?;
    }
    Ok(account)
}

fn place(descriptors: &Descriptors<'_>) -> io::Result<()> {
    for (number, fd) in (0..).zip(descriptors.standard) {
        program::place(fd, number)?;
    }
    let Told::Host(status) = descriptors.told else {
        return program::close_from(STATUS.cast_unsigned());
    };
    program::place_until_exec(status, STATUS)?;
    program::close_from(STATUS.cast_unsigned() + 1)
}

fn confine(launcher: &Launcher) -> io::Result<()> {
    let may_gain = launcher.weaken & weaken::NO_NEW_PRIVS != 0;
    if !may_gain {
        program::set_no_new_privs()?;
    }
    match launcher
        .filter
        .as_ref()
        .map_or(Ok(()), program::Filter::install)
    {
        // Without no_new_privs a filter takes a capability that PID 1 has given up.
        Err(error) if may_gain && error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        result => result,
    }
}

/// Goes to the working directory, with the rights of the user.
fn enter(cwd: Option<&Blob>, account: &Account) -> Result<(), Refusal> {
    let Some(cwd) = cwd else {
        let home = Path::new(OsStr::from_bytes(&account.home));
        return set_current_dir(home)
            .or_else(|_| set_current_dir("/"))
            .map_err(|error| Refusal::system("enter the directory /", &error));
    };
    let path = Path::new(OsStr::from_bytes(&cwd.0));
    set_current_dir(path).map_err(|error| {
        let path = path.display();
        match error.raw_os_error() {
            Some(libc::ENOENT) => Refusal::new(
                Failure::NotFound {},
                format!("working directory {path} does not exist"),
            ),
            Some(libc::ENOTDIR) => {
                Refusal::invalid(format!("working directory {path} is not a directory"))
            }
            Some(libc::EACCES) => {
                let user = &account.name;
                Refusal::new(
                    Failure::Denied {},
                    format!("user {user} may not enter working directory {path}"),
                )
            }
            _ => Refusal::system(&format!("enter working directory {path}"), &error),
        }
    })
}

fn unknown_user(error: AccountError) -> Refusal {
    match error {
        AccountError::Unknown(message) => Refusal::new(Failure::NotFound {}, message),
        AccountError::Invalid(message) => Refusal::invalid(message),
    }
}

/// The command's environment: that of a login, then the `base`, then its own.
fn environment<'a>(
    base: &'a [(Blob, Blob)],
    spawn: &'a Spawn,
    account: &'a Account,
) -> BTreeMap<&'a [u8], &'a [u8]> {
    let mut all: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    let name = account.name.as_bytes();
    all.insert(b"PATH", PATH.as_bytes());
    all.insert(b"HOME", &account.home);
    all.insert(b"USER", name);
    all.insert(b"LOGNAME", name);
    all.insert(b"SHELL", &account.shell);
    all.insert(b"LANG", b"C.UTF-8");
    if spawn.pty.is_some() {
        all.insert(b"TERM", b"xterm-256color");
    }
    all.extend(
        base.iter()
            .chain(&spawn.env)
            .map(|(key, value)| (key.0.as_slice(), value.0.as_slice())),
    );
    all
}

/// Runs the program. Returns its exit code if that fails, after saying why on standard error, in the name of `who`.
fn start(spawn: &Spawn, environment: &BTreeMap<&[u8], &[u8]>, who: &str) -> i32 {
    let path = environment
        .get(b"PATH".as_slice())
        .copied()
        .unwrap_or(PATH.as_bytes());
    // Strings with a NUL were refused before the fork.
    let argv = spawn
        .argv
        .iter()
        .filter_map(|argument| CString::new(argument.0.as_slice()).ok());
    let variables = environment
        .iter()
        .filter_map(|(key, value)| CString::new([*key, b"=", *value].concat()).ok());
    let (code, reason) = lookup::run(argv.collect(), variables.collect(), path);
    let name = spawn
        .argv
        .first()
        .map(|name| name.0.as_slice())
        .unwrap_or_default();
    // The exit code says it as well, should nobody read standard error.
    let _ = io::stderr()
        .write_all(&[who.as_bytes(), b": ", name, b": ", reason.as_bytes(), b"\n"].concat());
    code
}

/// Tells why the command was not started.
fn report(refusal: Refusal, told: Told<'_>) -> i32 {
    match told {
        Told::Host(_) => {
            // PID 1 takes what it cannot read for a failure without a reason.
            let _ = program::write(STATUS, &refusal.into_event().encode());
            lookup::NOT_EXECUTABLE
        }
        Told::Caller => {
            // The exit code says it as well.
            let _ = writeln!(io::stderr(), "sudo: {}", refusal.message);
            1
        }
    }
}
