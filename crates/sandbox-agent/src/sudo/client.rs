//! The program `sudo` of a sandbox: hands its command line and descriptors over and waits for the end.
//!
//! It has no rights of its own and decides nothing that matters: everything it sends is taken for untrusted.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use sandbox_agent::protocol::sudo::{SudoControl, SudoReply, SudoRequest};
use sandbox_agent::protocol::{VERSION, Wire as _};

use super::SOCKET;
use super::arguments::{Invocation, Parsed, Shell, USAGE, parse};
use crate::account::{self, Database};
use crate::sys::{file, local, socket, wait};

/// What `sudo` ends with if it fails itself.
const FAILED: i32 = 1;

/// Runs the stand-in.
pub(crate) fn main() -> ! {
    let arguments: Vec<Vec<u8>> = std::env::args_os()
        .skip(1)
        .map(OsString::into_vec)
        .collect();
    let code = match parse(&arguments) {
        Ok(Parsed::Run(invocation)) => run(&invocation).unwrap_or_else(|message| fail(&message)),
        Ok(Parsed::Validate) => connect().map_or_else(|message| fail(&message), |_| 0),
        Ok(Parsed::Nothing) => 0,
        Ok(Parsed::Help) => print(USAGE),
        Ok(Parsed::Version) => print(&format!("sudo of the sandbox, protocol {VERSION}")),
        Err(message) => fail(&format!("{message}\n{USAGE}")),
    };
    std::process::exit(code)
}

fn fail(message: &str) -> i32 {
    // Nobody is told if standard error is closed; the exit code says it as well.
    let _ = writeln!(io::stderr(), "sudo: {message}");
    FAILED
}

fn print(text: &str) -> i32 {
    writeln!(io::stdout(), "{text}").map_or(FAILED, |()| 0)
}

fn connect() -> Result<OwnedFd, String> {
    local::connect(Path::new(SOCKET)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "not available in this sandbox".to_owned()
        }
        _ => format!("cannot reach the sandbox: {error}"),
    })
}

/// Has the command run, and gives its exit code.
fn run(invocation: &Invocation) -> Result<i32, String> {
    let socket = connect()?;
    let cwd = match invocation.shell {
        Some(Shell::Login) => None,
        // Without access to it there is none; the command then starts in its user's home.
        _ => file::open(file::CWD, c".", libc::O_PATH | libc::O_DIRECTORY, 0, 0).ok(),
    };
    let caller = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec()));
    let request = SudoRequest {
        argv: invocation.program(shell(invocation)),
        env: invocation.environment(caller),
        user: invocation.user.clone(),
        cwd: cwd.is_some(),
    };
    // From here on a signal is for the command. Those that come before end this program as any other.
    let signals = wait::take_signals().map_err(|error| format!("cannot take signals: {error}"))?;
    send(&socket, &request, cwd.as_ref().map(AsFd::as_fd))?;
    accompany(&socket, &signals)
}

/// The shell that is meant, for commands that want one.
fn shell(invocation: &Invocation) -> Vec<u8> {
    let login = |spec: &str| {
        Database::read(Path::new("/etc"))
            .account(spec)
            .map(|account| account.shell)
    };
    let found = match (invocation.shell, &invocation.user) {
        (None, _) => return Vec::new(),
        (Some(Shell::Login), None) => login("root"),
        (Some(Shell::Login), Some(user)) => login(user.strip_prefix('#').unwrap_or(user)),
        (Some(Shell::Caller), _) => {
            match std::env::var_os("SHELL").filter(|shell| !shell.is_empty()) {
                Some(shell) => Ok(shell.into_vec()),
                None => login(&file::real_uid().to_string()),
            }
        }
    };
    // A user that does not exist is refused by the other side, which knows better how to say it.
    found.unwrap_or_else(|_| account::DEFAULT_SHELL.to_vec())
}

fn send(
    socket: &OwnedFd,
    request: &SudoRequest,
    cwd: Option<BorrowedFd<'_>>,
) -> Result<(), String> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .ok();
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let mut fds = Vec::new();
    for fd in standard {
        // One that is closed cannot be sent; the command gets an empty one.
        let open = file::status(fd).is_ok();
        fds.push(if open {
            fd
        } else {
            null.as_ref().ok_or("cannot open /dev/null")?.as_fd()
        });
    }
    fds.extend(cwd);
    socket::send(socket.as_fd(), &request.encode(), &fds).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => "arguments and environment are too long".into(),
        _ => format!("cannot reach the sandbox: {error}"),
    })
}

/// Passes signals on until the command has ended.
fn accompany(socket: &OwnedFd, signals: &wait::Signals) -> Result<i32, String> {
    let gone = || "the sandbox has ended the connection".to_owned();
    loop {
        let ready = wait::poll([Some(socket.as_fd()), Some(signals.as_fd())], None)
            .map_err(|error| error.to_string())?;
        if ready[1]
            && let Some(signal) = signals.next()
        {
            let control = SudoControl::Signal { signal };
            socket::send(socket.as_fd(), &control.encode(), &[]).map_err(|_| gone())?;
        }
        if ready[0] {
            let message = socket::receive(socket.as_fd())
                .ok()
                .flatten()
                .ok_or_else(gone)?;
            let SudoReply::Ended { code, message } =
                SudoReply::decode(&message.bytes).map_err(|_| gone())?;
            if !message.is_empty() {
                fail(&message);
            }
            return Ok(code);
        }
    }
}
