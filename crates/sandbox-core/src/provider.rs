//! Where sandboxes come from.

use crate::{
    BoxStream, Capabilities, ConnectOptions, CreateOptions, EnforcementReport, Limits, ListOptions,
    Ownership, Result, Sandbox, SandboxId, TemplateId, Templates,
};
use async_trait::async_trait;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

/// Makes, finds and ends sandboxes.
#[async_trait]
pub trait SandboxProvider: fmt::Debug + Send + Sync + 'static {
    /// Its name: `local`, `e2b`.
    fn name(&self) -> &'static str;

    /// What its sandboxes can do.
    fn capabilities(&self) -> Capabilities;

    /// What would hold, partly hold or not hold of a sandbox made with `options`. Makes nothing.
    fn enforcement(&self, options: &CreateOptions) -> EnforcementReport;

    /// Makes a sandbox.
    ///
    /// # Errors
    /// `Unsupported`, before anything has happened, for what was asked for and cannot be honoured; `InvalidArgument`,
    /// likewise, for what makes no sense (a lifetime or a limit of zero, a variable that no program could be given);
    /// `NotFound` for the source; `AlreadyExists` for the name; `QuotaExceeded`, `StorageFull`, `Unavailable`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no sandbox behind, or one that ends with its owner.
    async fn create(&self, options: CreateOptions) -> Result<Arc<dyn Sandbox>>;

    /// Reaches a sandbox that exists. May resume it and may extend its life.
    ///
    /// # Errors
    /// `SandboxNotFound` if it is gone, or if `id` never named one, whatever its text is.
    async fn connect(&self, id: &SandboxId, options: ConnectOptions) -> Result<Arc<dyn Sandbox>>;

    /// A handle by id: no I/O, no side effect. Whether the sandbox exists shows with the first call.
    fn sandbox(&self, id: &SandboxId) -> Arc<dyn Sandbox>;

    /// The living sandboxes, oldest first.
    fn list(&self, options: ListOptions) -> BoxStream<'static, Result<SandboxInfo>>;

    /// Ends a sandbox; `false` if it was gone already.
    async fn kill(&self, id: &SandboxId) -> Result<bool>;

    /// The templates that it offers.
    fn templates(&self) -> Option<&dyn Templates> {
        None
    }
}

/// What a sandbox is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SandboxState {
    /// Being made.
    Starting,
    /// Ready for commands.
    Running,
    /// At rest, can be resumed.
    Paused,
}

/// What a provider knows of a sandbox.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Its name at the provider.
    pub id: SandboxId,
    /// What it is doing.
    pub state: SandboxState,
    /// Its name for people.
    pub name: Option<String>,
    /// What it started from.
    pub template: Option<TemplateId>,
    /// When it was made.
    pub created_at: Option<SystemTime>,
    /// When it will end.
    pub expires_at: Option<SystemTime>,
    /// Who keeps it alive.
    pub ownership: Option<Ownership>,
    /// Its ceilings, as far as they are known.
    pub limits: Limits,
    /// Its labels.
    pub metadata: BTreeMap<String, String>,
}

impl SandboxInfo {
    /// A sandbox of which only this is known. Set the rest field by field.
    #[must_use]
    pub fn new(id: SandboxId, state: SandboxState) -> Self {
        Self {
            id,
            state,
            name: None,
            template: None,
            created_at: None,
            expires_at: None,
            ownership: None,
            limits: Limits::new(),
            metadata: BTreeMap::new(),
        }
    }
}
