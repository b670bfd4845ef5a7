//! What a sandbox's PID 1 is, and what it gives up for good before it runs anything.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;

use sandbox_agent::protocol::zygote::{Create, weaken};

use super::failure::{During as _, Failure};
use super::network;
use crate::pid1::Caught;
use crate::sys::{credential, inherit, namespace, program};

/// What root of a sandbox may do: chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service,
/// sys_chroot, setfcap. Enough to install packages; nothing of it reaches beyond the user namespace.
const CAPABILITIES: u64 = 0x8004_04fb;

/// What PID 1 keeps to itself (wake_alarm). It is of no use but that only who has it may look into another who has:
/// programs cannot get it, so none looks into PID 1 or a copy of it, not even for a moment in which that is open.
const MARK: u64 = 1 << 35;

const NOFILE_SOFT: u64 = 65_536;
const NOFILE_HARD: u64 = 1_048_576;

/// With a limit of 0 the kernel still runs the host's crash handler, as real root, on what a sandbox has crashed
/// with. One byte is the limit at which it does not, and too little for a core file as well.
const NO_CORE: u64 = 1;

/// Becomes root of the user namespace, and nobody on the host. Where there is but one user, it is that one already.
pub(crate) fn become_root(request: &Create) -> Result<(), Failure> {
    if request.uid_count > 1 {
        credential::become_root().during("become root of the sandbox")?;
    }
    credential::leave_session_keyring().during("make a session keyring")
}

/// Makes the namespaces that are still the host's, without those that a test leaves out, and furnishes them.
pub(crate) fn leave_host_namespaces(request: &Create) -> Result<Option<Caught>, Failure> {
    let kept = |wall: u32| request.weaken & wall == 0;
    let mut flags = libc::CLONE_NEWCGROUP;
    for (flag, wall) in [
        (libc::CLONE_NEWNET, weaken::NETWORK),
        (libc::CLONE_NEWIPC, weaken::IPC),
        (libc::CLONE_NEWUTS, weaken::HOST_NAME),
    ] {
        if kept(wall) {
            flags |= flag;
        }
    }
    namespace::unshare(flags).during("make the network, IPC, host name and cgroup namespaces")?;
    if kept(weaken::HOST_NAME) {
        namespace::set_host_name(&request.name).during("set the host name")?;
    }
    if kept(weaken::NETWORK) {
        namespace::bring_loopback_up().during("bring the loopback interface up")?;
    }
    request.captured.then(network::catch).transpose()
}

/// Forbids namespaces of any kind inside this user namespace. `proc_fs` is where its `/proc` is.
pub(crate) fn forbid_namespaces(proc_fs: &str) -> io::Result<()> {
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        match fs::write(format!("{proc_fs}/sys/user/max_{kind}_namespaces"), "0") {
            // A kind that this kernel does not have.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// How many sandboxes of one ordinary user it takes to use up what the kernel counts for that user.
const SHARES: u64 = 4;

/// Leaves enough of the host's files that are watched for the user's other sandboxes, if all count for one user.
pub(crate) fn share_watches(proc_fs: &str) -> io::Result<()> {
    for kind in ["instances", "watches"] {
        let all = match fs::read_to_string(format!("{proc_fs}/sys/fs/inotify/max_user_{kind}")) {
            // A kernel without any.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            all => all?,
        };
        let all: u64 = all.trim().parse().map_err(io::Error::other)?;
        let share = (all / SHARES).max(1).to_string();
        fs::write(format!("{proc_fs}/sys/user/max_inotify_{kind}"), share)?;
    }
    Ok(())
}

/// As [`share_watches`], of what has a resource limit: signals on their way, message queues, locked memory.
pub(crate) fn share_limits() -> io::Result<()> {
    for resource in [
        libc::RLIMIT_SIGPENDING,
        libc::RLIMIT_MSGQUEUE,
        libc::RLIMIT_MEMLOCK,
    ] {
        let share = inherit::limit(resource)? / SHARES;
        inherit::set_limit(resource, share, share)?;
    }
    Ok(())
}

/// Drops what only the set-up needed. The root must have been entered.
pub(crate) fn give_up_rights(request: &Create) -> Result<(), Failure> {
    let weakened = request.weaken;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .during("open /dev/null")?;
    inherit::replace_stdio(null.as_fd()).during("open /dev/null")?;
    inherit::set_limit(libc::RLIMIT_NOFILE, NOFILE_SOFT, NOFILE_HARD).during("limit open files")?;
    inherit::set_limit(libc::RLIMIT_CORE, NO_CORE, NO_CORE).during("forbid core files")?;
    if request.uid_count == 1 {
        share_limits().during("share what is counted for the user")?;
    }
    inherit::set_umask(0o022);
    if weakened & weaken::CAPABILITIES == 0 {
        // Without a root nobody is to have any, and file workers could not put them aside by a change of user.
        let keep = if request.uid_count > 1 {
            CAPABILITIES
        } else {
            0
        };
        credential::limit_capabilities(keep, MARK).during("drop capabilities")?;
    }
    if weakened & weaken::NO_NEW_PRIVS == 0 {
        program::set_no_new_privs().during("forbid new privileges")?;
    }
    // Last: a change of user may have switched it on again.
    program::set_dumpable(weakened & weaken::DUMPABLE != 0).during("close PID 1 to inspection")
}
