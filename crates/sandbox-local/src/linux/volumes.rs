//! Directories that sandboxes share with others: folders of the host, where its owner allows that, and named volumes.
//!
//! Whether a sandbox may have them is found out before anything of it is made, and then what was looked at is held open:
//! whatever becomes of the path, it is this directory that is mounted.

use super::{
    provider::{LocalProvider, NAME, Shared, blocking},
    ranges,
    record::{make_private, storage_error},
    remove::remove_tree,
    seccomp::SetId,
    subordinate, template,
};
use crate::VolumeMount;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use sandbox_agent::protocol::{
    Blob,
    zygote::{self, Owned},
};
use sandbox_core::{Error, ErrorKind, Extensions, Result, SandboxId};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt, chown},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where named volumes are, below the state directory.
const DIRECTORY: &str = "volumes";
/// Most volumes of a sandbox.
const MOST: usize = 16;
/// The id of `user` inside.
const USER: u32 = 1000;

/// A volume that a sandbox is about to get.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) directory: OwnedFd,
    pub(crate) mount: zygote::Volume,
    /// Of a named volume.
    pub(crate) name: Option<String>,
    /// Keeps a named volume from being removed, until a record says who has it.
    _held: Option<File>,
}

/// Opens what the options ask for.
///
/// # Errors
/// `PermissionDenied` for a folder that is not allowed, `NotFound` for a volume, `InvalidArgument` for what makes no sense.
pub(crate) fn open(shared: &Shared, extensions: Option<&Extensions>) -> Result<Vec<Opened>> {
    let Some(value) = extensions.and_then(|all| all.get(VolumeMount::EXTENSION)) else {
        return Ok(Vec::new());
    };
    let mounts: Vec<VolumeMount> = serde_json::from_value(value.clone()).map_err(|error| {
        let message = "the volumes are no list of `source`, `target` and `read_only`";
        Error::invalid(message).with_source(error)
    })?;
    if mounts.len() > MOST {
        return Err(Error::invalid(format!(
            "a sandbox has at most {MOST} volumes"
        )));
    }
    let opened: Result<_> = mounts.iter().map(|mount| open_one(shared, mount)).collect();
    in_order(opened?)
}

/// Those that others lie in come first, in whatever order they were asked for.
fn in_order(mut volumes: Vec<Opened>) -> Result<Vec<Opened>> {
    volumes.sort_by(|one, other| one.mount.target.0.cmp(&other.mount.target.0));
    let wrong = |volume: &Opened, message: &'static str| {
        let target = volume.mount.target.0.escape_ascii();
        Err(Error::invalid(message).with_context("target", target))
    };
    for (index, volume) in volumes.iter().enumerate() {
        let target = &*volume.mount.target.0;
        let above = volumes[..index].iter().rev().find_map(|other| {
            let rest = target.strip_prefix(&*other.mount.target.0)?;
            let is_inside = rest.first().is_none_or(|byte| *byte == b'/');
            is_inside.then_some((&other.directory, rest))
        });
        match above {
            Some((_, [])) => return wrong(volume, "two volumes have the same place"),
            // It would be made there, and stay in a folder where nobody has asked for it.
            Some((directory, [_, inside @ ..])) if !has_directory(directory, inside) => {
                return wrong(
                    volume,
                    "the volume above has no directory at this place: make it first",
                );
            }
            _ => {}
        }
    }
    Ok(volumes)
}

fn has_directory(above: &OwnedFd, inside: &[u8]) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(above, inside, flags, Mode::empty(), resolve).is_ok()
}

/// The error for a volume that has no place, if this is why the sandbox could not be made.
pub(crate) fn not_mounted(volumes: &[zygote::Volume], step: &str, errno: i32) -> Option<Error> {
    let is_no_directory = [Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|other| other.raw_os_error() == errno);
    let is_closed = errno == Errno::ACCESS.raw_os_error() || errno == Errno::PERM.raw_os_error();
    let target = step
        .strip_prefix("mount ")
        .filter(|_| is_no_directory || is_closed)?;
    let mut targets = volumes.iter().map(|volume| &volume.target);
    targets.find(|other| other.0 == target.as_bytes())?;
    let message = if is_closed {
        "the sandbox of an ordinary user can make no directory at the place of a volume"
    } else {
        "the place of a volume is behind a link, or something else than a directory"
    };
    Some(Error::invalid(message).with_context("target", target.escape_debug()))
}

fn open_one(shared: &Shared, mount: &VolumeMount) -> Result<Opened> {
    check_target(&mount.target)?;
    if !mount.source.starts_with('/') {
        return open_named(&shared.site.state, mount);
    }
    if !shared.site.host.is_root && subordinate::used().is_some() {
        let what = "a folder of the host in a sandbox with subordinate ids, whose users are nobody there (a named volume can be had)";
        return Err(Error::unsupported(what).with_provider(NAME));
    }
    let refuse = |kind, message: &'static str| {
        Error::new(kind, message).with_context("folder", mount.source.escape_debug())
    };
    let missing = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::InvalidArgument,
        };
        refuse(kind, "the folder cannot be opened").with_source(error)
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&*mount.source, flags, Mode::empty());
    let directory = File::from(directory.map_err(|errno| missing(errno.into()))?);
    // Where it really is, whatever links have led there.
    let real = real(&directory).map_err(missing)?;
    let is_allowed = |allowed: &PathBuf| {
        fs::canonicalize(allowed).is_ok_and(|allowed| real.starts_with(allowed))
    };
    if !shared.host_folders.iter().any(is_allowed) {
        let message =
            "the folder is in none that may be shared: `LocalBuilder::host_folders` lists those";
        return Err(refuse(ErrorKind::PermissionDenied, message));
    }
    if real.starts_with(&shared.site.state) || shared.site.state.starts_with(&real) {
        let message = "the folder has to do with the state directory";
        return Err(refuse(ErrorKind::PermissionDenied, message));
    }
    let status = directory.metadata().map_err(missing)?;
    let (uid, gid) = (status.uid(), status.gid());
    if !mount.read_only && (uid == 0 || gid == 0) {
        let message = "the folder is root's, and what is written there would be too: give it to another user and group, \
                       or mount it read-only";
        return Err(refuse(ErrorKind::InvalidArgument, message));
    }
    let own = rustix::process::geteuid().as_raw();
    if !mount.read_only && own != 0 && uid != own {
        let message = "the folder is another user's: mount it read-only";
        return Err(refuse(ErrorKind::InvalidArgument, message));
    }
    Ok(opened(directory, &real, mount, [uid, gid], None))
}

fn opened(
    directory: File,
    path: &Path,
    mount: &VolumeMount,
    [uid, gid]: [u32; 2],
    held: Option<File>,
) -> Opened {
    Opened {
        directory: directory.into(),
        mount: zygote::Volume {
            target: Blob(mount.target.as_bytes().to_vec()),
            path: Blob(path.as_os_str().as_bytes().to_vec()),
            read_only: mount.read_only,
            uid,
            gid,
        },
        name: held.is_some().then(|| mount.source.clone()),
        _held: held,
    }
}

/// Whether programs may make setuid files with these volumes: in a folder of the host such a file would make its owner's
/// rights everybody's.
pub(crate) fn set_id(volumes: &[Opened]) -> SetId {
    let is_hosts = |volume: &Opened| volume.name.is_none() && !volume.mount.read_only;
    if volumes.iter().any(is_hosts) {
        SetId::Refused
    } else {
        SetId::Allowed
    }
}

fn real(directory: &File) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Mount points are written in their shortest form, and stay clear of what the sandbox mounts itself.
fn check_target(target: &str) -> Result<()> {
    let wrong = |message: &'static str| {
        Err(Error::invalid(message).with_context("target", target.escape_debug()))
    };
    let names = target.strip_prefix('/').unwrap_or_default();
    if names.is_empty() || names.len() > 1024 {
        return wrong("a volume is mounted at an absolute path that is not the root");
    }
    if names
        .split('/')
        .any(|name| matches!(name, "" | "." | "..") || name.contains('\0'))
    {
        return wrong("the place of a volume is not written in its shortest form");
    }
    let first = names.split('/').next().unwrap_or_default();
    if matches!(first, "proc" | "dev" | "sys" | "run") || names == "usr" {
        return wrong("a volume cannot be mounted there, the sandbox has its own");
    }
    Ok(())
}

fn open_named(state: &Path, mount: &VolumeMount) -> Result<Opened> {
    check_name(&mount.source)?;
    if !state.join(DIRECTORY).join(&mount.source).is_dir() {
        return Err(no_such(&mount.source));
    }
    let failed = |error| storage_error(error, "the volume could not be opened");
    let held = lock(state).map_err(failed)?;
    held.lock_shared().map_err(failed)?;
    let path = state.join(DIRECTORY).join(&mount.source);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(directory) => Ok(opened(directory.into(), &path, mount, [0, 0], Some(held))),
        Err(rustix::io::Errno::NOENT) => Err(no_such(&mount.source)),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn no_such(name: &str) -> Error {
    let message = "there is no such volume, `sandbox volumes create` makes one";
    Error::new(ErrorKind::NotFound, message).with_context("volume", name.escape_debug())
}

/// Held shared by who makes a sandbox with a named volume until that is on record, and alone by who removes one.
fn lock(state: &Path) -> io::Result<File> {
    make_private(&state.join(DIRECTORY))?;
    File::create(state.join(DIRECTORY).join(".lock"))
}

fn check_name(name: &str) -> Result<()> {
    let fits = |(index, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || index > 0 && b"._-".contains(&byte)
    };
    if (1..=63).contains(&name.len()) && name.bytes().enumerate().all(fits) {
        return Ok(());
    }
    let message = "a volume is a folder's absolute path, or a name of 1 to 63 letters, digits, `.`, `_` or `-` that \
                   starts with a letter or digit";
    Err(Error::invalid(message).with_context("volume", name.escape_debug()))
}

impl LocalProvider {
    /// Makes an empty volume of this name, which sandboxes can share by [`VolumeMount`]. It belongs to `user` inside.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for the name.
    pub async fn create_volume(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let (path, name) = (self.shared.site.state.join(DIRECTORY), name.to_owned());
        blocking(move || {
            let make = || {
                make_private(&path)?;
                let new = path.join(&name);
                fs::create_dir(&new)?;
                fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
                give(&new)
            };
            make().map_err(|error: io::Error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    let message = "there is a volume of this name";
                    Error::new(ErrorKind::AlreadyExists, message).with_context("volume", &name)
                }
                _ => storage_error(error, "the volume could not be made"),
            })
        })
        .await
    }

    /// Names of the volumes that there are.
    ///
    /// # Errors
    /// `Internal` if they cannot be read.
    pub async fn volumes(&self) -> Result<Vec<String>> {
        let path = self.shared.site.state.join(DIRECTORY);
        blocking(move || {
            let entries = match fs::read_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries
                    .map_err(|error| storage_error(error, "the volumes could not be read"))?,
            };
            let names = entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok());
            let mut names: Vec<String> = names.filter(|name| check_name(name).is_ok()).collect();
            names.sort();
            Ok(names)
        })
        .await
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` while a living sandbox has it.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        blocking(move || remove(&shared, &name)).await
    }
}

/// Gives a new volume to `user` of the sandboxes.
fn give(volume: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let owner = Some(ranges::STORAGE_BASE + USER);
        return chown(volume, owner, owner);
    }
    let top = Owned {
        path: Blob(Vec::new()),
        uid: USER,
        gid: USER,
    };
    template::give(volume, vec![top])
}

fn remove(shared: &Shared, name: &str) -> Result<()> {
    let failed = |error| storage_error(error, "the volume could not be removed");
    let site = &shared.site;
    let lock = lock(&site.state).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let path = site.state.join(DIRECTORY).join(name);
    if !path.is_dir() {
        return Err(no_such(name));
    }
    let has = |id: &SandboxId| -> io::Result<bool> {
        let record = site.records.is_alive(id)?.then(|| site.records.read(id));
        let record = record.transpose()?.flatten();
        Ok(record.is_some_and(|record| record.volumes.iter().any(|volume| volume == name)))
    };
    for id in site.records.ids().map_err(failed)? {
        if has(&id).map_err(failed)? {
            let message = "the volume is in use: kill the sandboxes that have it first";
            let error = Error::new(ErrorKind::InvalidState, message);
            return Err(error
                .with_context("volume", name)
                .with_context("sandbox", id));
        }
    }
    // What is left of it if this is interrupted has a name that no volume has.
    let going = site.state.join(DIRECTORY).join(format!(".old-{name}"));
    remove_tree(&going).map_err(failed)?;
    fs::rename(&path, &going).map_err(failed)?;
    remove_tree(&going).map_err(failed)
}

/// Removes what removals have left that were ended.
pub(crate) fn sweep(state: &Path) {
    let entries = fs::read_dir(state.join(DIRECTORY))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".old-"))
    {
        if let Err(error) = remove_tree(&entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a removed volume could not be cleaned up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_plain_paths_of_the_callers_own() {
        for target in ["/data", "/home/user/work", "/usr/local/share", "/tmp/x"] {
            assert!(check_target(target).is_ok(), "{target}");
        }
        for target in [
            "", "/", "data", "/a/", "/a//b", "/a/../b", "/.", "/proc", "/dev/shm", "/sys",
            "/run/x", "/usr", "/a\0",
        ] {
            assert!(check_target(target).is_err(), "{target}");
        }
    }

    #[test]
    fn names_are_no_paths() {
        for name in ["", ".", "..", ".lock", ".old-x", "a/b", "a\0"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("cache-1.x").is_ok());
    }
}
