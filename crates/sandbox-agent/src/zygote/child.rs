//! The child: from a copy of the zygote in new namespaces to PID 1 of a sandbox.
//!
//! It runs no program. Whatever fails is reported to the zygote, which then ends it; if the zygote is gone the child
//! ends itself, until the moment it begins its work as PID 1.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::rc::Rc;

use sandbox_agent::protocol::zygote::{Create, Reply, weaken};
use sandbox_agent::protocol::{VERSION, Wire as _};

use super::confine;
use super::failure::{During as _, Failure};
use super::request::Descriptors;
use super::root::NewRoot;
use super::stage::Stage;
use crate::pid1::{self, Caught};
use crate::sys::{inherit, program, socket};
use crate::view::{Machine, Processors, View};

/// The message that carries a mount: first `/dev`, then what covers files of the machine, then the overlays in order.
pub(crate) const MOUNT: u8 = b'm';

/// The message after which the child is a sandbox of its own.
pub(crate) const BEGIN: u8 = b'b';

/// Sets the sandbox up and becomes its PID 1. What its programs are told of the machine is shown now if it is known
/// already, else when the sandbox begins.
pub(crate) fn run(
    request: Create,
    descriptors: Descriptors,
    stage: &Stage,
    machine: Rc<Machine>,
    zygote: OwnedFd,
) -> ! {
    let (network, view) = match set_up(&request, &descriptors, stage, &zygote) {
        Ok(done) => done,
        Err(failure) => {
            let _ = socket::send(zygote.as_fd(), &failure.into_reply().encode(), &[]);
            program::exit(1);
        }
    };
    let ready = Reply::Ready { version: VERSION }.encode();
    let told = socket::send(zygote.as_fd(), &ready, &[]);
    // While the zygote tells the library.
    let prepared = pid1::prepare(pid1::Config {
        name: request.name,
        listener: descriptors.listener,
        lifeline: descriptors.lifeline,
        lock: descriptors.lock,
        cgroup: descriptors.cgroup,
        oom_counter: descriptors.oom_counter,
        network,
        view: view.map(|view| (view, machine)),
        env: request.env,
        lifetime_ms: request.lifetime_ms,
        owned: request.owned,
        is_alone: request.uid_count == 1,
        max_processes: request.max_processes,
        seccomp: request.seccomp.0,
        weaken: request.weaken,
    });
    let begins =
        || matches!(socket::receive(zygote.as_fd()), Ok(Some(message)) if message.bytes == [BEGIN]);
    match prepared {
        Ok(prepared) if told.is_ok() && begins() => {
            drop(zygote);
            prepared.run()
        }
        _ => program::exit(1),
    }
}

fn set_up(
    request: &Create,
    descriptors: &Descriptors,
    stage: &Stage,
    zygote: &OwnedFd,
) -> Result<(Option<Caught>, Option<View>), Failure> {
    leave_zygote(descriptors, zygote)?;
    // Comes when the ids are mapped.
    let devices = receive_mount(zygote)?;
    confine::become_root(request)?;
    let network = confine::leave_host_namespaces(request)?;
    let cover = receive_mount(zygote)?;
    // While the zygote makes the overlays.
    let (root, view) = NewRoot::assemble(request, &devices, &cover, stage.is_root())?;
    for overlay in &request.overlays {
        root.attach(&receive_mount(zygote)?, &overlay.target.0)?;
    }
    for volume in &request.volumes {
        root.attach(&receive_mount(zygote)?, &volume.target.0)?;
    }
    if request.weaken & weaken::ROOT != 0 {
        root.attach(&receive_mount(zygote)?, b"/.host")?;
    }
    root.enter()?;
    if let Some(limits) = &request.limits {
        Processors::choose(limits)
            .and_then(|processors| processors.take(0))
            .during("take the sandbox's processors")?;
    }
    confine::give_up_rights(request)?;
    Ok((network, view))
}

/// Lets go of all that a copy of the zygote holds but a sandbox must not.
fn leave_zygote(descriptors: &Descriptors, zygote: &OwnedFd) -> Result<(), Failure> {
    let mut keep = vec![
        zygote.as_raw_fd(),
        descriptors.listener.as_raw_fd(),
        descriptors.lifeline.as_raw_fd(),
        descriptors.lock.as_raw_fd(),
    ];
    keep.extend(
        [&descriptors.cgroup, &descriptors.oom_counter]
            .into_iter()
            .flatten()
            .map(|fd| fd.as_raw_fd()),
    );
    inherit::close_all_but(&keep).during("close the zygote's descriptors")?;
    // All other signals are as the zygote has them, which has reset them.
    inherit::remember_children();
    inherit::start_session().during("start a session")?;
    inherit::adopt_orphans();
    inherit::set_name(c"sandbox-init");
    Ok(())
}

fn receive_mount(zygote: &OwnedFd) -> Result<OwnedFd, Failure> {
    let message = socket::receive(zygote.as_fd()).during("receive a mount")?;
    let mount = message.and_then(|message| message.fds.into_iter().next());
    mount.ok_or_else(|| Failure::invalid("receive a mount: the zygote is gone"))
}
