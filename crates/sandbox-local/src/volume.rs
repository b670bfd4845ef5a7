//! How a sandbox is asked to share a directory.

use sandbox_core::{CreateOptions, Extensions};
use serde::{Deserialize, Serialize};

/// A folder of the host, or a named volume, that a sandbox shares.
///
/// # Behavior
/// - Inside, the folder's owner is `user`, and what `user` writes belongs to that owner. What other users of the sandbox
///   write, root included, belongs to nobody of the host. Files of other users of the host show as nobody's.
/// - Of an ordinary user without subordinate ids, a folder may be written to if it is that user's own; with them there are
///   named volumes only, and a folder is `Unsupported`.
/// - No program runs as somebody else for a setuid bit there, and no device is one. What is mounted below is not shown.
/// - A sandbox that may write to a folder of the host sets no setuid or setgid bits anywhere: on the host such a program
///   would run with the owner's rights, whoever starts it.
/// - It is not part of the sandbox's limits, nor of a snapshot, and stays when the sandbox ends.
///
/// # Examples
/// ```
/// use sandbox_core::CreateOptions;
/// use sandbox_local::VolumeMount;
///
/// let options = CreateOptions::new();
/// let options = VolumeMount::new("/srv/data", "/data").read_only().add_to(options);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct VolumeMount {
    /// Absolute path of a host folder, or the name of a volume.
    pub source: String,
    /// Absolute path inside. It is made if it is missing, and may be behind no link. In another volume it must be there.
    pub target: String,
    /// Nobody inside changes anything there.
    #[serde(default)]
    pub read_only: bool,
}

impl VolumeMount {
    /// The extension of [`CreateOptions`] that lists them.
    pub const EXTENSION: &str = "local.volumes";

    /// Shares `source` at `target`, to be read and written.
    pub fn new(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            read_only: false,
        }
    }

    /// To be read only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Asks for it, beside those that are asked for already.
    #[must_use]
    pub fn add_to(self, mut options: CreateOptions) -> CreateOptions {
        let extensions = options.extensions.get_or_insert_with(Extensions::new);
        let list = extensions
            .entry(Self::EXTENSION.to_owned())
            .or_insert_with(|| Vec::<serde_json::Value>::new().into());
        if let (Some(list), Ok(mount)) = (list.as_array_mut(), serde_json::to_value(self)) {
            list.push(mount);
        }
        options
    }
}
