#![doc = include_str!("../README.md")]

mod attach;
#[cfg(feature = "blocking")]
pub mod blocking;
mod body;
mod capability;
mod command;
mod error;
mod exit;
#[cfg(feature = "test-util")]
pub mod fake;
mod files;
mod id;
mod layer;
mod lifecycle;
mod metrics;
mod network;
mod options;
mod output;
mod path;
mod ports;
pub mod prelude;
mod process;
mod provider;
mod pty;
mod sandbox;
mod snapshot;
mod template;
mod watch;

pub use attach::{Attach, Position, ProcessInfo};
pub use body::{Body, FileContents};
pub use bytes::Bytes;
pub use capability::{Capabilities, Enforcement, EnforcementReport, Wall};
pub use command::{Command, Program, Stdin};
pub use error::{Error, ErrorKind, Result, Retry};
pub use exit::{ExitStatus, Signal};
pub use files::{
    FileInfo, FileKind, Files, FilesExt, GlobOptions, ListFilesOptions, MkdirOptions,
    PermissionOptions, ReadOptions, RemoveOptions, RenameOptions, StatOptions, SymlinkOptions,
    WriteOptions,
};
pub use futures_util::stream::BoxStream;
pub use id::{JobId, ProcessId, SandboxId, SlotId, SnapshotId, TemplateId};
pub use layer::{Layer, LayeredProvider, ProviderExt};
pub use lifecycle::{Lifecycle, Pause};
pub use metrics::{Metrics, Usage};
pub use network::{
    Destination, Existing, Network, NetworkAction, NetworkEvent, NetworkEventKind, NetworkPolicy,
    NetworkRule,
};
pub use options::{
    ConnectOptions, CreateOptions, Expiry, Extensions, Limits, ListOptions, Ownership, Source,
};
pub use output::Output;
pub use path::SandboxPath;
pub use ports::{PortStream, Ports, Previews};
pub use process::{Process, ProcessControl, ProcessEvent};
pub use provider::{SandboxInfo, SandboxProvider, SandboxState};
pub use pty::{Pty, PtySize};
pub use sandbox::{Sandbox, SandboxExt};
pub use snapshot::{SnapshotInfo, SnapshotOptions, Snapshots};
pub use template::{TemplateInfo, Templates};
pub use watch::{FileEvent, Watch, WatchOptions};
