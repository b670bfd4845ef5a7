//! The library's side of the zygote: starts it, and asks it for sandboxes.
//!
//! One zygote per provider value. It ends when its socket closes, so it never outlives the program.
//!
//! That of an ordinary user with subordinate ids is also asked for work on files that belong to these.

use super::{
    made, network,
    places::Places,
    ranges::STORAGE_BASE,
    socket,
    subordinate::{self, Subordinate},
    volumes,
};
use crate::sys;
use rustix::io::Errno;
use sandbox_agent::protocol::{
    Blob, MAX_PACKET, VERSION,
    zygote::{Configure, Create, Reply, Request, Rights, Rotate},
};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// The helper's program, built by this crate's build script.
pub(crate) const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.bin"));

/// Where the zygote expects its socket.
const SOCKET: RawFd = 3;

/// How long work on files may take. A disk that does not answer is not waited for any longer.
const TENDED_WITHIN: Duration = Duration::from_secs(1800);

/// Zygotes that can work on files of subordinate ids. Whoever cleans up may be far from any provider.
static HELPERS: Mutex<Vec<Weak<Zygote>>> = Mutex::new(Vec::new());

/// A process that makes sandboxes; started with the first of them, and again should it have died.
#[derive(Debug)]
pub(crate) struct Zygote {
    configure: Configure,
    subordinate: Option<&'static Subordinate>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    socket: OwnedFd,
}

/// A new sandbox's PID 1.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
}

impl Zygote {
    /// Prepares a zygote that assembles roots on the empty directory `staging`, with the rights that this program has.
    pub(crate) fn new(staging: &Path) -> Arc<Self> {
        let staging = Blob(staging.as_os_str().as_bytes().to_vec());
        let subordinate = subordinate::used();
        let rights = match subordinate {
            Some(_) => Rights::Subordinate {
                count: subordinate::COUNT,
            },
            None if rustix::process::geteuid().is_root() => Rights::Root {
                storage_base: STORAGE_BASE,
            },
            None => Rights::User {},
        };
        let zygote = Arc::new(Self {
            configure: Configure {
                version: VERSION,
                rights,
                join: false,
                staging,
            },
            subordinate,
            running: Mutex::new(None),
        });
        if subordinate.is_some() {
            let mut helpers = HELPERS.lock().unwrap_or_else(PoisonError::into_inner);
            helpers.retain(|helper| helper.strong_count() > 0);
            helpers.push(Arc::downgrade(&zygote));
        }
        zygote
    }

    /// One of this program that can work on files of subordinate ids, if there are any such files. They all can, but one
    /// that runs needs no state directory any more, which may be another provider's and about to go.
    pub(crate) fn helper() -> Option<Arc<Self>> {
        let helpers = HELPERS.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = helpers.iter().rev().filter_map(Weak::upgrade).collect();
        let running = all.iter().find(|helper| helper.seems_to_run());
        running.or(all.first()).cloned()
    }

    /// Whether there is a process, or somebody is busy with it.
    fn seems_to_run(&self) -> bool {
        match self.running.try_lock() {
            Ok(running) => running.is_some(),
            Err(_) => true,
        }
    }

    /// Has work on files done, and waits until it is.
    pub(crate) fn tend(&self, request: &Request) -> io::Result<Reply> {
        self.tend_with(request, &[])
    }

    /// As [`Self::tend`], with what goes with the request.
    pub(crate) fn tend_with(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        let (ours, theirs) = socket::pair()?;
        let mut buffer = vec![0; 4096];
        let fds: Vec<_> = [&[theirs.as_fd()], fds].concat();
        {
            let mut running = self.running();
            let socket = self.start(&mut running).map_err(io::Error::other)?;
            socket::send(socket, request, &fds)?;
        }
        drop(theirs);
        // Others may be served meanwhile: this may take long.
        if !made::wait(ours.as_fd(), TENDED_WITHIN) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match socket::receive(ours.as_fd(), &mut buffer)? {
            Some((Reply::Failed { errno, .. }, _)) if errno != 0 => {
                Err(io::Error::from_raw_os_error(errno))
            }
            Some((Reply::Failed { step, .. }, _)) => Err(io::Error::other(step)),
            Some((reply, _)) => Ok(reply),
            None => Err(io::Error::other("the helper process ended unexpectedly")),
        }
    }

    /// Makes a sandbox. Blocks for some milliseconds.
    pub(crate) fn create(&self, create: Create, fds: &[BorrowedFd<'_>]) -> Result<Created> {
        let request = Request::Create { create };
        match (self.request(&request, fds)?, request) {
            ((Reply::Created { pid }, Some(pidfd)), _) => Ok(Created { pid, pidfd }),
            ((Reply::Failed { step, errno }, _), Request::Create { create }) => {
                Err(volumes::not_mounted(&create.volumes, &step, errno)
                    .or_else(|| network::not_caught(&step, errno))
                    .unwrap_or_else(|| failed(&step, errno)))
            }
            _ => Err(misfit()),
        }
    }

    /// Gives a sandbox new overlays, which the connection `claim` has for itself. Returns whether it has them: it keeps its
    /// own if somebody could still write to them.
    ///
    /// # Errors
    /// Then it has its own in most cases, but if the zygote has ended that cannot be told.
    pub(crate) fn rotate(
        &self,
        rotate: Rotate,
        init: BorrowedFd<'_>,
        claim: BorrowedFd<'_>,
        places: &Places,
    ) -> Result<bool> {
        let request = Request::Rotate { rotate };
        let [users, mounts, root, list] = places.all();
        let fds = [init, claim, users, mounts, root, list];
        let reply = match self.request(&request, &fds)?.0 {
            Reply::Elsewhere {} => {
                // It is another program's. Only who is in the same user namespace can do it.
                let mut configure = self.configure.clone();
                configure.join = true;
                let running = Running::start(&configure, None, &[users])?;
                let answer = ask(running.socket.as_fd(), &request, &fds);
                answer.map_err(|error| vanished().with_source(error))?.0
            }
            reply => reply,
        };
        match reply {
            Reply::Rotated {} => Ok(true),
            Reply::Busy {} => Ok(false),
            Reply::Failed { step, errno } => Err(failed(&step, errno)),
            _ => Err(misfit()),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket of the process, which is started if there is none.
    fn start<'a>(&self, running: &'a mut Option<Running>) -> Result<BorrowedFd<'a>> {
        if running.as_mut().is_some_and(Running::has_ended) {
            *running = None;
        }
        if running.is_none() {
            *running = Some(Running::start(&self.configure, self.subordinate, &[])?);
        }
        running
            .as_ref()
            .map(|running| running.socket.as_fd())
            .ok_or_else(vanished)
    }

    /// Asks for one thing.
    fn request(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let mut running = self.running();
        let socket = self.start(&mut running)?;
        match ask(socket, request, fds) {
            // Not even sent.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(Error::invalid(error.to_string()))
            }
            Err(error) => {
                // What it may still say belongs to this request: the next one gets a new zygote.
                *running = None;
                Err(vanished().with_source(error))
            }
            Ok(answer) => Ok(answer),
        }
    }
}

impl Running {
    fn start(
        configure: &Configure,
        subordinate: Option<&Subordinate>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Self> {
        let start = || -> io::Result<Self> {
            let (ours, theirs) = socket::pair()?;
            let program = out_of_the_way(socket::sealed(AGENT)?)?;
            let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
            command.arg0("sandbox-zygote").env_clear().current_dir("/");
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            sys::pass(&mut command, theirs, SOCKET);
            let child = command.spawn()?;
            Ok(Self {
                child,
                socket: ours,
            })
        };
        let running = start().map_err(|error| {
            let message = "the zygote could not be started: programs must be allowed to run from memory (memfd)";
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        let socket = running.socket.as_fd();
        let mut answer = ask(socket, configure, fds);
        if let (Ok((Reply::Unmapped {}, _)), Some(subordinate)) = (&answer, subordinate) {
            subordinate.map(running.child.id())?;
            answer = ask(socket, &Request::Mapped {}, &[]);
        }
        match answer {
            Ok((Reply::Ready { version: VERSION }, _)) => Ok(running),
            Ok((Reply::Failed { step, errno }, _)) => Err(failed(&step, errno)),
            Ok(_) => Err(Error::new(
                ErrorKind::Protocol,
                "the zygote speaks another version of the protocol",
            )),
            Err(error) => Err(vanished().with_source(error)),
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// The same program by a descriptor that the socket does not take the place of before it is executed: the lowest may be free
/// when another thread has just closed it.
fn out_of_the_way(program: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(program, SOCKET + 1)?)
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its sandboxes live on or end by their own lifelines; the zygote itself holds nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(
    socket: BorrowedFd<'_>,
    message: &impl sandbox_agent::protocol::Wire,
    fds: &[BorrowedFd<'_>],
) -> io::Result<(Reply, Option<OwnedFd>)> {
    socket::send(socket, message, fds)?;
    let mut buffer = vec![0; MAX_PACKET];
    let (reply, fds) = socket::receive(socket, &mut buffer)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((reply, fds.into_iter().next()))
}

fn misfit() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the zygote gave an answer that does not fit",
    )
}

fn vanished() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the zygote ended unexpectedly, try again",
    )
}

fn failed(step: &str, errno: i32) -> Error {
    let message = match forbidden(step, errno) {
        Some(cause) => format!("the sandbox could not be made: {step} failed: {cause}"),
        None => format!(
            "the sandbox could not be made: {step} failed, `sandbox doctor` names the cause and the fix"
        ),
    };
    let error = Error::new(ErrorKind::Unavailable, message);
    if errno == 0 {
        error
    } else {
        error
            .with_source(io::Error::from_raw_os_error(errno))
            .with_context("errno", io::Error::from_raw_os_error(errno))
    }
}

/// What it means if an ordinary user cannot do this.
fn forbidden(step: &str, errno: i32) -> Option<&'static str> {
    match step {
        "open the layer /usr" if errno == Errno::INVAL.raw_os_error() => Some(
            "something is mounted below it, and ordinary users can make no overlay of such; run as root",
        ),
        _ if step.starts_with("open the volume of ") && errno == Errno::INVAL.raw_os_error() => {
            Some(
                "something is mounted below it, which ordinary users cannot leave out; run as root",
            )
        }
        "make a user namespace" => Some(
            "ordinary users may make none here; run as root, or allow them (sysctl user.max_user_namespaces, \
             kernel.apparmor_restrict_unprivileged_userns; docker: --security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined)",
        ),
        "mount /proc" => Some(
            "an outer container hides parts of its /proc; run as root, or show it all (docker: --security-opt \
             systempaths=unconfined)",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_agent::protocol::MAX_MESSAGE;

    fn create(env: usize) -> Create {
        Create {
            name: "s".into(),
            uid_base: 0,
            uid_count: 0,
            first_uid: 0,
            overlays: Vec::new(),
            volumes: Vec::new(),
            tmpfs_size: 0,
            max_processes: 0,
            env: vec![("A".into(), Blob(vec![b'x'; env]))],
            limits: None,
            lifetime_ms: 0,
            owned: true,
            seccomp: Blob(Vec::new()),
            process_cgroup: false,
            oom_counter: false,
            captured: false,
            weaken: 0,
        }
    }

    #[test]
    fn the_program_is_never_where_the_socket_goes() {
        let lowest = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0).unwrap();
        let moved = out_of_the_way(lowest).unwrap();
        assert!(moved.as_raw_fd() > SOCKET);
    }

    #[test]
    fn a_request_that_cannot_be_sent_costs_no_zygote() {
        let staging = tempfile::tempdir().unwrap();
        let zygote = Zygote::new(staging.path());
        let pid = || {
            let running = zygote.running.lock().unwrap();
            running.as_ref().map(|running| running.child.id())
        };
        // It lacks all that it takes, which the zygote says and survives.
        zygote.create(create(1), &[]).unwrap_err();
        let before = pid();
        let error = zygote.create(create(MAX_MESSAGE), &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(before.is_some() && pid() == before);
    }
}
