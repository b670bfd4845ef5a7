//! Changes of files, told as they happen.

use crate::{BoxStream, Result, SandboxPath, options::options};
use async_trait::async_trait;

/// What has happened to a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileEvent {
    /// It is new: made, moved to here, or found in a directory that is new itself.
    Created(SandboxPath),
    /// Its contents have changed.
    Written(SandboxPath),
    /// Its permissions, owner or times have changed.
    Attributes(SandboxPath),
    /// It is gone: removed, or moved away. Of what was in a directory that is gone nothing is said.
    Removed(SandboxPath),
    /// Here something was lost, because more happened than was taken. Whoever wants to know what looks again, at all of it.
    Lost,
}

options! {
    /// What to watch.
    pub struct WatchOptions {
        /// With whose rights.
        pub user: String,
        /// Also what is below the directory's own entries, however deep.
        pub recursive: bool,
    }
}

/// Tells what happens to files.
#[async_trait]
pub trait Watch: Send + Sync {
    /// Watches the directory `path`, until the stream is dropped.
    ///
    /// # Behavior
    /// - What happens after this has returned is told, or that something was [`Lost`](FileEvent::Lost): nothing is lost in
    ///   silence. The order is that of the events of each directory.
    /// - Paths are `path` as it was asked for, joined with the path below it. A rename is a `Removed` and a `Created`.
    /// - New directories are watched as well, if `recursive`; something in them can be told twice. Those that the user may
    ///   not read are left out, and links are not followed.
    /// - Several changes of one file in a row may be told once.
    /// - The stream ends after the `Removed` of `path` itself, also where it is only moved.
    ///
    /// # Errors
    /// Those of [`Files`](crate::Files); `QuotaExceeded` if there are too many directories or watches, also from the stream,
    /// which ends then.
    async fn watch(
        &self,
        path: &SandboxPath,
        options: WatchOptions,
    ) -> Result<BoxStream<'static, Result<FileEvent>>>;
}
