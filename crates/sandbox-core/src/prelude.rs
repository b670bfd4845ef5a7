//! What a program that uses sandboxes needs in scope.

pub use crate::{
    Command, CreateOptions, Error, ErrorKind, ExitStatus, Files, FilesExt, Limits, NetworkPolicy,
    Ownership, Process, ProcessEvent, ProviderExt, Result, Sandbox, SandboxExt, SandboxPath,
    SandboxProvider, Stdin,
};
