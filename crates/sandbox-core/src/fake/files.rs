//! The contract's file calls on the tree in memory.

use super::{
    Call,
    glob::Glob,
    sandbox::{FakeSandbox, Inside},
};
use crate::{
    Body, BoxStream, Bytes, Error, FileContents, FileInfo, Files, GlobOptions, ListFilesOptions,
    MkdirOptions, PermissionOptions, ReadOptions, RemoveOptions, RenameOptions, Result,
    SandboxPath, StatOptions, SymlinkOptions, WriteOptions,
};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{ops::Range, sync::Arc};

impl FakeSandbox {
    /// Records a call, lets its fault happen, finds the sandbox, and refuses other users.
    fn file_call(
        &self,
        operation: &'static str,
        path: &SandboxPath,
        user: Option<&String>,
    ) -> impl Future<Output = Result<Arc<Inside>>> + Send + 'static {
        let call = Call::of(operation, &self.id).path(path);
        let (shared, id, other) = (Arc::clone(&self.shared), self.id.clone(), user.is_some());
        async move {
            shared.calls.enter(call).await?;
            if other {
                return Err(Error::unsupported("another user"));
            }
            shared.find(&id)
        }
    }

    /// What `find` finds, as a stream.
    fn listing(
        &self,
        operation: &'static str,
        path: &SandboxPath,
        user: Option<&String>,
        find: impl FnOnce(&Inside) -> Result<Vec<FileInfo>> + Send + 'static,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let entered = self.file_call(operation, path, user);
        let found = async move {
            let infos = find(&*entered.await?)?;
            Ok(stream::iter(infos.into_iter().map(Ok)))
        };
        let found = stream::once(found).try_flatten();
        found
            .map_err(move |error: Error| error.with_operation(operation))
            .boxed()
    }
}

fn check_mode(mode: Option<u32>) -> Result<()> {
    if mode.is_some_and(|mode| mode > 0o7777) {
        return Err(Error::invalid("permission bits must not be above 0o7777"));
    }
    Ok(())
}

/// The part of `bytes` that lies in `range`.
fn within(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let fit = |at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let (from, to) = (fit(range.start), fit(range.end));
    bytes.slice(from..to.max(from))
}

#[async_trait]
impl Files for FakeSandbox {
    async fn read(&self, path: &SandboxPath, options: ReadOptions) -> Result<FileContents> {
        let inside = self
            .file_call("files.read", path, options.user.as_ref())
            .await?;
        if options.range.is_some() && !self.shared.capabilities.range_read {
            return Err(Error::unsupported("reading a range"));
        }
        let bytes = inside.with_tree(|tree| tree.read(path));
        let bytes = bytes.map_err(|error| named(error, "files.read", path))?;
        let range = options.range.unwrap_or(0..u64::MAX);
        Ok(FileContents::from_bytes(
            bytes.len() as u64,
            within(&bytes, range),
        ))
    }

    async fn write(&self, path: &SandboxPath, body: Body, options: WriteOptions) -> Result<()> {
        let inside = self
            .file_call("files.write", path, options.user.as_ref())
            .await?;
        if options.metadata.is_some() {
            return Err(Error::unsupported("file metadata"));
        }
        check_mode(options.mode)?;
        let mut bytes = Vec::new();
        let mut pieces = body.into_stream();
        while let Some(piece) = pieces.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        let now = self.shared.now();
        let written = inside.with_tree(|tree| tree.write(path, bytes.into(), options.mode, now));
        written.map_err(|error| named(error, "files.write", path))
    }

    async fn stat(&self, path: &SandboxPath, options: StatOptions) -> Result<FileInfo> {
        let inside = self
            .file_call("files.stat", path, options.user.as_ref())
            .await?;
        let follow = options.follow.unwrap_or(true);
        let info = inside.with_tree(|tree| tree.stat(path, follow));
        info.map_err(|error| named(error, "files.stat", path))
    }

    fn list(
        &self,
        path: &SandboxPath,
        options: ListFilesOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let (base, depth) = (path.clone(), options.depth.unwrap_or(1));
        self.listing("files.list", path, options.user.as_ref(), move |inside| {
            if depth == 0 {
                return Err(Error::invalid("a listing has a depth of at least 1"));
            }
            inside.with_tree(|tree| tree.list(&base, depth))
        })
    }

    fn glob(
        &self,
        base: &SandboxPath,
        pattern: &str,
        options: GlobOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let (path, glob) = (base.clone(), Glob::new(pattern));
        self.listing("files.glob", base, options.user.as_ref(), move |inside| {
            let glob = glob?;
            let mut infos = inside.with_tree(|tree| tree.list(&path, u32::MAX))?;
            let skip = path.as_bytes().len() + usize::from(!path.as_bytes().ends_with(b"/"));
            infos.retain(|info| {
                info.path
                    .as_bytes()
                    .get(skip..)
                    .is_some_and(|below| glob.matches(below))
            });
            Ok(infos)
        })
    }

    async fn mkdir(&self, path: &SandboxPath, options: MkdirOptions) -> Result<()> {
        let inside = self
            .file_call("files.mkdir", path, options.user.as_ref())
            .await?;
        check_mode(options.mode)?;
        let (mode, parents) = (
            options.mode.unwrap_or(0o755),
            options.parents.unwrap_or(false),
        );
        let now = self.shared.now();
        let made = inside.with_tree(|tree| tree.mkdir(path, mode, parents, now));
        made.map_err(|error| named(error, "files.mkdir", path))
    }

    async fn rename(
        &self,
        from: &SandboxPath,
        to: &SandboxPath,
        options: RenameOptions,
    ) -> Result<()> {
        let inside = self
            .file_call("files.rename", from, options.user.as_ref())
            .await?;
        let renamed = inside.with_tree(|tree| tree.rename(from, to));
        renamed.map_err(|error| named(error, "files.rename", from).with_context("to", to))
    }

    async fn symlink(
        &self,
        path: &SandboxPath,
        target: &SandboxPath,
        options: SymlinkOptions,
    ) -> Result<()> {
        let user = options.user.as_ref();
        let inside = self.file_call("files.symlink", path, user).await?;
        if !self.shared.capabilities.symlinks {
            return Err(Error::unsupported("symbolic links"));
        }
        let now = self.shared.now();
        let made = inside.with_tree(|tree| tree.symlink(path, target, now));
        made.map_err(|error| named(error, "files.symlink", path))
    }

    async fn remove(&self, path: &SandboxPath, options: RemoveOptions) -> Result<()> {
        let inside = self
            .file_call("files.remove", path, options.user.as_ref())
            .await?;
        let recursive = options.recursive.unwrap_or(false);
        let removed = inside.with_tree(|tree| tree.remove(path, recursive));
        removed.map_err(|error| named(error, "files.remove", path))
    }

    async fn set_permissions(&self, path: &SandboxPath, options: PermissionOptions) -> Result<()> {
        let user = options.user.as_ref();
        let inside = self.file_call("files.set_permissions", path, user).await?;
        check_mode(options.mode)?;
        if options.owner.is_some() {
            return Err(Error::unsupported("another owner"));
        }
        let Some(mode) = options.mode else {
            return Ok(());
        };
        let set = inside.with_tree(|tree| tree.set_mode(path, mode));
        set.map_err(|error| named(error, "files.set_permissions", path))
    }
}

fn named(error: Error, operation: &'static str, path: &SandboxPath) -> Error {
    error.with_operation(operation).with_context("path", path)
}
