//! The zygote: one small process that makes sandboxes for the library that started it.
//!
//! It is real root, or where an ordinary user has started it root of a user namespace of its own, with or without
//! subordinate ids of that user.
//!
//! It answers one request at a time on descriptor 3 and ends when that socket closes. The sandboxes it has made do
//! not end with it. It keeps nothing of a sandbox, neither descriptor nor memory; who asked holds the pidfd.

mod child;
mod confine;
mod copy;
mod cover;
mod devices;
mod failure;
mod give;
mod mounts;
mod network;
mod overlay;
mod owners;
mod request;
mod root;
mod rotate;
mod stage;
mod switch;
mod trees;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use sandbox_agent::protocol::zygote::{Configure, Create, Reply, Request, Rights, Volume, weaken};
use sandbox_agent::protocol::{Blob, VERSION, Wire as _};

use crate::sys::clone::{self, Child, NewNamespaces};
use crate::sys::mount::{self, attribute};
use crate::sys::{credential, file, inherit, program, socket};
use crate::view::Machine;
use failure::{During as _, Failure};
use overlay::{Attached, Maps, Owners};
use owners::{Range, StorageMaps};
use request::Descriptors;
use stage::Stage;

/// Where the library leaves its socket.
const SOCKET: i32 = 3;

/// How long a child may take for its own set-up. It waits for nobody but the kernel.
const CHILD_TIMEOUT: Duration = Duration::from_secs(30);

/// The zygote's whole state.
#[derive(Debug)]
struct Zygote {
    stage: Stage,
    machine: Rc<Machine>,
    /// `None` if the zygote has one user's rights and can map nobody else's files.
    storage: Option<StorageMaps>,
    rights: Rights,
    /// How many sandboxes were made.
    made: u32,
}

/// A sandbox that is complete and waits, on the other end of the socket, for the word to begin.
#[derive(Debug)]
struct Made {
    child: Child,
    socket: OwnedFd,
    layers: Attached,
}

/// Runs the zygote until the library closes its socket.
pub(crate) fn main() -> ExitCode {
    let Ok(library) = inherit::take_inherited(SOCKET) else {
        return ExitCode::FAILURE;
    };
    let mut zygote = match receive_configuration(&library) {
        Ok(Some(zygote)) => zygote,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => {
            answer(&library, &failure.into_reply());
            return ExitCode::FAILURE;
        }
    };
    answer(&library, &Reply::Ready { version: VERSION });
    loop {
        match socket::receive(library.as_fd()) {
            Ok(Some(message)) => zygote.serve(&library, &message.bytes, message.fds),
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                answer(
                    &library,
                    &Failure::invalid(format!("read the request: {error}")).into_reply(),
                );
            }
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

/// Waits for the first message and gets ready to serve. `None`: the library has gone away again.
fn receive_configuration(library: &OwnedFd) -> Result<Option<Zygote>, Failure> {
    leave_inheritance(library).during("leave behind what the zygote inherited")?;
    let Some(message) = socket::receive(library.as_fd()).during("read the configuration")? else {
        return Ok(None);
    };
    let configure = Configure::decode(&message.bytes)
        .map_err(|error| Failure::invalid(format!("read the configuration: {error}")))?;
    if configure.version != VERSION {
        let text = format!(
            "agree on a protocol: the zygote speaks {VERSION}, not {}",
            configure.version
        );
        return Err(Failure::invalid(text));
    }
    let staging = CString::new(configure.staging.0).map_err(|_| {
        Failure::invalid("read the configuration: the staging directory's path holds a zero byte")
    })?;
    let storage = match configure.rights {
        Rights::Root { storage_base } => Some(StorageMaps::new(storage_base)),
        Rights::User {} | Rights::Subordinate { .. } if configure.join => {
            let mut fds = message.fds.into_iter();
            let users = fds
                .next()
                .ok_or_else(|| Failure::invalid("find the namespace to join"))?;
            owners::join_parent_of(users.as_fd()).during("join the sandbox's user namespaces")?;
            None
        }
        Rights::User {} => {
            open_to_inspection()?;
            owners::become_root_alone().during("make a user namespace")?;
            None
        }
        Rights::Subordinate { count } => {
            open_to_inspection()?;
            if !become_root_among(count, library)? {
                return Ok(None);
            }
            None
        }
    };
    let stage = Stage::enter(&staging, storage.is_some())?;
    let machine = Machine::read("/proc").during("look at the machine")?;
    Ok(Some(Zygote {
        stage,
        machine: Rc::new(machine),
        storage,
        rights: configure.rights,
        made: 0,
    }))
}

/// A process that is closed to inspection belongs to real root in `/proc`, where the maps are written. Whoever could look
/// into this one has started it; sandboxes close themselves before they run anything.
fn open_to_inspection() -> Result<(), Failure> {
    program::set_dumpable(true).during("make a user namespace")
}

/// Makes a user namespace, has the library map it, and becomes its root, who has `count` other ids. False: the library
/// has gone away.
fn become_root_among(count: u32, library: &OwnedFd) -> Result<bool, Failure> {
    owners::leave_user_namespace().during("make a user namespace")?;
    answer(library, &Reply::Unmapped {});
    let told = socket::receive(library.as_fd()).during("wait for the subordinate ids")?;
    let Some(told) = told else {
        return Ok(false);
    };
    if !matches!(Request::decode(&told.bytes), Ok(Request::Mapped {})) {
        return Err(Failure::invalid("wait for the subordinate ids"));
    }
    if !owners::is_mapped(count).during("look at the subordinate ids")? {
        return Err(Failure::invalid(
            "look at the subordinate ids: they are not those that were announced",
        ));
    }
    // Each sandbox takes its share as a whole, however many users are in it: see `fork_counted`.
    confine::share_limits().during("share what is counted for the user")?;
    // Where this cannot be set, the same holds for each user of a sandbox at least.
    let _ = confine::share_watches("/proc");
    Ok(true)
}

/// Keeps nothing of whatever started this process but the socket.
fn leave_inheritance(library: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    inherit::close_all_but(&[library.as_raw_fd()])?;
    inherit::replace_stdio(
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")?
            .as_fd(),
    )?;
    inherit::reset_signals()?;
    inherit::forget_children();
    // Whoever leads a group already cannot, and needs not.
    let _ = inherit::start_session();
    // Devices and directories get exactly the permissions they are made with.
    inherit::set_umask(0);
    inherit::reset_limits()?;
    // Also forbids sandboxes to ever go below it; left as it is where that needs a capability which is missing.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    program::set_dumpable(false)
}

fn answer(library: &OwnedFd, reply: &Reply) {
    // If the library is gone the next receive ends the zygote.
    let _ = socket::send(library.as_fd(), &reply.encode(), &[]);
}

impl Zygote {
    /// Carries out one request.
    fn serve(&mut self, library: &OwnedFd, message: &[u8], fds: Vec<OwnedFd>) {
        match Request::decode(message) {
            Ok(Request::Create { create }) => self.serve_create(library, create, fds),
            Ok(Request::Rotate { rotate }) => match self.rotate(&rotate, fds) {
                Ok(rotated) => {
                    answer(library, &rotated.reply());
                    drop(rotated);
                }
                Err(failure) => answer(library, &failure.into_reply()),
            },
            Ok(request) => self.tend(&request, fds),
            Err(error) => {
                let failure = Failure::invalid(format!("read the request: {error}"));
                answer(library, &failure.into_reply());
            }
        }
    }

    fn serve_create(&mut self, library: &OwnedFd, request: Create, fds: Vec<OwnedFd>) {
        let Made {
            child,
            socket,
            layers,
        } = match self.create(request, fds) {
            Ok(made) => made,
            Err(failure) => return answer(library, &failure.into_reply()),
        };
        let reply = Reply::Created { pid: child.pid() }.encode();
        // The child begins its work only after the library was told: there is never a sandbox that nobody knows.
        let told = socket::send(library.as_fd(), &reply, &[child.as_fd()]);
        if told
            .and_then(|()| socket::send(socket.as_fd(), &[child::BEGIN], &[]))
            .is_ok()
        {
            child.release();
        }
        drop(layers);
    }

    /// Has work on files done, by a process that answers on the socket that has come along. What cannot be done is told
    /// by closing that.
    fn tend(&self, request: &Request, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let may = match request {
            Request::Copy { .. } => true,
            _ => matches!(self.rights, Rights::Subordinate { .. }),
        };
        if let (true, Some(socket)) = (may, fds.next()) {
            trees::tend(&self.stage, request, socket, fds.next());
        }
    }

    /// Makes a sandbox that is complete but does not run yet.
    fn create(&mut self, request: Create, fds: Vec<OwnedFd>) -> Result<Made, Failure> {
        request::check(&request, &self.rights)?;
        let descriptors = Descriptors::sort(&request, fds)?;
        if matches!(self.rights, Rights::Subordinate { .. }) {
            give::give_store(&self.stage, &request.overlays)?;
            if let Some(cgroup) = &descriptors.cgroup {
                give::give_cgroup(cgroup.as_fd()).during("give the sandbox its cgroup")?;
            }
        }
        let (ours, theirs) = socket::pair().during("make a socket for the new process")?;
        socket::set_receive_timeout(ours.as_fd(), CHILD_TIMEOUT)
            .during("make a socket for the new process")?;
        let cgroup = descriptors.cgroup.as_ref().map(OwnedFd::as_fd);
        match self.fork_counted(&request, cgroup)? {
            NewNamespaces::Child => {
                drop(ours);
                child::run(
                    request,
                    descriptors,
                    &self.stage,
                    Rc::clone(&self.machine),
                    theirs,
                )
            }
            NewNamespaces::Parent(child) => {
                drop(theirs);
                let layers = self.furnish(&request, &descriptors.volumes, &child, &ours)?;
                Ok(Made {
                    child,
                    socket: ours,
                    layers,
                })
            }
        }
    }

    /// Does for a new child what it cannot do itself, and waits until the child has done the rest.
    fn furnish(
        &mut self,
        request: &Create,
        volumes: &[OwnedFd],
        child: &Child,
        socket: &OwnedFd,
    ) -> Result<Attached, Failure> {
        let range = Range {
            base: request.uid_base,
            count: request.uid_count,
        };
        owners::write_maps(child, request.first_uid, range)
            .during("map the users of the sandbox")?;
        protect_from_oom(child);
        let send = |mount: OwnedFd| {
            socket::send(socket.as_fd(), &[child::MOUNT], &[mount.as_fd()])
                .during("hand a mount to the new process")
        };
        send(devices::make(&self.stage, request)?)?;
        send(cover::make(request, &self.machine)?)?;
        let storage_base = self.storage.as_ref().map(StorageMaps::storage_base);
        let own;
        let maps = match &mut self.storage {
            Some(storage) => {
                own = owners::user_namespace(child).during("open the sandbox's user namespace")?;
                Some(Maps {
                    lower: own.as_fd(),
                    store: storage.get(range)?,
                })
            }
            None => None,
        };
        let base = range.base;
        let owners = Owners { maps, base };
        let layers = overlay::make(&self.stage, &request.overlays, 0, owners, send)?;
        for (volume, directory) in request.volumes.iter().zip(volumes) {
            send(share(
                &self.stage,
                storage_base,
                volume,
                directory.as_fd(),
                range,
            )?)?;
        }
        if request.weaken & weaken::ROOT != 0 {
            send(
                self.stage
                    .visit_host(|| devices::host_tree(c"/", maps.is_some()))?,
            )?;
        }
        await_child(socket)?;
        Ok(layers)
    }

    /// Forks into the sandbox's first namespaces, with its own first user as their maker; in the namespace of subordinate
    /// ids with an id of it that no other sandbox had for long.
    ///
    /// What the kernel counts for a user (watches of files, signals on their way, bytes in message queues, locked memory,
    /// and processes where they are limited by it) counts for the maker of a user namespace as well, by the limits that
    /// this had when it made that. None of it should be real root's to run short of, nor be a limit on each user of a
    /// sandbox where it should be one on all.
    fn fork_counted(
        &mut self,
        request: &Create,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<NewNamespaces, Failure> {
        let Rights::Subordinate { count } = self.rights else {
            return fork_as(request.uid_base, request, cgroup);
        };
        self.made = self.made.wrapping_add(1);
        let processes = (request.max_processes > 0).then_some(request.max_processes);
        let before = inherit::limit(libc::RLIMIT_NPROC).during("limit processes")?;
        let limit = |most: u64| {
            inherit::set_limit(libc::RLIMIT_NPROC, most, libc::RLIM_INFINITY)
                .during("limit processes")
        };
        processes.map_or(Ok(()), limit)?;
        let fork = fork_as(1 + self.made % count, request, cgroup);
        let restored = processes.map_or(Ok(()), |_| limit(before)).and_then(|()| {
            // A change of ids has closed this process, and with it its children to come.
            open_to_inspection()
        });
        if restored.is_err() && matches!(fork, Ok(NewNamespaces::Child)) {
            // Else it would go on as another zygote.
            program::exit(1);
        }
        restored.and(fork)
    }
}

/// Copies the mount of a directory that the sandbox shares, with its owners mapped where they can be.
fn share(
    stage: &Stage,
    storage_base: Option<u32>,
    volume: &Volume,
    directory: BorrowedFd<'_>,
    range: Range,
) -> Result<OwnedFd, Failure> {
    let name = || String::from_utf8_lossy(&volume.target.0).into_owned();
    let opening = || format!("open the volume of {}", name());
    let (map, mount) = match storage_base {
        Some(base) => {
            let map = owners::shared_map(base, range, [volume.uid, volume.gid])?;
            let clone = || mount::clone_open(directory).during_with(opening);
            (Some(map), stage.visit_host(clone)?)
        }
        None => {
            let clone = || clone_same(&volume.path, directory).during_with(opening);
            (None, stage.visit_host(clone)?)
        }
    };
    let mut attributes = attribute::NO_SUID | attribute::NO_DEV;
    if volume.read_only {
        attributes |= attribute::READ_ONLY;
    }
    mount::set_attributes(
        mount.as_fd(),
        attributes,
        map.as_ref().map(|map| map.as_fd()),
    )
    .during_with(|| format!("map the owners of the volume of {}", name()))?;
    Ok(mount)
}

/// Copies the mount of what is at `path`, if it is the open directory: the kernel lets a mount namespace have copies of its
/// own mounts only, and that directory was opened in another one.
fn clone_same(path: &Blob, directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let place = libc::O_PATH | libc::O_DIRECTORY;
    let own = file::open(
        file::CWD,
        &file::c_string(&path.0)?,
        place,
        0,
        libc::RESOLVE_NO_SYMLINKS,
    )?;
    let id = |directory| file::status(directory).map(|status| (status.st_dev, status.st_ino));
    if id(own.as_fd())? != id(directory)? {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    mount::clone_open(own.as_fd())
}

/// Forks into the sandbox's first namespaces, with user `maker` as their maker.
fn fork_as(
    maker: u32,
    request: &Create,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<NewNamespaces, Failure> {
    credential::act_as(maker).during("act as the sandbox's first user")?;
    if request.uid_base == 1 {
        // The change has closed this process, and its maps could not be written.
        open_to_inspection()?;
    }
    let fork = clone::fork_into(first_namespaces(request.weaken), cgroup);
    // The child has no right to go back, nor any need.
    if !matches!(fork, Ok(NewNamespaces::Child)) {
        credential::act_as(0).during("act as real root again")?;
    }
    fork.during("make the sandbox's namespaces")
}

/// Waits for the child's word that it is complete.
fn await_child(socket: &OwnedFd) -> Result<(), Failure> {
    match receive_reply(socket)? {
        Reply::Ready { .. } => Ok(()),
        Reply::Failed { step, errno } => Err(Failure::new(step, errno)),
        _ => Err(Failure::invalid(
            "wait for the new process: it gave no sensible answer",
        )),
    }
}

/// Waits for what a child has to say.
fn receive_reply(socket: &OwnedFd) -> Result<Reply, Failure> {
    let Some(message) = socket::receive(socket.as_fd()).during("wait for the new process")? else {
        return Err(Failure::invalid(
            "wait for the new process: it ended during its set-up",
        ));
    };
    Reply::decode(&message.bytes)
        .map_err(|_| Failure::invalid("wait for the new process: it gave no sensible answer"))
}

/// The namespaces that a new process must begin in. It makes the others itself, which takes longer than all of these,
/// while the zygote makes the overlays.
fn first_namespaces(weakened: u32) -> libc::c_int {
    let first = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    if weakened & weaken::PROCESSES == 0 {
        first | libc::CLONE_NEWPID
    } else {
        first
    }
}

/// Keeps the kernel from ending PID 1, and with it the sandbox, for what a command has used up.
///
/// The old file is used on purpose: with the new one, every process of the sandbox could give itself the same
/// protection. It needs a capability that even root may lack, so this is done where it can be done.
fn protect_from_oom(child: &Child) {
    let _ = fs::write(format!("/proc/{}/oom_adj", child.pid()), "-17");
}
