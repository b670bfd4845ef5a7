//! Makes one sandbox: record first, then everything else, and all of it removed again if a step fails.

use super::{
    cgroup::{self, Groups},
    host::Host,
    init,
    made::{ANSWER_WITHIN, Made, wait},
    network::{self, Stored},
    pool::Kind,
    provider::Shared,
    ranges, reap,
    record::{Locked, Record, SOCKET, STORE, looks_like_id, storage_error},
    seccomp,
    site::Site,
    snapshot, socket,
    store::{self, Store},
    subordinate,
    template::{self, Layer, Template, Tree},
    volumes::{self, Opened as Volume},
};
use crate::VolumeMount;
use rustix::process::Signal;
use sandbox_agent::protocol::{
    self, Blob, agent,
    zygote::{Create, Lower, Overlay},
};
use sandbox_core::{
    CreateOptions, Error, ErrorKind, Expiry, Limits, Ownership, Result, SandboxId, Source,
    TemplateId,
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, chown},
        },
    },
    time::{Duration, SystemTime},
};

/// A step of making a sandbox: a span of its name, by which the benchmark tells where the time goes.
macro_rules! step {
    ($name:literal, $work:expr) => {
        tracing::trace_span!($name).in_scope(|| $work)
    };
}

/// Life of a sandbox that does not say how long.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// Longest life; more is a mistake.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);
/// Size of `/run` and of `/dev/shm`, in bytes; both count as memory of the sandbox.
const TMPFS_SIZE: u64 = 64 * 1024 * 1024;

/// What a new sandbox is told about its end, if it differs from the usual one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetExpiry {
    pauses: bool,
    idle_ms: u64,
}

impl SetExpiry {
    fn of(expiry: Expiry, idle_timeout: Option<Duration>) -> Option<Self> {
        let pauses = expiry == Expiry::Pause;
        let idle_ms = idle_timeout.map_or(0, |time| time.as_millis() as u64);
        (pauses || idle_ms > 0).then_some(Self { pauses, idle_ms })
    }

    pub(crate) fn request(self) -> agent::Request {
        let Self { pauses, idle_ms } = self;
        agent::Request::SetExpiry { pauses, idle_ms }
    }
}

/// A sandbox that was asked for, checked against what this provider can do.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) template: TemplateId,
    /// The sandbox whose present state it starts from instead.
    pub(crate) fork: Option<SandboxId>,
    pub(crate) name: Option<String>,
    pub(crate) ownership: Ownership,
    pub(crate) lifetime: Duration,
    /// What its end is, and a time without traffic after which it comes as well; if it was asked for.
    pub(crate) expiry: Option<SetExpiry>,
    pub(crate) limits: Limits,
    /// What its changed files are kept in, by the limits on disk and inodes.
    pub(crate) store: Store,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) volumes: Vec<Volume>,
    /// What leaves it is caught, for somebody to serve it; without that there is no way out.
    pub(crate) captured: bool,
    /// What it may reach, if that is anything.
    pub(crate) network: Option<Stored>,
    /// It is made before it is known for whom, and for what else than the template.
    pub(crate) pooled: bool,
}

impl Request {
    /// Refuses what makes no sense or cannot be honoured, before anything happens.
    pub(crate) fn check(shared: &Shared, options: CreateOptions) -> Result<Self> {
        options.validate()?;
        let mut limits = limits(&shared.default_limits, &options);
        check_limits(&shared.site.host, &options.limits.unwrap_or_default())?;
        let store = choose_store(&shared.site.host, &mut limits, &options)?;
        let unsupported =
            |what: &str| Err(Error::unsupported(what).with_provider(super::provider::NAME));
        let state = &shared.site.state;
        let (template, fork) = match options.source {
            None => (TemplateId::new(template::DEFAULT), None),
            Some(Source::Template(id)) => (id, None),
            Some(Source::Snapshot(id)) => {
                snapshot::require(state, &id)?;
                (TemplateId::new(id.as_str()), None)
            }
            // What it starts from is made when it is, and never shown.
            Some(Source::Fork(id)) => (TemplateId::new(template::DEFAULT), Some(id)),
            Some(_) => return unsupported("such a source"),
        };
        template::check(&template, state)?;
        let expiry = options.on_expiry.unwrap_or(Expiry::Kill);
        if expiry != Expiry::Kill && shared.site.host.v2.is_none() {
            return unsupported("a pause without cgroup version 2");
        }
        if let Some(idle_timeout) = options.idle_timeout {
            check_time("an idle timeout", idle_timeout)?;
        }
        let mut extensions = options.extensions.iter().flatten().map(|(key, _)| key);
        if let Some(key) = extensions.find(|key| *key != VolumeMount::EXTENSION) {
            return unsupported(&format!("the extension `{key}`"));
        }
        if let Some(name) = &options.name {
            check_name(name)?;
        }
        let lifetime = options.lifetime.unwrap_or(DEFAULT_LIFETIME);
        check_lifetime(lifetime)?;
        let ownership = options.ownership.unwrap_or(Ownership::Owned);
        let policy = match (options.network, &fork) {
            (None, Some(id)) => {
                network::stored(&shared.site.records, id)?.map(|stored| stored.policy)
            }
            (policy, _) => policy,
        };
        let network = shared.networks.check(policy, ownership)?;
        let volumes = volumes::open(shared, options.extensions.as_ref())?;
        Ok(Self {
            template,
            fork,
            name: options.name,
            ownership,
            lifetime,
            expiry: SetExpiry::of(expiry, options.idle_timeout),
            limits,
            store,
            env: options.env.unwrap_or_default(),
            metadata: options.metadata.unwrap_or_default(),
            volumes,
            captured: network.is_some(),
            network,
            pooled: false,
        })
    }

    /// A sandbox of this kind for nobody yet: without limits or an end.
    pub(crate) fn pooled(kind: Kind) -> Self {
        Self {
            template: kind.template,
            fork: None,
            name: None,
            ownership: Ownership::Owned,
            lifetime: Duration::ZERO,
            expiry: None,
            limits: Limits::new(),
            store: Store::Directory,
            env: BTreeMap::new(),
            metadata: BTreeMap::new(),
            volumes: Vec::new(),
            captured: kind.captured,
            network: None,
            pooled: true,
        }
    }

    /// The environment as PID 1 is told it, on top of that of its template.
    pub(crate) fn variables(&self, template: &BTreeMap<String, String>) -> Vec<(Blob, Blob)> {
        let blob = |text: &String| Blob(text.as_bytes().to_vec());
        let mut all: BTreeMap<_, _> = template.iter().collect();
        all.extend(&self.env);
        all.into_iter()
            .map(|(name, value)| (blob(name), blob(value)))
            .collect()
    }
}

/// What holds for a sandbox: what was asked for, else the provider's defaults.
pub(crate) fn limits(defaults: &Limits, options: &CreateOptions) -> Limits {
    let asked = options.limits.unwrap_or_default();
    let mut limits = *defaults;
    limits.memory = asked.memory.or(limits.memory);
    limits.cpus = asked.cpus.or(limits.cpus);
    limits.processes = asked.processes.or(limits.processes);
    limits.disk = asked.disk.or(limits.disk);
    limits.inodes = asked.inodes.or(limits.inodes);
    limits
}

/// The store that carries these limits. Those that only are the provider's default are left out where none can.
fn choose_store(host: &Host, limits: &mut Limits, options: &CreateOptions) -> Result<Store> {
    let chosen = Store::choose(host, &enforceable(host, *limits));
    let asked = options.limits.unwrap_or_default();
    match chosen {
        Ok(store) => Ok(store),
        Err(reason) if asked.disk.is_some() || asked.inodes.is_some() => {
            let message = format!("this limit on disk or inodes is not supported here: {reason}");
            let error = Error::new(ErrorKind::Unsupported, message);
            Err(error.with_provider(super::provider::NAME))
        }
        Err(_) => {
            (limits.disk, limits.inodes) = (None, None);
            Ok(Store::Directory)
        }
    }
}

/// Whether a lifetime is one.
pub(crate) fn check_lifetime(lifetime: Duration) -> Result<()> {
    check_time("a lifetime", lifetime)
}

fn check_time(what: &str, time: Duration) -> Result<()> {
    if time.as_millis() == 0 || time > MAX_LIFETIME {
        let message = format!("{what} must be between a millisecond and a year");
        return Err(Error::invalid(message));
    }
    Ok(())
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    if looks_like_id(name) {
        // Whoever means that id would reach this sandbox, once the other has ended.
        let message = "a name must not look like an id, use another length or a `-`";
        return Err(Error::invalid(message).with_context("name", name));
    }
    let fits = |(index, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || index > 0 && b"._-".contains(&byte)
    };
    if (1..=63).contains(&name.len()) && name.bytes().enumerate().all(fits) {
        return Ok(());
    }
    let message =
        "a name has 1 to 63 letters, digits, `.`, `_` or `-`, and starts with a letter or digit";
    Err(Error::invalid(message).with_context("name", name.escape_debug()))
}

/// Only what the caller set is checked here; a default that cannot be enforced is reported instead.
fn check_limits(host: &Host, asked: &Limits) -> Result<()> {
    let beyond = [
        (
            asked.memory.is_some_and(|bytes| bytes < 16 * 1024 * 1024),
            "a sandbox needs at least 16 MiB of memory",
        ),
        (
            asked
                .cpus
                .is_some_and(|cpus| !(0.01..=4096.0).contains(&cpus)),
            "processors must be between 0.01 and 4096",
        ),
        (
            asked
                .processes
                .is_some_and(|processes| !(4..=4_194_304).contains(&processes)),
            "processes must be between 4 and 4194304",
        ),
    ];
    if let Some((_, message)) = beyond.iter().find(|(beyond, _)| *beyond) {
        return Err(Error::invalid(*message));
    }
    let carried = enforceable(host, *asked);
    let refused = [
        ("memory", asked.memory != carried.memory),
        ("cpus", asked.cpus != carried.cpus),
        ("processes", asked.processes != carried.processes),
    ];
    match refused.iter().find(|(_, refused)| *refused) {
        Some((limit, _)) => {
            let error = Error::unsupported(format!("a limit on {limit}"));
            Err(error.with_provider(super::provider::NAME))
        }
        None => Ok(()),
    }
}

/// Makes the sandbox. Blocks for some milliseconds, and for about a second when the template has to be made.
pub(crate) fn make(site: &Site, request: Request) -> Result<Made> {
    super::enforcement::require_walls(&site.host, site.weaken)?;
    let template = step!("template", template::open(&request.template, &site.state))?;
    make_from(site, request, template)
}

/// Makes the sandbox from a template that is at hand.
pub(crate) fn make_from(site: &Site, request: Request, template: Template) -> Result<Made> {
    let (id, locked) = step!("record", site.records.add())
        .map_err(|error| storage_error(error, "no record could be made"))?;
    match make_in(site, request, &template, &id, &locked) {
        Ok((ownership, pidfd, lifeline)) => {
            let made = Made {
                id,
                ownership,
                pidfd,
                lifeline: Some(lifeline),
                locked: Some(locked),
                serving: None,
            };
            step!("answer", made.check())?;
            Ok(made)
        }
        Err(error) => {
            clean(&locked);
            Err(error)
        }
    }
}

fn make_in(
    site: &Site,
    mut request: Request,
    template: &Template,
    id: &SandboxId,
    locked: &Locked,
) -> Result<(Ownership, OwnedFd, OwnedFd)> {
    let (ownership, lifetime) = (request.ownership, request.lifetime);
    let captured = request.captured;
    let env = request.variables(&template.env);
    let volumes = std::mem::take(&mut request.volumes);
    let record = step!(
        "record",
        put_on_record(site, request, &volumes, template, (id, locked))
    )?;
    let prepared = prepare(site, locked, template, &record).map_err(|error| {
        storage_error(error, "the sandbox's files or cgroups could not be made")
    })?;
    let (lifeline_read, lifeline) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| storage_error(error.into(), "no pipe could be made"))?;
    let (group, oom_counter) = (prepared.group.as_ref(), prepared.oom_counter.as_ref());
    let (uid_base, uid_count, first_uid) = ids(&record);
    let create = Create {
        name: id.to_string(),
        uid_base,
        uid_count,
        first_uid,
        overlays: prepared.overlays,
        volumes: volumes.iter().map(|volume| volume.mount.clone()).collect(),
        tmpfs_size: TMPFS_SIZE,
        max_processes: most_processes(&site.host, &from_the_start(site, &record)),
        env,
        limits: (!record.pooled).then(|| shown(&record.limits)),
        lifetime_ms: lifetime.as_millis() as u64,
        // Until it is handed over, a detached sandbox ends with its maker too.
        owned: true,
        seccomp: Blob(seccomp::filter(volumes::set_id(&volumes)).to_vec()),
        process_cgroup: group.is_some(),
        oom_counter: oom_counter.is_some(),
        captured,
        weaken: site.weaken,
    };
    let fds = [&prepared.listener, &lifeline_read].map(AsFd::as_fd);
    let given = [group, oom_counter].into_iter().flatten();
    let fds: Vec<BorrowedFd<'_>> = fds
        .into_iter()
        .chain([locked.lock.as_fd()])
        .chain(given.map(AsFd::as_fd))
        .chain(volumes.iter().map(|volume| volume.directory.as_fd()))
        .collect();
    let created = step!("zygote", site.zygote.create(create, &fds))?;
    if let Err(error) = step!("enter groups", settle(created.pid, &record, locked)) {
        let _ = rustix::process::pidfd_send_signal(&created.pidfd, Signal::KILL);
        wait(created.pidfd.as_fd(), ANSWER_WITHIN);
        return Err(error);
    }
    Ok((ownership, created.pidfd, lifeline))
}

/// The limits that PID 1 is made with.
fn from_the_start(site: &Site, record: &Record) -> Limits {
    let mut limits = record.limits;
    if record.pooled && site.counts_processes_from_the_start() {
        limits.processes = site.default_processes;
    }
    limits
}

/// Limits as programs inside are told them.
pub(crate) fn shown(limits: &Limits) -> protocol::Limits {
    protocol::Limits {
        memory: limits.memory.unwrap_or_default(),
        cpu_millis: limits.cpus.map_or(0, |cpus| (cpus * 1000.0).round() as u64),
        processes: limits.processes.unwrap_or_default(),
    }
}

/// Writes the record of what is about to be made, with a range of uids taken for it.
fn put_on_record(
    site: &Site,
    request: Request,
    volumes: &[Volume],
    template: &Template,
    (id, locked): (&SandboxId, &Locked),
) -> Result<Record> {
    let limits = enforceable(&site.host, request.limits);
    // Moving into a group takes long, writing a limit does not.
    let to_come = Limits::new().memory(u64::MAX).cpus(1.0).processes(u64::MAX);
    let limited = if request.pooled {
        enforceable(&site.host, to_come)
    } else {
        limits
    };
    let groups = Groups::of(&site.host, id.as_str(), &limited);
    let range = site.host.is_root.then(|| ranges::take(&locked.path));
    let range = range.transpose()?;
    let record = Record {
        id: id.clone(),
        name: request.name,
        template: template.name.clone(),
        template_env: template.env.clone(),
        trees: snapshot::relative(&site.state, &template.trees),
        template_directory: Some(template.directory.clone()),
        shell: template.shell.clone(),
        ownership: request.ownership,
        limits,
        store: request.store,
        generation: 0,
        next: None,
        metadata: request.metadata,
        volumes: volumes
            .iter()
            .filter_map(|volume| volume.name.clone())
            .collect(),
        created_ms: now_ms(),
        range,
        subordinate: subordinate::used().map(|ids| ids.uid),
        groups,
        pooled: request.pooled,
    };
    let written = site.records.write(locked, &record);
    let written = written.and_then(|()| {
        let network = request.network.as_ref();
        network.map_or(Ok(()), |stored| network::put_down(&locked.path, stored))
    });
    if let (Err(_), Some(range)) = (&written, range) {
        ranges::give_back(range, &locked.path);
    }
    written.map(|()| record)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    age.map_or(0, |age| age.as_millis() as u64)
}

/// Puts a new PID 1 on record and under its limits.
fn settle(pid: u32, record: &Record, locked: &Locked) -> Result<()> {
    init::write(&locked.path, pid)
        .map_err(|error| storage_error(error, "the sandbox's record could not be written"))?;
    record.groups.enter(pid).map_err(|error| {
        let message = "the sandbox could not be put under its limits";
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    })
}

/// The limits that this machine can enforce; the rest is in the enforcement report.
pub(crate) fn enforceable(host: &Host, mut limits: Limits) -> Limits {
    limits.memory = limits
        .memory
        .filter(|_| host.v1_memory.is_some() || host.v2_has("memory"));
    limits.cpus = limits
        .cpus
        .filter(|_| host.v1_cpu.is_some() || host.v2_has("cpu"));
    limits.processes = limits
        .processes
        .filter(|_| host.has_pids() || host.counts_processes_by_user());
    limits
}

/// The limit on processes as PID 1 is told it, where no cgroup carries it; 0 if there is none.
pub(crate) fn most_processes(host: &Host, limits: &Limits) -> u64 {
    limits
        .processes
        .filter(|_| !host.has_pids())
        .map_or(0, cgroup::pids_max)
}

struct Prepared {
    overlays: Vec<Overlay>,
    listener: OwnedFd,
    group: Option<OwnedFd>,
    oom_counter: Option<OwnedFd>,
}

/// Makes directories, cgroups and the socket.
fn prepare(
    site: &Site,
    locked: &Locked,
    template: &Template,
    record: &Record,
) -> io::Result<Prepared> {
    let owner = record.range.map(ranges::base);
    let overlays = step!(
        "files",
        make_store(
            locked,
            template,
            record,
            owner.map(|_| ranges::STORAGE_BASE)
        )
    )?;
    step!(
        "make groups",
        record.groups.make(&site.host, &record.limits)
    )?;
    let mut group = None;
    if let Some(path) = &record.groups.v2 {
        // PID 1 makes a group for each command, and moves nothing in or out of this one.
        for name in ["", "cgroup.procs"] {
            chown(path.join(name), owner, owner)?;
        }
        group = Some(fs::File::open(path)?.into());
    }
    let oom_counter = record
        .groups
        .oom_counter()
        .map(fs::File::open)
        .transpose()?
        .map(Into::into);
    let listener = socket::listen(locked.as_fd(), SOCKET)?;
    Ok(Prepared {
        overlays,
        listener,
        group,
        oom_counter,
    })
}

/// First uid as the zygote has it, number of uids, and what the first is inside.
///
/// An ordinary user's zygote has one user, who is `user` inside, without a root; or subordinate ids after that one.
pub(crate) fn ids(record: &Record) -> (u32, u32, u32) {
    match (record.range, record.subordinate) {
        (Some(number), _) => (ranges::base(number), ranges::COUNT, 0),
        (None, Some(_)) => (1, subordinate::COUNT, 0),
        (None, None) => (0, 1, template::USER),
    }
}

/// Makes the directories of changed files, owned by the storage range so that no id on disk is a host user's; without
/// an `owner` they are this program's, until the zygote gives them to subordinate ids.
fn make_store(
    locked: &Locked,
    template: &Template,
    record: &Record,
    owner: Option<u32>,
) -> io::Result<Vec<Overlay>> {
    let store = locked.path.join(STORE);
    let give = |path: &std::path::Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        chown(path, owner, owner)
    };
    let make = |name: &str, mode: u32| {
        let path = store.join(name);
        fs::create_dir(&path)?;
        give(&path, mode)
    };
    fs::create_dir(&store)?;
    let state = locked.state();
    record
        .store
        .attach(&store, &state, record.id.as_str(), &record.limits)?;
    give(&store, 0o700)?;
    for (index, tree) in template.trees.iter().enumerate() {
        for name in store::names(index, 0) {
            make(&name, 0o755)?;
        }
        if let Some(top) = tree.lowers.first().filter(|top| top.stored) {
            // The root of a tree is shown as the uppermost layer has it.
            let [upper, _] = store::names(index, 0);
            store::make_alike(&store.join(upper), &top.path)?;
        }
    }
    Ok(overlays(&store, &template.trees, 0))
}

/// Overlays of these trees, with the directories of a generation in the store.
pub(crate) fn overlays(store: &std::path::Path, trees: &[Tree], generation: u32) -> Vec<Overlay> {
    let bytes = |path: &std::path::Path| Blob(path.as_os_str().as_bytes().to_vec());
    let lower = |layer: &Layer| Lower {
        path: bytes(&layer.path),
        stored: layer.stored,
    };
    let overlay = |(index, tree): (usize, &Tree)| {
        let [upper, work] = store::names(index, generation);
        Overlay {
            target: tree.target.as_str().into(),
            lowers: tree.lowers.iter().map(lower).collect(),
            store: bytes(store),
            upper: upper.as_str().into(),
            work: work.as_str().into(),
        }
    };
    trees.iter().enumerate().map(overlay).collect()
}

fn clean(locked: &Locked) {
    if let Err(error) = reap::reap(locked) {
        tracing::warn!(record = %locked.path.display(), %error, "what a sandbox left behind could not be removed");
    }
}
