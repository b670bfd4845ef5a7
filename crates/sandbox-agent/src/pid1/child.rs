//! From the fork to the program: what happens in the new process of a command.
//!
//! Order matters. Descriptors of the sandbox's PID 1 are closed before anything else looks at the world; the seccomp
//! filter is on before the change of user; and the process stays undumpable until it runs the program, so that no
//! other process can reach into it while it could still do more than the command may, could send PID 1 something (a
//! descriptor whose closing takes long, for one), or has what PID 1 remembers (the output of other users' commands).

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
use crate::sys::flag::Flag;
use crate::sys::{inherit, namespace, program, pty, signal, socket};

/// Where programs are looked for, unless the sandbox or the command says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The descriptors that a command starts with.
#[derive(Debug)]
pub(super) struct Descriptors<'a> {
    /// Standard input, output and error.
    pub(super) standard: [BorrowedFd<'a>; 3],
    /// Where the command starts, instead of where it asked to.
    pub(super) directory: Option<BorrowedFd<'a>>,
}

/// Who is told why a command could not be started.
#[derive(Debug, Clone, Copy)]
enum Told<'a> {
    /// PID 1: an encoded `Event::Failed`. The socket is closed when the program runs.
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

/// Gets ready to become a command, waits for `orders`, and becomes it.
///
/// An order is an encoded [`Spawn`] with standard input, output and error. Without one the process ends; with one it
/// raises `heard`.
pub(super) fn await_orders(launcher: &Launcher, orders: BorrowedFd<'_>, heard: &Flag) -> ! {
    let told = Told::Host(orders);
    let closed = inherit::close_all_but(&[orders, heard.as_fd()]);
    let ready = closed
        .map_err(step("close the sandbox's descriptors"))
        .and_then(|()| confine(launcher));
    let order = match ready {
        Ok(()) => socket::receive(orders).ok().flatten(),
        Err(refusal) => program::exit(report(refusal, told)),
    };
    let Some(order) = order.filter(|_| heard.raise().is_ok()) else {
        program::exit(0)
    };
    let code = match (Spawn::decode(&order.bytes), order.fds.as_slice()) {
        (Ok(spawn), [stdin, stdout, stderr]) => {
            let standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
            let placed = place(standard).map_err(step("arrange the command's descriptors"));
            become_command(&spawn, &launcher.env, placed.map(|()| false), told)
        }
        _ => report(Refusal::invalid("the command was garbled on its way"), told),
    };
    program::exit(code)
}

/// Becomes a command of `sudo`, whose environment starts from a login's.
pub(super) fn run(launcher: &Launcher, spawn: &Spawn, descriptors: &Descriptors<'_>) -> ! {
    let directory = descriptors.directory;
    let there = directory.is_some_and(|fd| namespace::change_directory(fd).is_ok());
    let placed = place(descriptors.standard).and_then(|()| inherit::close_from(3));
    let ready = placed
        .map_err(step("arrange the command's descriptors"))
        .and_then(|()| confine(launcher));
    program::exit(become_command(
        spawn,
        &[],
        ready.map(|()| there),
        Told::Caller,
    ))
}

fn step(what: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::system(what, &error)
}

fn place(standard: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    (0..)
        .zip(standard)
        .try_for_each(|(number, fd)| program::place(fd, number))
}

/// Turns a copy of PID 1 into a process that can do no more than a program of the sandbox's root.
fn confine(launcher: &Launcher) -> Result<(), Refusal> {
    signal::reset().map_err(step("reset signals"))?;
    inherit::start_session().map_err(step("start a session"))?;
    launcher.limit.apply().map_err(step("limit descriptors"))?;
    let most = launcher.max_processes;
    if most > 0 {
        inherit::set_limit(libc::RLIMIT_NPROC, most, most).map_err(step("limit processes"))?;
    }
    if launcher.spared {
        program::set_normal_oom_score().map_err(step("reset the command's OOM score"))?;
    }
    filter(launcher).map_err(step("put the command under its filter"))
}

fn filter(launcher: &Launcher) -> io::Result<()> {
    let may_gain = launcher.weaken & weaken::NO_NEW_PRIVS != 0;
    if !may_gain {
        program::set_no_new_privs()?;
    }
    let filter = launcher.filter.as_ref();
    match filter.map_or(Ok(()), program::Filter::install) {
        // Without no_new_privs a filter takes a capability that PID 1 has given up.
        Err(error) if may_gain && error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        result => result,
    }
}

/// Becomes the command, unless it is not `ready`; that says whether its working directory was entered. Returns the
/// exit code if that fails, after saying why.
fn become_command(
    spawn: &Spawn,
    base: &[(Blob, Blob)],
    ready: Result<bool, Refusal>,
    told: Told<'_>,
) -> i32 {
    match ready.and_then(|there| become_user(spawn, there)) {
        Ok(account) => start(spawn, &environment(base, spawn, &account), told.name()),
        Err(refusal) => report(refusal, told),
    }
}

/// Becomes the user of the command, in its working directory unless the process is `there`.
fn become_user(spawn: &Spawn, there: bool) -> Result<Account, Refusal> {
    let account = account::resolve(spawn.user.as_deref()).map_err(unknown_user)?;
    let stdin = io::stdin();
    if spawn.pty.is_some() {
        pty::control_session(stdin.as_fd()).map_err(step("control the terminal"))?;
        program::give_terminal(stdin.as_fd(), account.uid)
            .map_err(step("hand over the terminal"))?;
    }
    program::become_user(account.uid, account.gid, &account.groups)
        .map_err(step("become the user"))?;
    // A change of user may have made it dumpable, if the machine is set up so.
    program::set_dumpable(false).map_err(step("hide the command"))?;
    if !there {
        enter(spawn.cwd.as_ref(), &account)?;
    }
    Ok(account)
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
        Told::Host(orders) => {
            // If that fails PID 1 takes the closed socket for a start, and the exit code is all that there is.
            let _ = socket::send(orders, &refusal.into_event().encode(), &[]);
            lookup::NOT_EXECUTABLE
        }
        Told::Caller => {
            // The exit code says it as well.
            let _ = writeln!(io::stderr(), "sudo: {}", refusal.message);
            1
        }
    }
}
