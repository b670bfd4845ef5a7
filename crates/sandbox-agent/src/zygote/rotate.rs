//! Gives a sandbox new overlays while it lives, so that what it has changed so far can be a layer of others.
//!
//! A mounted overlay cannot be given other layers, so new ones are made and take its place. From then on nothing can be
//! written to the old ones: the kernel refuses to make a file system read-only that somebody could still write to, in
//! whatever process or namespace, and that is found out before anything is replaced.
//!
//! All of it, from there on, is done by one process, which ends only when it is done: should its zygote be killed meanwhile,
//! the sandbox has the new overlays nevertheless.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sandbox_agent::protocol::Wire as _;
use sandbox_agent::protocol::zygote::{Reply, Rights, Rotate};

use super::failure::{During as _, Failure};
use super::overlay::{self, Attached, Maps, Owners};
use super::owners::Range;
use super::request::Places;
use super::switch::Switch;
use super::{CHILD_TIMEOUT, Zygote, give, mounts, receive_reply, request};
use crate::sys::clone::{self, NewNamespaces};
use crate::sys::{file, mount, namespace, program, socket};

/// What came of a request. To be dropped after the answer: it lets go of file systems, which takes a while.
#[derive(Debug)]
pub(crate) struct Rotated {
    reply: Reply,
    _old: Vec<OwnedFd>,
    _layers: Option<Attached>,
}

impl Rotated {
    fn without(reply: Reply) -> Self {
        Self {
            reply,
            _old: Vec::new(),
            _layers: None,
        }
    }

    /// What the library is told.
    pub(crate) fn reply(&self) -> Reply {
        self.reply.clone()
    }
}

impl Zygote {
    /// Gives a sandbox new overlays. If that fails it has its old ones, as they were, or it ends.
    pub(super) fn rotate(
        &mut self,
        request: &Rotate,
        fds: Vec<OwnedFd>,
    ) -> Result<Rotated, Failure> {
        request::check_rotation(request, &self.rights)?;
        let places = request::places(fds)?;
        if !self.is_above(places.users.as_fd())? {
            return Ok(Rotated::without(Reply::Elsewhere {}));
        }
        let sandbox = Sandbox::find(request, &places)?;
        if matches!(self.rights, Rights::Subordinate { .. }) {
            let roots: Vec<_> = sandbox.old.iter().map(|root| root.as_fd()).collect();
            give::give_store_like(&self.stage, &request.overlays, &roots)?;
        }
        let (overlays, layers) = self.make_overlays(request, places.users.as_fd())?;
        let targets = request
            .overlays
            .iter()
            .map(|overlay| relative(&overlay.target.0));
        let switch = Switch {
            overlays: targets.zip(overlays).collect(),
            others: sandbox.others,
        };
        let old = sandbox.old;
        let answer = in_child(|| {
            if !seal(&old)? {
                return Ok(Reply::Busy {});
            }
            switch.carry_out(places.users.as_fd(), places.mounts.as_fd())?;
            Ok(Reply::Rotated {})
        })?;
        match answer {
            Some(Reply::Failed { step, errno }) => {
                unseal(&old);
                Err(Failure::new(step, errno))
            }
            Some(reply) => Ok(Rotated {
                reply,
                _old: old,
                _layers: Some(layers),
            }),
            // Nobody knows how far it came, so nobody may write to the old ones again. PID 1 ends a sandbox that still
            // stands on them.
            None => Err(Failure::invalid(
                "replace the overlays: the process that does it gave no answer",
            )),
        }
    }

    /// Whether the sandbox's user namespace is one that this zygote may enter: real root may enter all, and an ordinary
    /// user's zygote those of its own sandboxes.
    fn is_above(&self, users: BorrowedFd<'_>) -> Result<bool, Failure> {
        if matches!(self.rights, Rights::Root { .. }) {
            return Ok(true);
        }
        let parent = match namespace::parent_of(users) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(false),
            parent => parent.during("look at the sandbox's user namespace")?,
        };
        let id = |namespace: BorrowedFd<'_>| -> io::Result<(u64, u64)> {
            let status = file::status(namespace)?;
            Ok((status.st_dev, status.st_ino))
        };
        let is_own = || -> io::Result<bool> {
            let own = fs::File::open("/proc/self/ns/user")?;
            Ok(id(own.as_fd())? == id(parent.as_fd())?)
        };
        is_own().during("look at the sandbox's user namespace")
    }

    fn make_overlays(
        &mut self,
        request: &Rotate,
        users: BorrowedFd<'_>,
    ) -> Result<(Vec<OwnedFd>, Attached), Failure> {
        let range = Range {
            base: request.uid_base,
            count: request.uid_count,
        };
        let maps = match &mut self.storage {
            Some(storage) => Some(Maps {
                lower: users,
                store: storage.get(range)?,
            }),
            None => None,
        };
        let owners = Owners {
            maps,
            base: range.base,
        };
        let mut made = Vec::new();
        let deliver = |overlay| {
            made.push(overlay);
            Ok(())
        };
        let (wanted, generation) = (&request.overlays, request.generation);
        let layers = overlay::make(&self.stage, wanted, generation, owners, deliver)?;
        Ok((made, layers))
    }
}

/// A sandbox that lives, as it was found.
struct Sandbox {
    /// The roots of its overlays.
    old: Vec<OwnedFd>,
    /// Where all else is mounted on these.
    others: Vec<CString>,
}

impl Sandbox {
    fn find(request: &Rotate, places: &Places) -> Result<Self, Failure> {
        let mut list = Vec::new();
        fs::File::from(places.list.try_clone().during("read the list of mounts")?)
            .read_to_end(&mut list)
            .during("read the list of mounts")?;
        // What runs now has run all the time, so all this is its own and not that of a later process.
        clone::check_running(places.init.as_fd()).during("find the sandbox")?;
        let targets = request.overlays.iter().map(|overlay| &*overlay.target.0);
        let others = mounts::on_overlays(&list, &targets.collect::<Vec<_>>())?;
        let mut old = Vec::new();
        for overlay in &request.overlays {
            let opened = open_below(&places.root, &overlay.target.0);
            old.push(opened.during("open the sandbox's overlays")?);
        }
        Ok(Self { old, others })
    }
}

/// The place of `target`, an absolute path, below the root.
fn relative(target: &[u8]) -> CString {
    // Paths with zero bytes were refused.
    CString::new(target.strip_prefix(b"/").unwrap_or(target)).unwrap_or_default()
}

fn open_below(root: &OwnedFd, target: &[u8]) -> io::Result<OwnedFd> {
    let target = relative(target);
    if target.is_empty() {
        return root.try_clone();
    }
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    file::open(root.as_fd(), &target, flags, 0, resolve)
}

/// Lets nobody write to these any more. If somebody still could, all of them can be written to, and it is false.
fn seal(overlays: &[OwnedFd]) -> Result<bool, Failure> {
    for (index, overlay) in overlays.iter().enumerate() {
        let sealed = mount::set_read_only(overlay.as_fd(), true);
        if sealed.is_err() {
            unseal(&overlays[..index]);
        }
        match sealed {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(false),
            result => result.during("make the old overlays read-only")?,
        }
    }
    Ok(true)
}

fn unseal(overlays: &[OwnedFd]) {
    for overlay in overlays {
        // What could be made read-only can be made writable.
        let _ = mount::set_read_only(overlay.as_fd(), false);
    }
}

/// Does `work` in a process of its own, and waits for its answer; `None` if it ends without one. That process has the
/// library's socket as well: should the zygote be killed, the library hears of its end only when this is over.
fn in_child(work: impl FnOnce() -> Result<Reply, Failure>) -> Result<Option<Reply>, Failure> {
    let (ours, theirs) = socket::pair().during("make a socket for the new process")?;
    socket::set_receive_timeout(ours.as_fd(), CHILD_TIMEOUT)
        .during("make a socket for the new process")?;
    match clone::fork_into(0, None).during("start another process")? {
        NewNamespaces::Child => {
            let reply = work().unwrap_or_else(Failure::into_reply);
            let told = socket::send(theirs.as_fd(), &reply.encode(), &[]);
            program::exit(i32::from(told.is_err()))
        }
        NewNamespaces::Parent(child) => {
            drop(theirs);
            let answer = receive_reply(&ours);
            drop(child);
            Ok(answer.ok())
        }
    }
}
