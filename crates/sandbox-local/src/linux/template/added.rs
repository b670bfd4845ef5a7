//! What every sandbox needs and an imported tree may lack, as a layer on top of it: mount points, homes, accounts, the
//! names of the machine, and the stand-in for `sudo`.
//!
//! It depends on this program's version, so it is made when it is needed, and the tree stays what was imported. The tree
//! may be hostile: what is looked at in it is resolved inside of it, and read up to a bound.

use super::{
    USER, can_give_files,
    manifest::{Layer, Manifest},
    owners,
};
use crate::linux::{
    ranges::STORAGE_BASE, record::storage_error, remove::remove_tree, subordinate, zygote,
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat},
    io::Errno,
};
use sandbox_agent::protocol::{Blob, zygote::Owned};
use sandbox_core::{Error, Result};
use std::{
    ffi::OsStr,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, chown, lchown, symlink},
        },
    },
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// Raised when what is made here changes.
const VERSION: u32 = 2;
/// Longest account file that is read, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// Directories that there must be, with their permissions and owner. What the sandbox mounts comes first.
const DIRECTORIES: &[(&str, u32, u32)] = &[
    ("proc", 0o555, 0),
    ("dev", 0o755, 0),
    ("sys", 0o555, 0),
    ("run", 0o755, 0),
    ("tmp", 0o1777, 0),
    ("var/tmp", 0o1777, 0),
    ("etc", 0o755, 0),
    ("root", 0o700, 0),
    ("home/user", 0o755, USER),
];
/// How many of these cannot be links.
const MOUNTED: usize = 4;

/// Files that there must be with something in them.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "sandbox\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
];

/// Where programs look for the server to ask for names.
pub(super) const RESOLVER: &str = "etc/resolv.conf";

/// A server that is nobody's on the internet (RFC 7335). A sandbox with a network answers for all there are; in another
/// one there is no way to any, so that a question fails at once.
pub(super) const NAME_SERVER: &str = "nameserver 192.0.0.1\n";

/// The layer on top of the template in `directory`, made if this version has not made it yet.
pub(super) fn make(directory: &Path, manifest: &Manifest) -> Result<Layer> {
    static KEY: LazyLock<String> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        (VERSION, zygote::AGENT).hash(&mut hasher);
        format!("added-{:016x}", hasher.finish())
    });
    let place = directory.join(&*KEY);
    let layer = || Layer::stored(&place);
    if place.is_dir() {
        return Ok(layer());
    }
    let make = || -> io::Result<()> {
        let lock = File::create(directory.join("lock"))?;
        lock.lock()?;
        if place.is_dir() {
            return Ok(());
        }
        let new = directory.join(".new");
        remove_tree(&new)?;
        let mut addition = Addition::begin(&directory.join("root"), &new)?;
        addition.fill(&manifest.shell)?;
        owners::give(&new, addition.others)?;
        fs::rename(&new, &place)
    };
    make().map_err(not_prepared)?;
    Ok(layer())
}

fn not_prepared(error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::NOTDIR | Errno::LOOP) => {
            let message = "the tree has something else where a sandbox needs a directory or a file";
            let cause = error.to_string();
            let error = Error::invalid(message).with_source(error);
            error.with_context("cause", cause)
        }
        _ => storage_error(error, "the template could not be prepared"),
    }
}

/// The shell of a tree, for `Command::shell`.
pub(super) fn shell(root: &Path) -> Result<String> {
    let root = open_root(root).map_err(not_prepared)?;
    let has = |path: &&str| {
        let found = open_inside(&root, path, OFlags::PATH);
        let status = found.and_then(|found| Ok(fstat(found)?));
        status.is_ok_and(|status| is_program(&status))
    };
    let found = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"]
        .into_iter()
        .find(has);
    // Without one, a command for it ends with 127.
    Ok(found.unwrap_or("/bin/sh").to_owned())
}

fn is_program(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode).is_file() && status.st_mode & 0o111 != 0
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

/// Opens what a program inside would find at `path`, whatever links are on the way.
fn open_inside(root: &OwnedFd, path: impl AsRef<OsStr>, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let path = path.as_ref();
    Ok(openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?)
}

/// A layer that is being made for a tree.
struct Addition {
    root: OwnedFd,
    /// The tree's path as the kernel says it, to tell where links inside lead.
    real: PathBuf,
    layer: PathBuf,
    /// What is not root's of what cannot be given away at once.
    others: Vec<Owned>,
}

impl Addition {
    fn begin(root: &Path, layer: &Path) -> io::Result<Self> {
        let root = open_root(root)?;
        let mut addition = Self {
            real: real(&root)?,
            layer: layer.to_owned(),
            root,
            others: Vec::new(),
        };
        fs::create_dir(layer)?;
        let status = fstat(&addition.root)?;
        addition.imitate(Path::new(""), &status)?;
        Ok(addition)
    }

    fn fill(&mut self, shell: &str) -> io::Result<()> {
        for (number, (path, mode, owner)) in DIRECTORIES.iter().enumerate() {
            if number < MOUNTED {
                self.mount_point(path, *mode)?;
            } else {
                self.directory(path, *mode, *owner)?;
            }
        }
        for (path, text) in FILES {
            if self.read(path)?.is_none_or(|old| old.is_empty()) {
                self.write(path, text.as_bytes(), 0o644)?;
            }
        }
        // Whatever server the tree was made with, it cannot be reached; and the loopback address cannot be asked by TCP.
        self.write(RESOLVER, NAME_SERVER.as_bytes(), 0o644)?;
        if self.is_missing("etc/mtab")? {
            let place = self.place("etc/mtab")?;
            symlink("/proc/self/mounts", &place)?;
            own(&place, 0)?;
        }
        self.accounts(shell)?;
        self.write("usr/local/bin/sudo", zygote::AGENT, 0o755)?;
        let real = self.place("usr/bin/sudo")?;
        // Where one of the two directories is a link to the other, it is there.
        if real.symlink_metadata().is_ok() {
            return Ok(());
        }
        symlink("/usr/local/bin/sudo", &real)?;
        own(&real, 0)
    }

    /// Adds the default user and root to the accounts, where they are missing.
    fn accounts(&mut self, shell: &str) -> io::Result<()> {
        let root = format!("root:*:0:0:root:/root:{shell}");
        // Without a password of its own, so that no line in the shadow file is needed.
        let user = format!("user:*:{USER}:{USER}::/home/user:{shell}");
        let group = format!("user:*:{USER}:");
        let files = [
            ("etc/passwd", [root.as_str(), &user]),
            ("etc/group", ["root:*:0:", &group]),
        ];
        for (path, lines) in files {
            let mut text = self.read(path)?.unwrap_or_default();
            let before = text.len();
            for line in lines {
                let name = &line.as_bytes()[..=line.find(':').unwrap_or_default()];
                if !text
                    .split(|byte| *byte == b'\n')
                    .any(|old| old.starts_with(name))
                {
                    if !text.is_empty() && !text.ends_with(b"\n") {
                        text.push(b'\n');
                    }
                    text.extend_from_slice(line.as_bytes());
                    text.push(b'\n');
                }
            }
            if text.len() > before {
                self.write(path, &text, 0o644)?;
            }
        }
        Ok(())
    }

    /// Makes a directory on which something is mounted. It takes the place of whatever else the tree has there.
    fn mount_point(&mut self, name: &str, mode: u32) -> io::Result<()> {
        match statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) if FileType::from_raw_mode(status.st_mode).is_dir() => Ok(()),
            Ok(_) | Err(Errno::NOENT) => self.make_directory(Path::new(name), mode, 0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes the directory `path` and those above, in this layer and wherever links in the tree lead. Those that the tree
    /// has stay as they are.
    fn directory(&mut self, path: &str, mode: u32, owner: u32) -> io::Result<PathBuf> {
        let mut inside = PathBuf::new();
        let parts: Vec<&str> = path.split('/').collect();
        for (index, part) in parts.iter().enumerate() {
            let next = inside.join(part);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let found = match open_inside(&self.root, &next, flags) {
                Ok(found) => Some(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            inside = match &found {
                Some(found) => self.inside(found)?,
                None => next,
            };
            let place = self.layer.join(&inside);
            if place.is_dir() {
                continue;
            }
            if let Some(found) = found {
                self.imitate_above(&inside)?;
                if !place.is_dir() {
                    fs::create_dir(&place)?;
                    self.imitate(&inside, &fstat(&found)?)?;
                }
            } else if index + 1 == parts.len() {
                self.make_directory(&inside, mode, owner)?;
            } else {
                self.make_directory(&inside, 0o755, 0)?;
            }
        }
        Ok(inside)
    }

    /// Makes the directories above `inside` as the tree has them.
    fn imitate_above(&mut self, inside: &Path) -> io::Result<()> {
        let above: Vec<&Path> = inside.ancestors().skip(1).collect();
        for path in above.into_iter().rev() {
            let place = self.layer.join(path);
            if !path.as_os_str().is_empty() && !place.is_dir() {
                let found = open_inside(&self.root, path, OFlags::PATH | OFlags::DIRECTORY)?;
                fs::create_dir(&place)?;
                self.imitate(path, &fstat(found)?)?;
            }
        }
        Ok(())
    }

    /// Gives a directory of this layer, `inside` the tree, the owner and permissions that it has there.
    fn imitate(&mut self, inside: &Path, status: &Stat) -> io::Result<()> {
        let place = self.layer.join(inside);
        if can_give_files() {
            chown(&place, Some(status.st_uid), Some(status.st_gid))?;
        } else if let Some(ids) = subordinate::used() {
            let uid = owners::inside(status.st_uid, ids.uid);
            let gid = owners::inside(status.st_gid, ids.gid);
            self.note(inside, uid, gid);
        }
        fs::set_permissions(place, fs::Permissions::from_mode(status.st_mode & 0o7777))
    }

    fn make_directory(&mut self, inside: &Path, mode: u32, owner: u32) -> io::Result<()> {
        let place = self.layer.join(inside);
        fs::create_dir(&place)?;
        own(&place, owner)?;
        self.note(inside, owner, owner);
        fs::set_permissions(place, fs::Permissions::from_mode(mode))
    }

    fn note(&mut self, inside: &Path, uid: u32, gid: u32) {
        if (uid, gid) != (0, 0) {
            let path = Blob(inside.as_os_str().as_bytes().to_vec());
            self.others.push(Owned { path, uid, gid });
        }
    }

    /// Where in the tree an open directory of it is, without links.
    fn inside(&self, directory: &OwnedFd) -> io::Result<PathBuf> {
        let path = real(directory)?;
        let inside = path.strip_prefix(&self.real);
        inside
            .map(Path::to_path_buf)
            .map_err(|_| io::Error::other("a directory has left the tree"))
    }

    /// Where in this layer the file `path` belongs.
    fn place(&mut self, path: &str) -> io::Result<PathBuf> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inside = self.directory(directory, 0o755, 0)?;
        Ok(self.layer.join(inside).join(name))
    }

    fn is_missing(&self, path: &str) -> io::Result<bool> {
        match open_inside(&self.root, path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Contents of a file of the tree; `None` if it has none there, or something else.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let Ok(file) = open_inside(&self.root, path, flags) else {
            return Ok(None);
        };
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        Ok(Some(text))
    }

    fn write(&mut self, path: &str, contents: &[u8], mode: u32) -> io::Result<()> {
        let place = self.place(path)?;
        fs::write(&place, contents)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        own(&place, 0)
    }
}

fn real(directory: &OwnedFd) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Makes `place` that of the id `owner` inside, if there are several.
fn own(place: &Path, owner: u32) -> io::Result<()> {
    if !can_give_files() {
        return Ok(());
    }
    let id = Some(STORAGE_BASE + owner);
    lchown(place, id, id)
}
