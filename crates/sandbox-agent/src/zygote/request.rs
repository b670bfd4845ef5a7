//! Checks a request before anything is made of it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::zygote::{Create, Overlay, Rights, Rotate, weaken};

use super::failure::Failure;

const MAX_OVERLAYS: usize = 16;
const MAX_VOLUMES: usize = 16;
/// So that the names of all stay below the 255 bytes that the kernel takes of one option.
const MAX_LOWERS: usize = 32;
const MAX_TMPFS: u64 = 1 << 40;
/// Ids below belong to the host's own users.
const FIRST_FREE_ID: u32 = 1 << 16;
/// Size of `struct sock_filter`, and the most of them that the kernel takes.
const BPF_INSTRUCTION: usize = 8;
const MAX_BPF_INSTRUCTIONS: usize = 4096;
/// What is wrong with ids that an ordinary user's zygote does not have.
const ONE_USER: &str = "there is but one user";
const SUBORDINATE: &str = "it must be that of the subordinate ids";
/// What the child mounts itself.
const OWN_MOUNTS: [&[u8]; 4] = [b"/proc", b"/dev", b"/sys", b"/run"];

/// The descriptors of a request, by their meaning.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) listener: OwnedFd,
    pub(crate) lifeline: OwnedFd,
    pub(crate) lock: OwnedFd,
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) oom_counter: Option<OwnedFd>,
    /// In the order of the request's.
    pub(crate) volumes: Vec<OwnedFd>,
}

impl Descriptors {
    /// Tells the descriptors of `request` apart by their order, and checks that each is of its kind.
    pub(crate) fn sort(request: &Create, fds: Vec<OwnedFd>) -> Result<Self, Failure> {
        let expected = 3
            + usize::from(request.process_cgroup)
            + usize::from(request.oom_counter)
            + request.volumes.len();
        if fds.len() != expected {
            return Err(Failure::invalid(format!(
                "check the descriptors: {} came, not {expected}",
                fds.len()
            )));
        }
        let mut fds = fds.into_iter();
        let mut next = |what: &str, is: fn(&std::fs::Metadata) -> bool| {
            let wrong = || {
                Failure::invalid(format!(
                    "check the descriptors: there is no {what} where one is due"
                ))
            };
            let file = File::from(fds.next().ok_or_else(wrong)?);
            let metadata = file.metadata().map_err(|_| wrong())?;
            if is(&metadata) {
                Ok(OwnedFd::from(file))
            } else {
                Err(wrong())
            }
        };
        Ok(Self {
            listener: next("socket", |data| data.file_type().is_socket())?,
            lifeline: next("pipe", |data| data.file_type().is_fifo())?,
            lock: next("lock file", std::fs::Metadata::is_file)?,
            cgroup: request
                .process_cgroup
                .then(|| next("cgroup directory", std::fs::Metadata::is_dir))
                .transpose()?,
            oom_counter: request
                .oom_counter
                .then(|| next("OOM counter", std::fs::Metadata::is_file))
                .transpose()?,
            volumes: request
                .volumes
                .iter()
                .map(|_| next("directory of a volume", std::fs::Metadata::is_dir))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Checks everything in `request` that can be checked without making anything.
pub(crate) fn check(request: &Create, rights: &Rights) -> Result<(), Failure> {
    if request.weaken != 0 && !cfg!(feature = "weaken") {
        return Err(Failure::invalid("weaken"));
    }
    if request.captured && request.weaken & weaken::NETWORK != 0 {
        return Err(Failure::invalid("catch what leaves the host's network"));
    }
    check_name(&request.name)?;
    let storage_base = match *rights {
        Rights::Root { storage_base } => Some(storage_base),
        Rights::User {} | Rights::Subordinate { .. } => None,
    };
    match *rights {
        Rights::Root { storage_base } => {
            check_ids(request.uid_base, request.uid_count, storage_base)?
        }
        Rights::User {} => {
            check_only_ids((request.uid_base, request.uid_count), (0, 1), ONE_USER)?;
        }
        Rights::Subordinate { count } => {
            let ids = (request.uid_base, request.uid_count);
            check_only_ids(ids, (1, count), SUBORDINATE)?;
        }
    }
    if !(1..=MAX_TMPFS).contains(&request.tmpfs_size) {
        return Err(Failure::invalid("check the size of the tmpfs mounts"));
    }
    check_environment(&request.env)?;
    let unfiltered = request.weaken & weaken::SECCOMP != 0;
    check_filter(&request.seccomp.0, unfiltered)?;
    check_overlays(&request.overlays)?;
    check_volumes(request, storage_base)
}

/// As [`check`], of a request for new overlays.
pub(crate) fn check_rotation(request: &Rotate, rights: &Rights) -> Result<(), Failure> {
    let ids = (request.uid_base, request.uid_count);
    match *rights {
        Rights::Root { storage_base } => check_ids(ids.0, ids.1, storage_base)?,
        Rights::User {} => check_only_ids(ids, (0, 1), ONE_USER)?,
        Rights::Subordinate { count } => check_only_ids(ids, (1, count), SUBORDINATE)?,
    }
    check_overlays(&request.overlays)
}

/// The descriptors of a request for new overlays.
#[derive(Debug)]
pub(crate) struct Places {
    /// PID 1.
    pub(crate) init: OwnedFd,
    /// The connection that has claimed the sandbox: held until that is whole again, by the process that does it as well.
    _claim: OwnedFd,
    /// Its user namespace.
    pub(crate) users: OwnedFd,
    /// Its mount namespace.
    pub(crate) mounts: OwnedFd,
    pub(crate) root: OwnedFd,
    /// Its list of mounts.
    pub(crate) list: OwnedFd,
}

/// Tells these apart by their order.
pub(crate) fn places(fds: Vec<OwnedFd>) -> Result<Places, Failure> {
    let [init, claim, users, mounts, root, list] =
        <[OwnedFd; 6]>::try_from(fds).map_err(|fds| {
            let count = fds.len();
            Failure::invalid(format!("check the descriptors: {count} came, not 6"))
        })?;
    Ok(Places {
        init,
        _claim: claim,
        users,
        mounts,
        root,
        list,
    })
}

fn check_name(name: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Failure::invalid(
            "check the name: 1 to 63 letters, digits, '-', '_' or '.'",
        ))
    }
}

/// As an ordinary user there is one range: the id of whoever started the zygote, or the subordinate ones.
fn check_only_ids(ids: (u32, u32), range: (u32, u32), what: &str) -> Result<(), Failure> {
    if ids == range {
        Ok(())
    } else {
        Err(Failure::invalid(format!("check the uid range: {what}")))
    }
}

fn check_ids(uid_base: u32, uid_count: u32, storage_base: u32) -> Result<(), Failure> {
    let range = |base: u32| base.checked_add(uid_count).map(|end| base..end);
    let fits = match (range(uid_base), range(storage_base)) {
        // The last id, -1, is no id.
        (Some(own), Some(stored)) => {
            !own.is_empty()
                && own.start >= FIRST_FREE_ID
                && (own.end <= stored.start || stored.end <= own.start)
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(Failure::invalid(
            "check the uid range: it must begin at 65536 or later and not touch the storage range",
        ))
    }
}

fn check_environment(env: &[(Blob, Blob)]) -> Result<(), Failure> {
    let good = |(name, value): &(Blob, Blob)| {
        !name.0.is_empty()
            && !name.0.contains(&b'=')
            && !name.0.contains(&0)
            && !value.0.contains(&0)
    };
    if env.iter().all(good) {
        Ok(())
    } else {
        Err(Failure::invalid(
            "check the environment: a name is empty or holds '=', or something holds a zero byte",
        ))
    }
}

fn check_filter(filter: &[u8], may_be_missing: bool) -> Result<(), Failure> {
    let (instructions, rest) = (
        filter.len() / BPF_INSTRUCTION,
        filter.len() % BPF_INSTRUCTION,
    );
    let first = usize::from(!may_be_missing);
    if rest == 0 && (first..=MAX_BPF_INSTRUCTIONS).contains(&instructions) {
        Ok(())
    } else {
        Err(Failure::invalid("check the seccomp filter"))
    }
}

fn check_overlays(overlays: &[Overlay]) -> Result<(), Failure> {
    if !(1..=MAX_OVERLAYS).contains(&overlays.len()) {
        return Err(Failure::invalid(format!(
            "check the overlays: there must be 1 to {MAX_OVERLAYS}"
        )));
    }
    for (index, overlay) in overlays.iter().enumerate() {
        let wrong = |what: &str| {
            let target = String::from_utf8_lossy(&overlay.target.0);
            Failure::invalid(format!("check the overlay of {target:?}: {what}"))
        };
        let before: Vec<&[u8]> = overlays[..index]
            .iter()
            .map(|other| &*other.target.0)
            .collect();
        check_target(&before, &overlay.target.0).map_err(wrong)?;
        if !(1..=MAX_LOWERS).contains(&overlay.lowers.len()) {
            return Err(wrong(&format!(
                "there must be 1 to {MAX_LOWERS} lower layers"
            )));
        }
        let lowers = overlay.lowers.iter().map(|lower| &lower.path);
        if !lowers
            .chain([&overlay.store])
            .all(|path| is_host_path(&path.0))
        {
            return Err(wrong("a layer is not an absolute path"));
        }
        if !is_plain(&overlay.upper.0) || !is_plain(&overlay.work.0) {
            return Err(wrong("upper and work must be short plain names"));
        }
        let names = |other: &Overlay| {
            [
                (&other.store, other.upper.clone()),
                (&other.store, other.work.clone()),
            ]
            .map(|(store, name)| (store.clone(), name))
        };
        let [upper, work] = names(overlay);
        if upper == work
            || overlays[..index]
                .iter()
                .flat_map(names)
                .any(|name| name == upper || name == work)
        {
            return Err(wrong("an upper or work directory is used twice"));
        }
    }
    Ok(())
}

/// Mount points are written in their one shortest form, come after those above them, and stay clear of what the
/// sandbox mounts itself.
fn check_target(before: &[&[u8]], target: &[u8]) -> Result<(), &'static str> {
    if before.is_empty() {
        return if target == b"/" {
            Ok(())
        } else {
            Err("the first must be that of /")
        };
    }
    let names = target
        .strip_prefix(b"/")
        .ok_or("the target is not an absolute path")?;
    let bad = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if names.split(|&byte| byte == b'/').any(bad) {
        return Err("the target is not in its shortest form");
    }
    let below = |path: &[u8], top: &[u8]| {
        path.strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    if OWN_MOUNTS.iter().any(|own| below(target, own)) {
        return Err("the target is one of the sandbox's own mounts");
    }
    if before.iter().any(|other| below(other, target)) {
        return Err("the target would hide an earlier one");
    }
    Ok(())
}

/// Volumes may lie on the overlays, and hide no other mount.
fn check_volumes(request: &Create, storage_base: Option<u32>) -> Result<(), Failure> {
    if request.volumes.len() > MAX_VOLUMES {
        return Err(Failure::invalid(format!(
            "check the volumes: more than {MAX_VOLUMES}"
        )));
    }
    let mut before: Vec<&[u8]> = request
        .overlays
        .iter()
        .map(|other| &*other.target.0)
        .collect();
    for volume in &request.volumes {
        let wrong = |what: &str| {
            let target = String::from_utf8_lossy(&volume.target.0);
            Failure::invalid(format!("check the volume of {target:?}: {what}"))
        };
        check_target(&before, &volume.target.0).map_err(wrong)?;
        before.push(&volume.target.0);
        if !is_host_path(&volume.path.0) {
            return Err(wrong("it is not at an absolute path"));
        }
        let Some(base) = storage_base else {
            continue;
        };
        let is_stored = |id: u32| (base..base.saturating_add(request.uid_count)).contains(&id);
        if is_stored(volume.uid) || is_stored(volume.gid) {
            return Err(wrong("its owner is in the storage range"));
        }
    }
    Ok(())
}

fn is_host_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && !path.contains(&0)
}

/// Names that mean nothing to the overlay's option parser, and short enough for it.
fn is_plain(name: &[u8]) -> bool {
    let allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.iter().all(allowed) && !matches!(name, b"." | b"..")
}
