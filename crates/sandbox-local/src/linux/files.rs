//! Files of a sandbox: every call is carried out by a worker inside it, so that a path means what it means there.
//!
//! Short contents travel in the answer. For long ones the worker hands over a descriptor of the open file, and the bytes
//! are moved here; only regular files on file systems that are files are taken.

mod answers;
mod contents;
mod watch;
mod workers;

use super::{provider::NAME, sandbox::Link};
use answers::{from_stat, io_error, misfit, refused, to_info};
use async_trait::async_trait;
use contents::{read_range, regular_file};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use globset::{Candidate, GlobBuilder};
use sandbox_agent::protocol::{
    Blob, MAX_CHUNK,
    files::{FileReply, FileRequest},
};
use sandbox_core::{
    Body, BoxStream, Error, ErrorKind, FileContents, FileInfo, Files, GlobOptions,
    ListFilesOptions, MkdirOptions, PermissionOptions, ReadOptions, RemoveOptions, RenameOptions,
    Result, SandboxPath, StatOptions, SymlinkOptions, WriteOptions,
};
use std::{io::Write, sync::Arc};
use workers::Workers;

/// Entries that one listing yields at most.
const MOST_ENTRIES: u64 = 1_000_000;
/// The file tree of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct LocalFiles {
    workers: Workers,
}

impl LocalFiles {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            workers: Workers::new(link),
        }
    }

    async fn perform(&self, request: FileRequest) -> Result<()> {
        match self.workers.call(request).await? {
            (FileReply::Done {}, _) => Ok(()),
            _ => Err(misfit()),
        }
    }

    async fn write_stream(&self, request: FileRequest, body: Body) -> Result<()> {
        let (FileReply::Opened { .. }, Some(descriptor)) = self.workers.call(request).await? else {
            return Err(misfit());
        };
        let file = Arc::new(regular_file(descriptor)?);
        let mut pieces = body.into_stream();
        let mut next = pieces.try_next().await?;
        while let Some(piece) = next {
            let file = Arc::clone(&file);
            let written = tokio::task::spawn_blocking(move || (&*file).write_all(&piece));
            // While that is being written.
            let (written, come) = future::join(written, pieces.try_next()).await;
            written
                .map_err(|error| {
                    Error::new(ErrorKind::Internal, "a write failed").with_source(error)
                })?
                .map_err(io_error)?;
            next = come?;
        }
        Ok(())
    }

    fn entries(
        &self,
        base: &SandboxPath,
        user: Option<String>,
        depth: u32,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let (workers, base) = (self.workers.clone(), base.clone());
        stream::once(async move {
            let request = FileRequest::List {
                path: blob(&base),
                user,
                depth,
                limit: MOST_ENTRIES,
            };
            let worker = workers.send(&request).await?;
            Ok(stream::try_unfold(Some((workers, worker)), |state| async {
                let Some((workers, worker)) = state else {
                    return Ok(None);
                };
                match workers.receive(&worker).await? {
                    (FileReply::Entries { entries }, _) => {
                        Ok(Some((entries, Some((workers, worker)))))
                    }
                    (FileReply::Done {}, _) => {
                        workers.release(worker);
                        Ok(None)
                    }
                    _ => Err(misfit()),
                }
            })
            .map_ok(move |entries| {
                let base = base.clone();
                stream::iter(entries.into_iter().map(move |entry| to_info(&base, entry)))
            })
            .try_flatten())
        })
        .try_flatten()
        .map_err(|error| error.with_operation("files.list"))
        .boxed()
    }
}

#[async_trait]
impl Files for LocalFiles {
    async fn read(&self, path: &SandboxPath, options: ReadOptions) -> Result<FileContents> {
        let read = async {
            let range = options.range.unwrap_or(0..u64::MAX);
            let (offset, len) = (range.start, range.end.saturating_sub(range.start));
            let request = FileRequest::Read {
                path: blob(path),
                user: options.user,
                offset,
                len,
            };
            match self.workers.call(request).await? {
                (FileReply::Data { data, size }, _) => Ok(FileContents::from_bytes(size, data.0)),
                (FileReply::Opened { size }, Some(descriptor)) => {
                    let file = Arc::new(regular_file(descriptor)?);
                    Ok(FileContents::new(size, read_range(file, offset, len)))
                }
                _ => Err(misfit()),
            }
        };
        read.await.map_err(|error| named(error, "files.read", path))
    }

    async fn write(&self, path: &SandboxPath, body: Body, options: WriteOptions) -> Result<()> {
        let write = async {
            if options.metadata.is_some() {
                return Err(Error::unsupported("file metadata"));
            }
            check_mode(options.mode)?;
            let user = options.user;
            let mode = options.mode;
            match body.as_bytes().filter(|bytes| bytes.len() <= MAX_CHUNK) {
                Some(bytes) => {
                    let data = Blob(bytes.to_vec());
                    self.perform(FileRequest::Write {
                        path: blob(path),
                        user,
                        mode,
                        data,
                    })
                    .await
                }
                None => {
                    self.write_stream(
                        FileRequest::Create {
                            path: blob(path),
                            user,
                            mode,
                        },
                        body,
                    )
                    .await
                }
            }
        };
        write
            .await
            .map_err(|error| named(error, "files.write", path))
    }

    async fn stat(&self, path: &SandboxPath, options: StatOptions) -> Result<FileInfo> {
        let stat = async {
            let follow = options.follow.unwrap_or(true);
            match self
                .workers
                .call(FileRequest::Stat {
                    path: blob(path),
                    user: options.user,
                    follow,
                })
                .await?
            {
                (FileReply::Stat { stat }, _) => Ok(from_stat(path.clone(), stat)),
                _ => Err(misfit()),
            }
        };
        stat.await.map_err(|error| named(error, "files.stat", path))
    }

    fn list(
        &self,
        path: &SandboxPath,
        options: ListFilesOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        match options.depth.unwrap_or(1) {
            0 => failed(
                Error::invalid("a listing has a depth of at least 1").with_operation("files.list"),
            ),
            depth => self.entries(path, options.user, depth),
        }
    }

    fn glob(
        &self,
        base: &SandboxPath,
        pattern: &str,
        options: GlobOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        if pattern.is_empty() {
            return failed(
                Error::invalid("a pattern must not be empty").with_operation("files.glob"),
            );
        }
        let matcher = match GlobBuilder::new(pattern).literal_separator(true).build() {
            Ok(glob) => glob.compile_matcher(),
            Err(error) => {
                return failed(Error::invalid(error.to_string()).with_operation("files.glob"));
            }
        };
        let levels = pattern.split('/').filter(|part| !part.is_empty()).count();
        // `{a/b,c}` and `**` can match more levels than the pattern has.
        let depth = if pattern.contains("**") || pattern.contains('{') {
            u32::MAX
        } else {
            levels.max(1) as u32
        };
        let prefix = base.as_bytes().len() + usize::from(!base.as_bytes().ends_with(b"/"));
        self.entries(base, options.user, depth)
            .try_filter(move |info| {
                let relative = info.path.as_bytes().get(prefix..).unwrap_or_default();
                let fits = matcher.is_match_candidate(&Candidate::from_bytes(relative));
                async move { fits }
            })
            .boxed()
    }

    async fn mkdir(&self, path: &SandboxPath, options: MkdirOptions) -> Result<()> {
        let mkdir = async {
            check_mode(options.mode)?;
            let parents = options.parents.unwrap_or(false);
            self.perform(FileRequest::Mkdir {
                path: blob(path),
                user: options.user,
                mode: options.mode,
                parents,
            })
            .await
        };
        mkdir
            .await
            .map_err(|error| named(error, "files.mkdir", path))
    }

    async fn rename(
        &self,
        from: &SandboxPath,
        to: &SandboxPath,
        options: RenameOptions,
    ) -> Result<()> {
        let rename = async {
            self.perform(FileRequest::Rename {
                from: blob(from),
                to: blob(to),
                user: options.user,
            })
            .await
        };
        rename
            .await
            .map_err(|error| named(error, "files.rename", from).with_context("to", to))
    }

    async fn symlink(
        &self,
        path: &SandboxPath,
        target: &SandboxPath,
        options: SymlinkOptions,
    ) -> Result<()> {
        let request = FileRequest::Symlink {
            path: blob(path),
            user: options.user,
            target: blob(target),
        };
        let made = self.perform(request).await;
        made.map_err(|error| named(error, "files.symlink", path))
    }

    async fn remove(&self, path: &SandboxPath, options: RemoveOptions) -> Result<()> {
        let remove = async {
            let recursive = options.recursive.unwrap_or(false);
            self.perform(FileRequest::Remove {
                path: blob(path),
                user: options.user,
                recursive,
            })
            .await
        };
        remove
            .await
            .map_err(|error| named(error, "files.remove", path))
    }

    async fn set_permissions(&self, path: &SandboxPath, options: PermissionOptions) -> Result<()> {
        let set = async {
            check_mode(options.mode)?;
            let PermissionOptions {
                user, mode, owner, ..
            } = options;
            self.perform(FileRequest::SetPermissions {
                path: blob(path),
                user,
                mode,
                owner,
            })
            .await
        };
        set.await
            .map_err(|error| named(error, "files.set_permissions", path))
    }
}

fn named(error: Error, operation: &'static str, path: &SandboxPath) -> Error {
    error
        .with_operation(operation)
        .with_context("path", path)
        .with_provider(NAME)
}

fn failed<T: Send + 'static>(error: Error) -> BoxStream<'static, Result<T>> {
    stream::once(async { Err(error) }).boxed()
}

fn check_mode(mode: Option<u32>) -> Result<()> {
    if mode.is_some_and(|mode| mode > 0o7777) {
        return Err(Error::invalid("permission bits must not be above 0o7777"));
    }
    Ok(())
}

fn blob(path: &SandboxPath) -> Blob {
    Blob(path.as_bytes().to_vec())
}
