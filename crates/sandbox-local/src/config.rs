//! How a local provider is set up.

use crate::LocalProvider;
use sandbox_core::{Limits, Result};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// Sets up a [`LocalProvider`].
#[derive(Debug, Clone)]
pub struct LocalBuilder {
    pub(crate) state_dir: PathBuf,
    pub(crate) default_limits: Limits,
    pub(crate) keep_leftovers: bool,
    pub(crate) pool: usize,
    pub(crate) host_folders: Vec<PathBuf>,
    pub(crate) terms: Terms,
    pub(crate) relay_program: Option<RelayProgram>,
    #[cfg(target_os = "linux")]
    pub(crate) weaken: u32,
}

/// What whoever runs this machine has said about the networks of sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// What lies open beneath all policies.
    pub(crate) opened: Vec<Opening>,
    /// Who is asked for addresses of names; `None` is whom this machine asks.
    pub(crate) nameservers: Option<Vec<SocketAddr>>,
}

/// A network that is closed beneath all policies unless the operator opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    /// `None` is every port.
    pub(crate) port: Option<u16>,
}

/// What carries the connections of detached sandboxes.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "there are no sandboxes")
)]
pub(crate) struct RelayProgram {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
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
            terms: Terms::default(),
            relay_program: None,
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

    /// Opens a network to sandboxes that no policy could open: addresses of this machine, of its neighbours, or of another
    /// special range (for one port, or for all). A sandbox's policy must still allow it.
    #[must_use]
    pub fn open_network(mut self, address: IpAddr, prefix: u8, port: Option<u16>) -> Self {
        self.terms.opened.push(Opening {
            address,
            prefix,
            port,
        });
        self
    }

    /// Asks these for the addresses of names that sandboxes want to reach, instead of those that this machine asks.
    #[must_use]
    pub fn nameservers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.terms.nameservers = Some(servers.into_iter().collect());
        self
    }

    /// Names the program that carries the connections of detached sandboxes, which outlive this one: started when the first
    /// of them is made, it must call [`LocalBuilder::run_relay`]. It finds the state directory in `SANDBOX_STATE_DIR`.
    /// Without one, detached sandboxes have no network. The command `sandbox` is such a program, with the argument `relay`.
    #[must_use]
    pub fn relay_program(
        mut self,
        path: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let arguments = arguments.into_iter();
        self.relay_program = Some(RelayProgram {
            path: path.as_ref().to_owned(),
            arguments: arguments.map(|one| one.as_ref().to_owned()).collect(),
        });
        self
    }

    /// Carries the connections of the detached sandboxes in the state directory, until some time after the last one has
    /// ended. Prints an empty line when it serves. Returns at once if another process does this already.
    ///
    /// # Errors
    /// `Unavailable` if nothing can be carried on this machine; `PermissionDenied` or `StorageFull` for the state directory.
    #[cfg(target_os = "linux")]
    pub fn run_relay(self) -> Result<()> {
        crate::linux::run_relay(&self.state_dir)
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
