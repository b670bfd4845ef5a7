//! The process that carries the connections of all detached sandboxes in a state directory: how it is started and
//! asked, and what it does.
//!
//! It is started by whoever makes the first such sandbox, and ends some time after the last one. `relay/sock` in the state
//! directory is where it is asked; if that is there and nobody listens, it has died, and the next program that opens the
//! state directory starts another one.

use super::{
    Serving,
    ask::{self, DONE, LONGEST},
    start_relay, stored,
};
use crate::{
    config::{RelayProgram, Terms},
    linux::{
        made::wait,
        record::{Records, lock_soon, make_private, storage_error},
        socket,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with},
    process::{Resource, getrlimit, setrlimit},
};
use sandbox_core::{Error, ErrorKind, Ownership, Result, SandboxId};
use sandbox_egress::Relay;
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

/// Name of its directory in the state directory.
const DIRECTORY: &str = "relay";
/// Name of its socket in that.
const SOCKET: &str = "sock";

/// Variables that it gets of whoever starts it: others have nothing to do with the sandboxes of other programs.
const KEPT: [&str; 3] = ["HOME", "LD_LIBRARY_PATH", "PATH"];

/// How long it may take to start, or to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// How long who asks it may take to say what, while others wait.
const ASKED_WITHIN: Duration = Duration::from_millis(500);

/// How long it stays when there is nothing to do.
const IDLE: Duration = Duration::from_secs(2);

/// Has the relay carry the connections of a detached sandbox. It is started if it does not run.
pub(super) fn serve(state: &Path, program: &RelayProgram, id: &SandboxId) -> Result<()> {
    let place = Place::open(state)?;
    // Nobody ends or starts it meanwhile.
    let _alone = place.start_alone()?;
    if place.ask(id)? {
        return Ok(());
    }
    place.start(state, program)?;
    match place.ask(id)? {
        true => Ok(()),
        false => Err(unavailable(
            "the relay of detached sandboxes has ended at once",
            None,
        )),
    }
}

/// Starts the relay again if it has died. Sandboxes of others than this program are not worth an error.
pub(crate) fn revive(state: &Path, program: &RelayProgram) {
    if !state.join(DIRECTORY).join(SOCKET).exists() {
        return;
    }
    let revived = Place::open(state).and_then(|place| {
        let _alone = place.start_alone()?;
        match place.connect()? {
            Some(_) => Ok(()),
            None => place.start(state, program),
        }
    });
    if let Err(error) = revived {
        tracing::warn!(%error, "the relay of detached sandboxes is dead and cannot be started again");
    }
}

/// Carries the connections of detached sandboxes until none is left. Returns at once if another process does.
pub(crate) fn run(state: &Path) -> Result<()> {
    raise_limit();
    let place = Place::open(state)?;
    let Some(_only) = place.lock_only()? else {
        return Ok(());
    };
    let listener = place.listen()?;
    let mut carried = Carried {
        records: Records::open(state)
            .map_err(|error| storage_error(error, "the state directory cannot be used"))?,
        relays: Vec::new(),
        serving: BTreeMap::new(),
    };
    carried.serve_all();
    announce();
    loop {
        let is_idle = carried.wait(&listener)?;
        carried.let_go();
        // Whoever is about to ask for something has this lock until there is an answer.
        if is_idle
            && carried.serving.is_empty()
            && let Some(_alone) = place.try_start_alone()?
        {
            return place.close();
        }
    }
}

/// The relay's directory.
struct Place {
    path: PathBuf,
    directory: File,
}

impl Place {
    fn open(state: &Path) -> Result<Self> {
        let path = state.join(DIRECTORY);
        let open = || {
            make_private(&path)?;
            File::open(&path)
        };
        let directory = open().map_err(broken)?;
        Ok(Self { path, directory })
    }

    fn file(&self, name: &str) -> Result<File> {
        File::create(self.path.join(name)).map_err(broken)
    }

    /// Waits until nobody else starts or ends it, nor will as long as what is returned is there.
    fn start_alone(&self) -> Result<File> {
        lock_soon(self.file("start.lock")?).map_err(broken)
    }

    fn try_start_alone(&self) -> Result<Option<File>> {
        held(self.file("start.lock")?)
    }

    /// The right to be the relay; `None` if another process is.
    fn lock_only(&self) -> Result<Option<File>> {
        held(self.file("lock")?)
    }

    fn listen(&self) -> Result<OwnedFd> {
        let listen = || {
            match fs::remove_file(self.path.join(SOCKET)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            socket::listen(self.directory.as_fd(), SOCKET)
        };
        listen().map_err(broken)
    }

    fn close(&self) -> Result<()> {
        fs::remove_file(self.path.join(SOCKET)).map_err(broken)
    }

    /// A connection to it; `None` if it does not run.
    fn connect(&self) -> Result<Option<OwnedFd>> {
        ask::connect(self.directory.as_fd(), SOCKET).map_err(broken)
    }

    /// Asks it to carry the connections of a sandbox; false if it does not run.
    fn ask(&self, id: &SandboxId) -> Result<bool> {
        let question = id.as_str().as_bytes();
        let answer =
            ask::ask(self.directory.as_fd(), SOCKET, question, WITHIN).map_err(|error| {
                let message = "the relay of detached sandboxes does not answer";
                unavailable(message, Some(error))
            })?;
        match answer.as_deref() {
            None => Ok(false),
            Some(DONE) => Ok(true),
            Some(answer) => {
                let message = "the relay of detached sandboxes cannot carry its connections";
                Err(unavailable(message, Some(ask::refused(answer))))
            }
        }
    }

    /// Starts the program and waits until it says that it serves.
    fn start(&self, state: &Path, program: &RelayProgram) -> Result<()> {
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env_clear()
            .envs(
                KEPT.iter()
                    .filter_map(|name| Some((name, env::var_os(name)?))),
            )
            .env("SANDBOX_STATE_DIR", state)
            .current_dir("/");
        // What interrupts the program that has started it is not meant for it.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let failed = |error| {
            let message = "the relay program of detached sandboxes cannot be started";
            unavailable(message, Some(error)).with_context("program", program.path.display())
        };
        let mut child = command.spawn().map_err(failed)?;
        let ready = child.stdout.take();
        thread::spawn(move || child.wait());
        let says_so = |mut ready: ChildStdout| {
            let mut word = [0];
            wait(ready.as_fd(), WITHIN) && ready.read(&mut word).is_ok_and(|read| read == 1)
        };
        match ready.is_some_and(says_so) {
            true => Ok(()),
            false => Err(failed(io::Error::other("it has not said that it is ready"))),
        }
    }
}

/// What the relay carries.
struct Carried {
    records: Records,
    /// One for all that have the same terms.
    relays: Vec<(Terms, Weak<Relay>)>,
    serving: BTreeMap<SandboxId, Serving>,
}

impl Carried {
    /// Takes over all sandboxes that nobody serves: of a relay that has died.
    fn serve_all(&mut self) {
        for id in self.records.ids().unwrap_or_default() {
            let record = self.records.read(&id).ok().flatten();
            let is_ours = record
                .is_some_and(|record| record.ownership == Ownership::Detached && !record.pooled);
            if is_ours
                && self.records.is_alive(&id).unwrap_or(false)
                && stored::read(&self.records.path(&id)).is_ok_and(|stored| stored.is_some())
                && let Err(error) = self.serve(&id)
            {
                tracing::warn!(%id, %error, "connections of a sandbox cannot be carried");
            }
        }
    }

    fn serve(&mut self, id: &SandboxId) -> Result<()> {
        if !self.serving.contains_key(id) {
            let record = self.records.path(id);
            let terms = stored::read(&record)?.map(|stored| stored.terms);
            let relay = self.relay(terms.unwrap_or_default())?;
            let serving = Serving::start(relay, &record)?;
            self.serving.insert(id.clone(), serving);
        }
        Ok(())
    }

    /// The relay for these terms.
    fn relay(&mut self, terms: Terms) -> Result<Arc<Relay>> {
        self.relays.retain(|(_, relay)| relay.strong_count() > 0);
        let mut running = self.relays.iter();
        let running = running.find_map(|(of, relay)| (*of == terms).then(|| relay.upgrade()));
        if let Some(relay) = running.flatten() {
            return Ok(relay);
        }
        let relay = Arc::new(start_relay(&terms)?);
        self.relays.push((terms, Arc::downgrade(&relay)));
        Ok(relay)
    }

    /// Waits for something to do and does it; true if nothing came for a while.
    fn wait(&mut self, listener: &OwnedFd) -> Result<bool> {
        let within = Timespec {
            tv_sec: IDLE.as_secs() as i64,
            tv_nsec: 0,
        };
        let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
        fds.extend(
            self.serving
                .values()
                .map(|serving| PollFd::from_borrowed_fd(serving.ended(), PollFlags::IN)),
        );
        let within = self.serving.is_empty().then_some(&within);
        let ready = match poll(&mut fds, within) {
            Err(Errno::INTR) => return Ok(false),
            ready => ready.map_err(|errno| broken(errno.into()))?,
        };
        let is_asked = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if is_asked {
            let flags = SocketFlags::CLOEXEC;
            if let Ok(connection) = accept_with(listener, flags) {
                self.answer(&connection);
            }
        }
        Ok(ready == 0)
    }

    fn answer(&mut self, connection: &OwnedFd) {
        let mut request = [0; LONGEST];
        if !wait(connection.as_fd(), ASKED_WITHIN) {
            return;
        }
        let length = match rustix::net::recv(connection, &mut request, RecvFlags::DONTWAIT) {
            Ok((length, _)) if length > 0 => length,
            // Whoever only looks if somebody is here.
            _ => return,
        };
        let id = SandboxId::new(String::from_utf8_lossy(&request[..length]));
        let told = match self.serve(&id) {
            Ok(()) => DONE.to_vec(),
            Err(error) => ask::reason(&error),
        };
        // Whoever is gone does not need it.
        let _ = rustix::net::send(connection, &told, SendFlags::NOSIGNAL);
    }

    /// Forgets sandboxes that have ended.
    fn let_go(&mut self) {
        self.serving
            .retain(|_, serving| !wait(serving.ended(), Duration::ZERO));
    }
}

/// Tells who has started this process that it serves.
fn announce() {
    use std::io::Write;

    // Whoever has gone meanwhile finds the socket.
    let _ = io::stdout()
        .write_all(b"\n")
        .and_then(|()| io::stdout().flush());
}

/// Each connection takes two descriptors, and more while much is on its way.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    // With fewer descriptors there are fewer connections.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn held(file: File) -> Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(broken(error)),
    }
}

fn broken(error: io::Error) -> Error {
    storage_error(
        error,
        "the directory of the relay of detached sandboxes cannot be used",
    )
}

fn unavailable(message: &'static str, error: Option<io::Error>) -> Error {
    let unavailable = Error::new(ErrorKind::Unavailable, message);
    match error {
        Some(error) => unavailable.with_source(error),
        None => unavailable,
    }
}
