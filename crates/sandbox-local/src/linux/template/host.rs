//! The template `host`: the machine's own `/usr`, copy-on-write, under a generated root.
//!
//! Only what is on an allow-list is shown, and of that only what every user of the machine may read. The rest of the root
//! (`/etc`, `/home`, `/var`) is made here, with what programs need and nothing that tells of this machine's users.

use super::{
    Layer, Template, Tree, accounts, added, can_give_files, copy,
    outdated::{self, InUse},
    owners, secrets,
};
use crate::linux::{record, remove::remove_tree, subordinate, zygote};
use rustix::{
    fs::{CWD, syncfs},
    mount::{OpenTreeFlags, open_tree},
};
use sandbox_agent::protocol::zygote::Owned;
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    ffi::OsStr,
    fs,
    hash::{Hash, Hasher},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt, lchown, symlink},
        },
    },
    path::{Path, PathBuf},
    sync::LazyLock,
};

pub(super) const NAME: &str = "host";
pub(super) const ALIAS: &str = "base";

/// The template while it is being made, by who holds the lock.
const NEW: &str = ".new";
const LOCK: &str = ".lock";

/// Raised when what is generated here changes.
const VERSION: u32 = 3;

/// Host paths that are copied, if they exist and are readable for everyone. Debian and its relatives first; the names of
/// other systems do no harm where they are missing.
#[rustfmt::skip]
const COPIED: &[&str] = &[
    "/etc/alternatives", "/etc/ssl", "/etc/ca-certificates", "/etc/ca-certificates.conf", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/ld.so.cache", "/etc/debian_version", "/etc/os-release", "/etc/login.defs",
    "/etc/profile", "/etc/profile.d", "/etc/bash.bashrc", "/etc/skel", "/etc/nsswitch.conf", "/etc/host.conf",
    "/etc/gai.conf", "/etc/protocols", "/etc/services", "/etc/rpc", "/etc/mime.types", "/etc/magic",
    "/etc/magic.mime", "/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/locale.gen", "/etc/locale.conf",
    "/etc/terminfo", "/etc/inputrc", "/etc/fonts", "/etc/xdg", 
    "/etc/perl", "/etc/pam.d",
    "/etc/pam.conf", "/etc/security", "/etc/shells", "/etc/apt/sources.list", "/etc/apt/sources.list.d",
    "/etc/apt/trusted.gpg.d", "/etc/apt/preferences.d", "/etc/apt/apt.conf.d", "/etc/dpkg", "/etc/debconf.conf",
    "/etc/adduser.conf", "/etc/deluser.conf", "/etc/default/useradd", "/etc/init.d", "/etc/pki/tls",
    "/etc/pki/ca-trust", "/etc/crypto-policies", "/var/lib/dpkg", "/var/lib/pam", "/var/lib/ucf", "/var/lib/python",
];

/// Entries of `/etc` that carry a version in their name are copied if they begin like this.
const COPIED_PREFIXES: &[&str] = &["java-", "python3"];

/// Of the copied paths, those with thousands of files that are only ever replaced.
const SHARED: &[&str] = &["/var/lib/dpkg"];

/// Below the copied paths, what is never copied.
#[rustfmt::skip]
const NEVER: &[&str] = &[
    "/etc/ssl/private", "/etc/security/opasswd", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d", "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/triggers/Lock",
];

/// Directories below `/usr` that are shown empty: what administrators put there is theirs.
const HIDDEN_IN_USR: &[&str] = &["local", "etc"];

/// Directories of the root, with their permissions.
#[rustfmt::skip]
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755), ("etc", 0o755), ("etc/apt/preferences.d", 0o755), ("home", 0o755), ("media", 0o755),
    ("mnt", 0o755), ("opt", 0o755), ("proc", 0o555), ("root", 0o700), ("run", 0o755), ("srv", 0o755), ("sys", 0o555),
    ("tmp", 0o1777), ("usr", 0o755), ("var", 0o755), ("var/cache/apt/archives/partial", 0o755),
    ("var/lib/apt/lists/partial", 0o755), ("var/log/apt", 0o755), ("var/spool", 0o755), ("var/mail", 0o755),
    ("var/tmp", 0o1777),
];

/// The template, made if it is missing or the machine has changed since it was made.
pub(super) fn open(templates: &Path) -> Result<Template> {
    let shell = ["/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|shell| Path::new(shell).exists());
    let Some(shell) = shell.filter(|_| merged_usr()) else {
        let message = "the template `host` needs a machine with a shell and with /bin and /lib inside /usr, \
                       which this one is not";
        return Err(Error::new(ErrorKind::Unsupported, message));
    };
    let make = || -> io::Result<_> {
        loop {
            let directory = current()?;
            let path = templates.join(&directory);
            if !path.exists() {
                make(templates, &path)?;
            }
            if let Some(held) = outdated::hold(&path)? {
                return Ok((directory, path, held));
            }
        }
    };
    let (directory, path, held) = make()
        .map_err(|error| record::storage_error(error, "the template `host` could not be made"))?;
    Ok(Template {
        name: NAME.to_owned(),
        directory,
        _held: vec![held],
        trees: vec![
            Tree {
                target: "/".to_owned(),
                lowers: vec![Layer::plain(path.join("root"))],
            },
            Tree {
                target: "/usr".to_owned(),
                lowers: vec![Layer::plain(path.join("usr")), Layer::plain("/usr")],
            },
        ],
        shell: shell.into(),
        env: BTreeMap::new(),
    })
}

/// Names of templates that are out of date and that no sandbox uses.
pub(super) fn outdated(templates: &Path, used: &InUse) -> Vec<String> {
    current().map_or_else(
        |_| Vec::new(),
        |current| outdated::list(templates, NAME, &current, used),
    )
}

/// Removes templates that are out of date and that no sandbox uses; returns their names.
pub(super) fn prune(templates: &Path, used: &dyn Fn() -> InUse) -> Vec<String> {
    current().map_or_else(
        |_| Vec::new(),
        |current| outdated::remove(templates, NAME, &current, used),
    )
}

/// Whether there are others than the current one. To tell, it need not be known which that is.
pub(super) fn has_several(templates: &Path) -> bool {
    outdated::all(templates, NAME).len() > 1
}

/// Name of the directory of the template as it would be made now.
pub(super) fn current() -> io::Result<String> {
    Ok(format!("{NAME}-{:016x}", key()?))
}

fn merged_usr() -> bool {
    let is_link =
        |path: &str| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    is_link("/bin") && is_link("/lib")
}

/// Changes when the machine's packages do, or what is made here.
fn key() -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    VERSION.hash(&mut hasher);
    static AGENT: LazyLock<u64> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        zygote::AGENT.hash(&mut hasher);
        hasher.finish()
    });
    AGENT.hash(&mut hasher);
    // To whom its files belong.
    subordinate::used().hash(&mut hasher);
    for path in [
        "/var/lib/dpkg/status",
        "/etc/ld.so.cache",
        "/etc/alternatives",
        "/usr/bin",
        "/usr/lib",
    ] {
        match fs::metadata(path) {
            Ok(metadata) => (
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ino(),
                metadata.size(),
            )
                .hash(&mut hasher),
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.hash(&mut hasher),
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finish())
}

/// Makes the template beside its place and moves it there; two programs at once make it once.
fn make(templates: &Path, path: &Path) -> io::Result<()> {
    record::make_private(templates)?;
    let lock = fs::File::create(templates.join(LOCK))?;
    lock.lock()?;
    if path.exists() {
        return Ok(());
    }
    let new = templates.join(NEW);
    remove_tree(&new)?;
    let made = fill(&new).and_then(|()| fs::rename(&new, path));
    if made.is_err() {
        // The disk may be full, and is not to stay so for this.
        remove_tree(&new)?;
    }
    made
}

fn fill(new: &Path) -> io::Result<()> {
    make_root(&new.join("root"))?;
    make_usr(&new.join("usr"))?;
    // Else a power cut could leave the name and lose the files, and the name is never made again.
    Ok(syncfs(fs::File::open(new)?)?)
}

/// Removes what somebody has left who was ended while making the template; with `only_look` it is but found.
pub(super) fn sweep(templates: &Path, only_look: bool) -> Option<String> {
    let lock = fs::File::open(templates.join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    // Only now: until then it may have been whole and moved to its place.
    let new = templates.join(NEW);
    (new.exists() && (only_look || remove_tree(&new).is_ok())).then(|| NEW.to_owned())
}

fn make_root(root: &Path) -> io::Result<()> {
    make_directory(root, 0o755)?;
    for (name, mode) in DIRECTORIES {
        make_directory(&root.join(name), *mode)?;
    }
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, root.join(name))?;
        }
    }
    symlink("/run", root.join("var/run"))?;
    symlink("/run/lock", root.join("var/lock"))?;
    for path in COPIED {
        copy::copy(Path::new(path), root, NEVER, SHARED.contains(path))?;
    }
    for entry in fs::read_dir("/etc")? {
        let entry = entry?;
        if COPIED_PREFIXES.iter().any(|prefix| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(prefix.as_bytes())
        }) {
            copy::copy(&entry.path(), root, NEVER, false)?;
        }
    }
    let owned = accounts::write(root)?;
    write(root, "etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n")?;
    write(root, "etc/hostname", "sandbox\n")?;
    write(root, added::RESOLVER, added::NAME_SERVER)?;
    write(root, "etc/machine-id", "")?;
    write(root, "etc/fstab", "")?;
    symlink("/proc/self/mounts", root.join("etc/mtab"))?;
    give(root, owned)
}

/// The layer above the host's `/usr`: hides what is not everybody's, and adds the stand-in for `sudo`.
fn make_usr(layer: &Path) -> io::Result<()> {
    make_directory(layer, 0o755)?;
    for name in HIDDEN_IN_USR {
        make_directory(&layer.join(name), 0o755)?;
        secrets::hide_contents(&layer.join(name))?;
    }
    for name in [
        "bin", "etc", "games", "include", "lib", "sbin", "share", "src",
    ] {
        make_directory(&layer.join("local").join(name), 0o755)?;
    }
    if can_give_files() {
        // As sandboxes get it: without what is mounted on directories below, and with what these hold.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let usr = open_tree(CWD, "/usr", flags)?;
        let shown = PathBuf::from(format!("/proc/self/fd/{}", usr.as_raw_fd()));
        secrets::hide_unreadable(&shown, layer, HIDDEN_IN_USR, false)?;
    } else {
        // The kernel shows an ordinary user no directory without what is mounted on those below, nor lets it make an
        // overlay of one that has such.
        let all_directories = subordinate::used().is_some();
        secrets::hide_unreadable(Path::new("/usr"), layer, HIDDEN_IN_USR, all_directories)?;
    }
    let sudo = layer.join("local/bin/sudo");
    fs::write(&sudo, zygote::AGENT)?;
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
    make_directory(&layer.join("bin"), 0o755)?;
    let real = layer.join("bin/sudo");
    match fs::symlink_metadata(&real) {
        Ok(_) => fs::remove_file(&real)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    symlink("../local/bin/sudo", real)?;
    give(layer, Vec::new())
}

/// Gives a tree to root of the sandboxes, but for `others`; unless there is nobody to give it to.
fn give(tree: &Path, others: Vec<Owned>) -> io::Result<()> {
    if !can_give_files() {
        return owners::give(tree, others);
    }
    for Owned { path, uid, gid } in others {
        lchown(tree.join(OsStr::from_bytes(&path.0)), Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Makes a directory and those above with exactly these permissions, whatever the umask.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        make_directory(parent, 0o755)?;
    }
    if !path.is_dir() {
        fs::create_dir(path)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn write(root: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = root.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}
