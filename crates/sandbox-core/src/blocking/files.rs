//! The file tree of a sandbox, without a runtime.

use super::runtime::Shared;
use crate::{
    Body, BoxStream, Bytes, Error, FileInfo, FilesExt, GlobOptions, ListFilesOptions, MkdirOptions,
    PermissionOptions, ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxPath,
    StatOptions, SymlinkOptions, WriteOptions,
};
use futures_util::TryStreamExt;
use std::{fmt, sync::Arc};

/// The [`Files`](crate::Files) of a sandbox, whose calls return when they are done.
///
/// All of them are `InvalidState` inside of an async runtime.
#[derive(Debug, Clone)]
pub struct BlockingFiles {
    sandbox: Arc<dyn Sandbox>,
    runtime: Shared,
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $ty:ty),*) -> $out:ty;)*) => {$(
        #[doc = concat!("As [`Files::", stringify!($name), "`](crate::Files::", stringify!($name), ").")]
        ///
        /// # Errors
        /// The same.
        pub fn $name(&self, $($argument: $ty),*) -> Result<$out> {
            self.runtime.run(self.sandbox.files().$name($($argument),*))
        }
    )*};
}

macro_rules! forward_whole {
    ($($name:ident -> $out:ty;)*) => {$(
        #[doc = concat!("As [`FilesExt::", stringify!($name), "`].")]
        ///
        /// # Errors
        /// The same.
        pub fn $name(
            &self,
            path: impl TryInto<SandboxPath, Error = Error> + Send,
        ) -> Result<$out> {
            self.runtime.run(self.sandbox.files().$name(path))
        }
    )*};
}

impl BlockingFiles {
    pub(super) fn new(sandbox: Arc<dyn Sandbox>, runtime: Shared) -> Self {
        Self { sandbox, runtime }
    }

    forward_whole! {
        read_bytes -> Bytes;
        read_text -> String;
        exists -> bool;
        list_all -> Vec<FileInfo>;
    }

    /// As [`FilesExt::write_bytes`].
    ///
    /// # Errors
    /// The same.
    pub fn write_bytes(
        &self,
        path: impl TryInto<SandboxPath, Error = Error> + Send,
        body: impl Into<Body> + Send,
    ) -> Result<()> {
        self.runtime
            .run(self.sandbox.files().write_bytes(path, body))
    }

    /// As [`Files::read`](crate::Files::read). Iterate over what it gives for the contents.
    ///
    /// # Errors
    /// The same.
    pub fn read(&self, path: &SandboxPath, options: ReadOptions) -> Result<BlockingContents> {
        let contents = self.runtime.run(self.sandbox.files().read(path, options))?;
        Ok(BlockingContents {
            size: contents.size(),
            pieces: Some(contents.into_stream()),
            runtime: self.runtime.clone(),
        })
    }

    /// As [`Files::list`](crate::Files::list), all at once.
    ///
    /// # Errors
    /// The same.
    pub fn list(&self, path: &SandboxPath, options: ListFilesOptions) -> Result<Vec<FileInfo>> {
        let list = async { self.sandbox.files().list(path, options).try_collect().await };
        self.runtime.run(list)
    }

    /// As [`Files::glob`](crate::Files::glob), all at once.
    ///
    /// # Errors
    /// The same.
    pub fn glob(
        &self,
        base: &SandboxPath,
        pattern: &str,
        options: GlobOptions,
    ) -> Result<Vec<FileInfo>> {
        let glob = async {
            let found = self.sandbox.files().glob(base, pattern, options);
            found.try_collect().await
        };
        self.runtime.run(glob)
    }

    forward! {
        write(path: &SandboxPath, body: Body, options: WriteOptions) -> ();
        stat(path: &SandboxPath, options: StatOptions) -> FileInfo;
        mkdir(path: &SandboxPath, options: MkdirOptions) -> ();
        rename(from: &SandboxPath, to: &SandboxPath, options: RenameOptions) -> ();
        symlink(path: &SandboxPath, target: &SandboxPath, options: SymlinkOptions) -> ();
        remove(path: &SandboxPath, options: RemoveOptions) -> ();
        set_permissions(path: &SandboxPath, options: PermissionOptions) -> ();
    }
}

/// The contents of a file: each `next` waits for a piece. After an error, none.
pub struct BlockingContents {
    size: u64,
    pieces: Option<BoxStream<'static, Result<Bytes>>>,
    runtime: Shared,
}

impl BlockingContents {
    /// Size of the whole file in bytes, when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Iterator for BlockingContents {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let pieces = self.pieces.as_mut()?;
        let piece = self.runtime.run(pieces.try_next()).transpose();
        if !matches!(piece, Some(Ok(_))) {
            self.pieces = None;
        }
        piece
    }
}

impl fmt::Debug for BlockingContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingContents")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
