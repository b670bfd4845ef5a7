//! Watching directories: a worker inside is kept for as long as somebody listens.

use super::{LocalFiles, blob, misfit, named};
use crate::linux::provider::NAME;
use futures_util::{StreamExt, TryStreamExt, stream};
use sandbox_agent::protocol::files::{Change, FileReply, FileRequest};
use sandbox_core::{BoxStream, Error, FileEvent, Result, SandboxPath, WatchOptions};

/// The name of the call.
const OPERATION: &str = "watch.watch";

impl LocalFiles {
    /// Watches a directory, as the contract says.
    pub(crate) async fn watch(
        &self,
        path: &SandboxPath,
        options: WatchOptions,
    ) -> Result<BoxStream<'static, Result<FileEvent>>> {
        let request = FileRequest::Watch {
            path: blob(path),
            user: options.user,
            recursive: options.recursive.unwrap_or(false),
        };
        let started = async {
            let worker = self.workers.send_to_new(&request).await?;
            match self.workers.receive(&worker).await? {
                (FileReply::Done {}, _) => Ok(worker),
                _ => Err(misfit()),
            }
        };
        let worker = started
            .await
            .map_err(|error: Error| named(error, OPERATION, path))?;
        let (workers, base) = (self.workers.clone(), path.clone());
        let changes = stream::try_unfold((workers, worker), |(workers, worker)| async {
            match workers.receive(&worker).await? {
                (FileReply::Changes { changes }, _) => Ok(Some((changes, (workers, worker)))),
                (FileReply::Done {}, _) => Ok(None),
                _ => Err(misfit()),
            }
        });
        Ok(changes
            .map_ok(move |changes| {
                let base = base.clone();
                stream::iter(changes.into_iter().map(move |change| event(&base, change)))
            })
            .try_flatten()
            .map_err(|error| error.with_operation(OPERATION).with_provider(NAME))
            .boxed())
    }
}

fn event(base: &SandboxPath, change: Change) -> Result<FileEvent> {
    let path = |below: sandbox_agent::protocol::Blob| {
        if below.0.is_empty() {
            return Ok(base.clone());
        }
        if below.0.starts_with(b"/") {
            return Err(misfit());
        }
        base.join(&below.0).map_err(|_| misfit())
    };
    Ok(match change {
        Change::Created { path: below } => FileEvent::Created(path(below)?),
        Change::Written { path: below } => FileEvent::Written(path(below)?),
        Change::Attributes { path: below } => FileEvent::Attributes(path(below)?),
        Change::Removed { path: below } => FileEvent::Removed(path(below)?),
        Change::Lost {} => FileEvent::Lost,
    })
}
