//! A handle to one sandbox: talks to its PID 1 through the socket in its record.

use super::{
    create::check_lifetime,
    files::LocalFiles,
    host::Host,
    init,
    made::{left_behind, still_there, wait},
    network::{self, LocalPorts},
    process,
    provider::{NAME, Shared, blocking},
    reap,
    record::{Record, SOCKET, storage_error},
    snapshot::{self, Holder as _, Taken},
    socket::{self, Connection},
    usage,
};
use async_trait::async_trait;
use sandbox_agent::protocol::{
    VERSION, Wire,
    agent::{self, Event, Failure, Request},
};
use sandbox_core::{
    Attach, BoxStream, Capabilities, Command, Error, ErrorKind, FileEvent, Files, Lifecycle,
    Metrics, Network, Pause, Ports, Position, Process, ProcessId, ProcessInfo, Pty, PtySize,
    Result, Sandbox, SandboxId, SandboxInfo, SandboxPath, SandboxState, SnapshotInfo,
    SnapshotOptions, Snapshots, TemplateId, Usage, Watch, WatchOptions,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
    thread,
    time::{self, Duration, SystemTime},
};
use tokio::time::Instant;

/// How long a sandbox may have too many connections waiting.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_AGAIN: Duration = Duration::from_millis(5);

/// How long others may take who keep the state of the same sandbox; each may copy much.
const KEPT_WITHIN: Duration = Duration::from_secs(300);

/// How long its commands may take to stop, which it gives up itself before.
const HELD_WITHIN: Duration = Duration::from_secs(30);

/// How long a sandbox may take to end when it is asked to.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

/// How long it may take to end when it is killed.
const KILLED_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// How long the end of a sandbox may take until somebody else's program is trusted to clean up.
const CLEANED_WITHIN: Duration = Duration::from_secs(2);

/// A handle to a sandbox of this machine.
#[derive(Debug)]
pub(crate) struct LocalSandbox {
    pub(crate) link: Arc<Link>,
    pub(super) shared: Arc<Shared>,
    files: LocalFiles,
    ports: LocalPorts,
}

/// The way to a sandbox's PID 1.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    pub(crate) id: SandboxId,
    record: OnceLock<Record>,
}

/// What sandboxes of this machine can do.
pub(crate) fn capabilities(host: &Host) -> Capabilities {
    let mut capabilities = Capabilities::new();
    capabilities.pty = true;
    capabilities.attach = true;
    capabilities.lifecycle = true;
    capabilities.pause = host.v2.is_some();
    capabilities.snapshots = true;
    capabilities.network = true;
    capabilities.watch = true;
    capabilities.ports = true;
    capabilities.metrics = true;
    capabilities.shell = true;
    capabilities.stdin = true;
    capabilities.split_stderr = true;
    capabilities.signals = true;
    capabilities.range_read = true;
    capabilities.symlinks = true;
    capabilities.templates = true;
    capabilities.users = host.has_users();
    capabilities.detached = true;
    capabilities.max_lifetime = Some(super::create::MAX_LIFETIME);
    capabilities
}

impl Link {
    /// Refuses another user than `user` where there is no other.
    pub(crate) fn check_user(&self, user: Option<&str>) -> Result<()> {
        const ONLY: [&str; 4] = ["user", "1000", "user:user", "1000:1000"];
        if user.is_none_or(|user| ONLY.contains(&user)) || self.record()?.has_users() {
            return Ok(());
        }
        let what =
            "another user than `user` in a sandbox of an ordinary user without subordinate ids";
        Err(Error::unsupported(what).with_provider(NAME))
    }

    /// A new connection. While too many wait to be accepted it is tried again, for some seconds.
    pub(crate) async fn connect(&self) -> Result<OwnedFd> {
        let deadline = Instant::now() + CONNECT_WITHIN;
        loop {
            if let Some(connection) = self.try_connect()? {
                return Ok(connection);
            }
            if Instant::now() > deadline {
                let message = "the sandbox takes no more connections, try again";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            tokio::time::sleep(CONNECT_AGAIN).await;
        }
    }

    /// A new connection; `None` if too many wait to be accepted.
    fn try_connect(&self) -> Result<Option<OwnedFd>> {
        let directory = self.shared.site.records.open_directory(&self.id);
        let directory = directory
            .map_err(|error| self.failed(error))?
            .ok_or_else(|| self.gone())?;
        match socket::connect(directory.as_fd(), SOCKET) {
            Ok(connection) => Ok(Some(connection)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Err(self.gone()),
                io::ErrorKind::PermissionDenied => {
                    let message = "the sandbox is another user's";
                    Err(Error::new(ErrorKind::PermissionDenied, message))
                }
                _ => Err(self.failed(error)),
            },
        }
    }

    /// A new connection for tasks.
    pub(crate) async fn open(&self) -> Result<Connection> {
        Connection::new(self.connect().await?).map_err(|error| self.failed(error))
    }

    /// Sends a request on a new connection and returns the answer.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Event> {
        let connection = self.open().await?;
        connection
            .send(request)
            .await
            .map_err(|error| self.failed(error))?;
        self.receive(&connection).await
    }

    /// Sends a request that is answered by no more than `Done`.
    pub(crate) async fn tell(&self, request: &Request) -> Result<()> {
        match self.ask(request).await? {
            Event::Done {} => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// The next message of a connection; its end is the sandbox's.
    pub(crate) async fn receive<M: Wire + Send>(&self, connection: &Connection) -> Result<M> {
        Ok(self.receive_with_fds(connection).await?.0)
    }

    /// The next message of a connection and the descriptors beside it.
    pub(crate) async fn receive_with_fds<M: Wire + Send>(
        &self,
        connection: &Connection,
    ) -> Result<(M, Vec<OwnedFd>)> {
        let received = connection.receive().await;
        received
            .map_err(|error| self.failed(error))?
            .ok_or_else(|| self.gone())
    }

    /// What the record says.
    pub(crate) fn record(&self) -> Result<&Record> {
        if let Some(record) = self.record.get() {
            return Ok(record);
        }
        let record = self.shared.site.records.read(&self.id);
        let record = record
            .map_err(|error| storage_error(error, "the sandbox's record could not be read"))?
            .filter(|record| !record.pooled)
            .ok_or_else(|| self.gone())?;
        Ok(self.record.get_or_init(|| record))
    }

    pub(crate) fn gone(&self) -> Error {
        Error::new(
            ErrorKind::SandboxNotFound,
            "the sandbox does not exist, or has ended",
        )
        .with_context("id", self.id.as_str().escape_debug())
        .with_provider(NAME)
    }

    /// A connection that fails: usually because the sandbox has ended meanwhile.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => self.gone(),
            io::ErrorKind::InvalidData => {
                Error::new(ErrorKind::Protocol, "the sandbox broke the protocol").with_source(error)
            }
            io::ErrorKind::InvalidInput => Error::invalid(error.to_string()),
            _ => Error::new(ErrorKind::Unavailable, "the sandbox cannot be reached")
                .with_source(error),
        }
    }
}

/// An answer that is a failure, or does not fit.
pub(crate) fn unexpected(event: Event) -> Error {
    let Event::Failed { failure, message } = event else {
        return Error::new(
            ErrorKind::Protocol,
            "the sandbox gave an answer that does not fit",
        );
    };
    let kind = match failure {
        Failure::NotFound {} => ErrorKind::NotFound,
        Failure::Invalid {} => ErrorKind::InvalidArgument,
        Failure::Denied {} => ErrorKind::PermissionDenied,
        Failure::Exhausted {} => ErrorKind::QuotaExceeded,
        Failure::State {} | Failure::Busy {} => ErrorKind::InvalidState,
        Failure::Unsupported {} => ErrorKind::Unsupported,
        Failure::Internal {} => ErrorKind::Internal,
    };
    Error::new(kind, message).with_provider(NAME)
}

impl LocalSandbox {
    /// A handle; `record` is what was read of it already.
    pub(crate) fn new(shared: Arc<Shared>, id: SandboxId, record: Option<Record>) -> Self {
        let link = Arc::new(Link {
            shared: Arc::clone(&shared),
            id,
            record: record.map(OnceLock::from).unwrap_or_default(),
        });
        let files = LocalFiles::new(Arc::clone(&link));
        let ports = LocalPorts::new(Arc::clone(&link));
        Self {
            link,
            shared,
            files,
            ports,
        }
    }

    /// Lets it live for `remaining` from now on.
    pub(crate) async fn set_remaining(&self, remaining: Duration) -> Result<()> {
        check_lifetime(remaining)?;
        self.link
            .tell(&Request::SetLifetime {
                remaining_ms: remaining.as_millis() as u64,
            })
            .await
    }

    /// Keeps its present state, as a snapshot that is offered or only as what is returned.
    pub(crate) async fn keep(&self, name: Option<String>, offer: bool) -> Result<Taken> {
        // Refuses what is gone or nobody's yet.
        self.link.record()?;
        let (shared, link) = (Arc::clone(&self.shared), Arc::clone(&self.link));
        let connection = self.link.connect().await?;
        // To the end, even if nobody waits for it any more: the commands go on when the connection closes.
        blocking(move || {
            let records = &shared.site.records;
            // Before the commands stop. Others who keep its state may change what it stands on.
            let alone = records.keep_alone(&link.id, KEPT_WITHIN);
            let _alone = alone.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => link.gone(),
                io::ErrorKind::TimedOut => {
                    let message = "others have been keeping the sandbox's state for too long";
                    Error::new(ErrorKind::Unavailable, message)
                }
                _ => link.failed(error),
            })?;
            let held = Held { connection, link };
            let record = records.read(&held.link.id);
            let record = record.map_err(|error| held.link.failed(error))?;
            let record = record.ok_or_else(|| held.link.gone())?;
            let site = &shared.site;
            let prepared = snapshot::prepare(site, &record, name, held.connection.as_fd());
            let taken = prepared.and_then(|prepared| {
                held.hold()?;
                snapshot::take(site, prepared, offer, &held)
            });
            if taken.is_err()
                && let Err(gone) = held.still_there()
            {
                // What was made is no layer of anybody's then, and that is the better reason. Who cleans up may have read
                // the record before it named that, and until the record has gone it is taken to be in use.
                let _ = lock_is_free(&shared, &held.link, CLEANED_WITHIN);
                snapshot::collect(&site.state, &|| site.templates_in_use());
                return Err(gone);
            }
            taken
        })
        .await
    }

    async fn start(&self, command: Command, size: Option<PtySize>) -> Result<Process> {
        let spawn = process::to_wire(&command, size, &self.link.record()?.shell)?;
        self.link.check_user(spawn.user.as_deref())?;
        process::spawn(&self.link, spawn)
            .await
            .map_err(|error| error.with_operation("spawn"))
    }
}

/// A connection as long as which all commands of a sandbox are stopped.
struct Held {
    connection: OwnedFd,
    link: Arc<Link>,
}

impl Held {
    fn ask(&self, request: &Request) -> Result<Event> {
        let answer = socket::ask(self.connection.as_fd(), request, HELD_WITHIN);
        answer.map_err(|error| self.link.failed(error))
    }

    fn hold(&self) -> Result<()> {
        match self.ask(&Request::Hold {})? {
            Event::Done {} => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

impl snapshot::Holder for Held {
    fn claim(&self) -> Result<bool> {
        match self.ask(&Request::Claim {})? {
            Event::Done {} => Ok(true),
            Event::Failed {
                failure: Failure::State {},
                ..
            } => Ok(false),
            other => Err(unexpected(other)),
        }
    }

    fn connection(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    fn still_there(&self) -> Result<()> {
        self.ask(&Request::Info { version: VERSION }).map(drop)
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn id(&self) -> &SandboxId {
        &self.link.id
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(&self.shared.site.host)
    }

    async fn info(&self) -> Result<SandboxInfo> {
        let answer = self.link.ask(&Request::Info { version: VERSION }).await?;
        let Event::Info {
            remaining_ms,
            paused,
            ..
        } = answer
        else {
            return Err(unexpected(answer));
        };
        let state = if paused {
            SandboxState::Paused
        } else {
            SandboxState::Running
        };
        let record = self.link.record()?;
        let mut info = SandboxInfo::new(self.link.id.clone(), state);
        info.name = record.name.clone();
        info.template = Some(TemplateId::new(record.template.as_str()));
        info.created_at = Some(record.created_at());
        info.expires_at =
            remaining_ms.and_then(|ms| SystemTime::now().checked_add(Duration::from_millis(ms)));
        info.ownership = Some(record.ownership);
        info.limits = record.limits;
        info.metadata = record.metadata.clone();
        Ok(info)
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        self.start(command, None).await
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }

    async fn kill(&self) -> Result<bool> {
        let (shared, link) = (Arc::clone(&self.shared), Arc::clone(&self.link));
        blocking(move || match shared.disown(&link.id) {
            Some(made) => {
                // An ending PID 1 closes its socket a moment before it is gone, and calls find no sandbox from then on.
                let found = link.try_connect();
                let is_over = found.is_err_and(|error| error.kind() == ErrorKind::SandboxNotFound);
                Ok(made.kill()? && !is_over)
            }
            None => end(&shared, &link),
        })
        .await
        .map_err(|error| error.with_operation("kill"))
    }

    fn pty(&self) -> Option<&dyn Pty> {
        Some(self)
    }

    fn attach(&self) -> Option<&dyn Attach> {
        Some(self)
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        Some(self)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        Some(&self.ports)
    }

    fn network(&self) -> Option<&dyn Network> {
        Some(self)
    }

    fn metrics(&self) -> Option<&dyn Metrics> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn pause(&self) -> Option<&dyn Pause> {
        let can_pause = self.shared.site.host.v2.is_some();
        can_pause.then_some(self)
    }
}

/// Ends a sandbox that another program has made. Returns whether it lived; it is over afterwards, or it is an error.
fn end(shared: &Shared, link: &Link) -> Result<bool> {
    let connection = match link.try_connect() {
        Err(error) if error.kind() == ErrorKind::SandboxNotFound => None,
        connection => Some(connection?),
    };
    let init = init_of(shared, link)?;
    let Some(connection) = connection else {
        // It takes a moment from the end of its sockets to its own.
        if init.is_some_and(|init| !wait(init.as_fd(), ASKED_WITHIN)) {
            return Err(still_there());
        }
        clean_up(shared, link)?;
        return Ok(false);
    };
    let is_over = |within| match &init {
        Some(init) => Ok(wait(init.as_fd(), within)),
        None => lock_is_free(shared, link, within),
    };
    // A PID 1 that takes no connections is not asked. Else this one is readable, at its end, when PID 1 is on its way out.
    let is_leaving = connection.is_some_and(|connection| {
        socket::send(connection.as_fd(), &Request::Shutdown {}, &[]).is_ok()
            && wait(connection.as_fd(), ASKED_WITHIN)
    });
    if !(is_leaving && is_over(ASKED_WITHIN)?) {
        if let Some(init) = &init {
            // It fails only for what has ended.
            let _ = rustix::process::pidfd_send_signal(init, rustix::process::Signal::KILL);
        }
        let removed = link.record();
        let removed = removed.map(|record| record.groups.remove(link.id.as_str()));
        if !is_over(KILLED_WITHIN)? {
            return Err(still_there());
        }
        removed?.map_err(left_behind)?;
    }
    clean_up(shared, link)?;
    Ok(true)
}

/// The PID 1 of a sandbox that another program has made; `None` if that is not known yet.
fn init_of(shared: &Shared, link: &Link) -> Result<Option<OwnedFd>> {
    let Ok(record) = link.record() else {
        return Ok(None);
    };
    init::open(&shared.site.records.path(&link.id), &record.uids())
        .map_err(|error| link.failed(error))
}

/// Waits until nobody holds the sandbox's lock; false if it takes too long.
fn lock_is_free(shared: &Shared, link: &Link, within: Duration) -> Result<bool> {
    let deadline = time::Instant::now() + within;
    loop {
        let is_alive = shared.site.records.is_alive(&link.id);
        if !is_alive.map_err(|error| link.failed(error))? {
            return Ok(true);
        }
        if time::Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Removes what an ended sandbox has left. Its owner may do the same, if it has one; whoever comes first does it.
fn clean_up(shared: &Shared, link: &Link) -> Result<()> {
    // PID 1 closes its sockets shortly before the lock, and an owner holds that until it has cleaned up.
    lock_is_free(shared, link, CLEANED_WITHIN)?;
    if let Some(locked) = shared
        .site
        .records
        .try_lock(&link.id)
        .map_err(left_behind)?
    {
        reap::reap(&locked).map_err(left_behind)?;
    }
    Ok(())
}

#[async_trait]
impl Pty for LocalSandbox {
    async fn spawn(&self, command: Command, size: PtySize) -> Result<Process> {
        self.start(command, Some(size)).await
    }
}

#[async_trait]
impl Lifecycle for LocalSandbox {
    async fn set_lifetime(&self, remaining: Duration) -> Result<()> {
        self.set_remaining(remaining)
            .await
            .map_err(|error| error.with_operation("lifecycle.set_lifetime"))
    }
}

#[async_trait]
impl Watch for LocalSandbox {
    async fn watch(
        &self,
        path: &SandboxPath,
        options: WatchOptions,
    ) -> Result<BoxStream<'static, Result<FileEvent>>> {
        self.files.watch(path, options).await
    }
}

#[async_trait]
impl Metrics for LocalSandbox {
    async fn usage(&self) -> Result<Usage> {
        let measured = async {
            // Asked first, so that the rest is of a sandbox that lives.
            let answer = self.link.ask(&Request::Usage {}).await?;
            let Event::Usage { processes } = answer else {
                return Err(unexpected(answer));
            };
            let (groups, record) = (
                self.link.record()?.groups.clone(),
                self.shared.site.records.path(&self.link.id),
            );
            let (mut usage, disk, traffic) = blocking(move || {
                let disk = usage::of_disk(&record);
                Ok((usage::of_groups(&groups), disk, network::traffic(&record)))
            })
            .await?;
            if let Some(traffic) = traffic {
                (usage.sent, usage.received) = (Some(traffic.sent), Some(traffic.received));
                usage.connections = Some(traffic.connections);
                usage.refused = Some(traffic.refused);
            }
            usage.processes = processes;
            (usage.disk, usage.inodes) = disk.unzip();
            Ok(usage)
        };
        let measured: Result<Usage> = measured.await;
        measured.map_err(|error| error.with_operation("metrics.usage"))
    }
}

#[async_trait]
impl Pause for LocalSandbox {
    async fn pause(&self) -> Result<()> {
        let paused = self.link.tell(&Request::Pause {}).await;
        paused.map_err(|error| error.with_operation("pause.pause"))
    }

    async fn resume(&self) -> Result<()> {
        let resumed = self.link.tell(&Request::Resume {}).await;
        resumed.map_err(|error| error.with_operation("pause.resume"))
    }
}

#[async_trait]
impl Snapshots for LocalSandbox {
    async fn snapshot(&self, options: SnapshotOptions) -> Result<SnapshotInfo> {
        let taken = self.keep(options.name, true).await;
        let taken = taken.map_err(|error| error.with_operation("snapshots.snapshot"))?;
        taken.info.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the snapshot was lost").with_provider(NAME)
        })
    }
}

#[async_trait]
impl Attach for LocalSandbox {
    async fn attach(&self, id: &ProcessId, from: Position) -> Result<Process> {
        process::attach(&self.link, id, from)
            .await
            .map_err(|error| error.with_operation("attach.attach"))
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        match self.link.ask(&Request::List {}).await? {
            Event::Processes { processes } => Ok(processes.into_iter().map(to_info).collect()),
            other => Err(unexpected(other)),
        }
    }
}

fn to_info(entry: agent::ProcessEntry) -> ProcessInfo {
    let mut info = ProcessInfo::new(ProcessId::new(entry.process.to_string()));
    info.pid = Some(entry.pid);
    info.tag = entry.tag;
    info.argv = entry
        .argv
        .iter()
        .map(|arg| String::from_utf8_lossy(&arg.0).into_owned())
        .collect();
    info.pty = entry.pty;
    info.exit = entry.exit.map(process::to_status);
    info.elapsed = Some(Duration::from_millis(entry.elapsed_ms));
    info
}
