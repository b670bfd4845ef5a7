//! How a local provider is set up.

use crate::LocalProvider;
use sandbox_core::{Limits, Result};
use std::path::{Path, PathBuf};

/// Sets up a [`LocalProvider`].
#[derive(Debug, Clone)]
pub struct LocalBuilder {
    pub(crate) state_dir: PathBuf,
    pub(crate) default_limits: Limits,
    pub(crate) keep_leftovers: bool,
    pub(crate) pool: usize,
    pub(crate) host_folders: Vec<PathBuf>,
    #[cfg(target_os = "linux")]
    pub(crate) weaken: u32,
}

/// Where state of this user is kept. Without a home there is no good place for an ordinary user.
fn default_state_dir() -> PathBuf {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let state = || {
        let home = || Some(absolute("HOME")?.join(".local/state"));
        absolute("XDG_STATE_HOME").or_else(home)
    };
    #[cfg(target_os = "linux")]
    let is_root = rustix::process::geteuid().is_root();
    #[cfg(not(target_os = "linux"))]
    let is_root = false;
    match state().filter(|_| !is_root) {
        Some(state) => state.join("sandbox"),
        None => LocalBuilder::DEFAULT_STATE_DIR.into(),
    }
}

impl LocalBuilder {
    /// Where root's state is kept unless the builder or `SANDBOX_STATE_DIR` says otherwise. That of ordinary users is in
    /// `$XDG_STATE_HOME/sandbox`, or `~/.local/state/sandbox`.
    pub const DEFAULT_STATE_DIR: &str = "/var/lib/sandbox";

    pub(crate) fn new() -> Self {
        let limits = Limits::new()
            .memory(2 * 1024 * 1024 * 1024)
            .cpus(2.0)
            .processes(512);
        Self {
            state_dir: default_state_dir(),
            default_limits: limits,
            keep_leftovers: false,
            pool: 0,
            host_folders: Vec::new(),
            #[cfg(target_os = "linux")]
            weaken: 0,
        }
    }

    /// Keeps records, templates and changed files below `path`, which is made if it is missing.
    ///
    /// Programs that use the same directory see each other's sandboxes.
    #[must_use]
    pub fn state_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.state_dir = path.as_ref().to_owned();
        self
    }

    /// Limits of sandboxes that do not set their own: 2 GiB of memory, 2 processors and 512 processes if this is not
    /// called. What is `None` here is not limited by default.
    #[must_use]
    pub fn default_limits(mut self, limits: Limits) -> Self {
        self.default_limits = limits;
        self
    }

    /// Keeps this many sandboxes of each template that is asked for ready to be taken, at most 256, so that a creation takes
    /// a millisecond. None are kept if this is not called.
    ///
    /// # Behavior
    /// - They are made in the background, one at a time, from the moment in which the provider is opened. A creation that
    ///   finds none takes as long as without a pool; [`LocalProvider::pool_status`] counts these.
    /// - That is so for four templates at most: the default one, and those that were asked for last.
    /// - One that waits costs about half a MiB and no processor time. It is in no list, and nothing has ever run in it.
    /// - Each is handed out at most once, to this provider's callers only. They end with the provider, or its program.
    #[must_use]
    pub fn pool(mut self, size: usize) -> Self {
        self.pool = size;
        self
    }

    /// Lets sandboxes share these folders of the host, and those below, by [`VolumeMount`](crate::VolumeMount). None may be
    /// shared if this is not called.
    #[must_use]
    pub fn host_folders(mut self, folders: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        let folders = folders.into_iter();
        self.host_folders = folders.map(|folder| folder.as_ref().to_owned()).collect();
        self
    }

    /// Opens without removing what earlier programs have left behind, so that
    /// [`LocalProvider::leftovers`] can show it and [`LocalProvider::prune`] report it.
    #[must_use]
    pub fn keep_leftovers(mut self) -> Self {
        self.keep_leftovers = true;
        self
    }

    /// Takes walls away, of [`weaken`](sandbox_agent::protocol::zygote::weaken): for tests that show what a wall is for.
    #[cfg(all(feature = "weaken", target_os = "linux"))]
    #[must_use]
    pub fn weaken(mut self, walls: u32) -> Self {
        self.weaken = walls;
        self
    }

    /// Looks at what this machine offers and lacks for sandboxes, also where no provider can be opened.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn doctor(self) -> crate::Diagnosis {
        crate::linux::diagnose(self.pool(0))
    }

    /// Opens the state directory and, unless told to keep it, removes what earlier programs have left behind.
    ///
    /// # Errors
    /// `Unsupported` off Linux; `InvalidArgument` for a pool that is too large; `PermissionDenied` or `StorageFull` for the state directory.
    pub fn build(self) -> Result<LocalProvider> {
        LocalProvider::open(self)
    }
}
