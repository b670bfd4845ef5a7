//! The file tree of a sandbox.

use crate::{
    Body, BoxStream, Bytes, Error, ErrorKind, FileContents, Result, SandboxPath, options::options,
};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde::Serialize;
use std::{collections::BTreeMap, ops::Range, time::SystemTime};

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device.
    Other,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// Where it is: the path that was asked for, or that of the listed directory, as it was asked for, joined with the
    /// path below it.
    pub path: SandboxPath,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of content; of a link the length of its target.
    pub size: u64,
    /// Permission bits, `0o7777` at most.
    pub mode: Option<u32>,
    /// Owner's name, or number if it has no name.
    pub owner: Option<String>,
    /// Group's name, or number if it has no name.
    pub group: Option<String>,
    /// Last change of the contents.
    pub modified: Option<SystemTime>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
}

impl FileInfo {
    /// A file of which only this is known.
    #[must_use]
    pub fn new(path: SandboxPath, kind: FileKind, size: u64) -> Self {
        Self {
            path,
            kind,
            size,
            mode: None,
            owner: None,
            group: None,
            modified: None,
            target: None,
        }
    }
}

options! {
    /// How to read a file.
    pub struct ReadOptions {
        /// Which bytes; a part beyond the end is empty, and so is a range that ends before it starts.
        pub range: Range<u64>,
        /// With whose rights.
        pub user: String,
    }
}

options! {
    /// How to write a file.
    pub struct WriteOptions {
        /// With whose rights; new files are theirs.
        pub user: String,
        /// Permission bits, `0o7777` at most, exactly; else those of the existing file, or `0o644`.
        pub mode: u32,
        /// Labels of the file, where the provider keeps such.
        pub metadata: BTreeMap<String, String>,
    }
}

options! {
    /// How to look at a file.
    pub struct StatOptions {
        /// With whose rights.
        pub user: String,
        /// Whether a link stands for what it points to; else it stands for itself.
        pub follow: bool,
    }
}

options! {
    /// How to list a directory.
    pub struct ListFilesOptions {
        /// With whose rights.
        pub user: String,
        /// How many levels, at least 1; 1, the default, is the directory's own entries.
        pub depth: u32,
    }
}

options! {
    /// How to match paths.
    pub struct GlobOptions {
        /// With whose rights.
        pub user: String,
    }
}

options! {
    /// How to make a directory.
    pub struct MkdirOptions {
        /// With whose rights.
        pub user: String,
        /// Permission bits, `0o7777` at most, exactly; else `0o755`.
        pub mode: u32,
        /// Also makes missing directories above, and takes an existing directory as success.
        pub parents: bool,
    }
}

options! {
    /// How to rename.
    pub struct RenameOptions {
        /// With whose rights.
        pub user: String,
    }
}

options! {
    /// How to make a symbolic link.
    pub struct SymlinkOptions {
        /// With whose rights; the link is theirs.
        pub user: String,
    }
}

options! {
    /// How to remove.
    pub struct RemoveOptions {
        /// With whose rights.
        pub user: String,
        /// Also removes what is in a directory.
        pub recursive: bool,
    }
}

options! {
    /// Which permissions to set.
    pub struct PermissionOptions {
        /// With whose rights.
        pub user: String,
        /// Permission bits, `0o7777` at most.
        pub mode: u32,
        /// `name`, `uid`, `name:group` or `uid:gid`.
        pub owner: String,
    }
}

/// The file tree of a sandbox.
///
/// # Behavior
/// - Everything is resolved inside the sandbox, with the rights of the call's user (by default the sandbox's):
///   a link leads nowhere that the user's own programs could not go.
/// - Contents are those of regular files. A fifo, socket or device is `InvalidArgument` and is never waited for.
///
/// # Errors
/// `NotFound` for a missing file or user (never for a missing sandbox, which is `SandboxNotFound`), `AlreadyExists`,
/// `PermissionDenied`, `StorageFull`, and `InvalidArgument` where the kind of file does not fit (also on the way: a file
/// where a directory should be, links that lead in a circle) or an argument makes no sense (a name of more than 255
/// bytes, bits above `0o7777`, a depth of 0).
#[async_trait]
pub trait Files: Send + Sync {
    /// Reads a file or a range of it.
    async fn read(&self, path: &SandboxPath, options: ReadOptions) -> Result<FileContents>;

    /// Replaces a file's contents, making it and the directories above if they are missing.
    ///
    /// # Errors
    /// Those of [`Files`], and the body's own if its stream fails.
    ///
    /// # Cancel safety
    /// None: a write that is cut off leaves what had arrived.
    async fn write(&self, path: &SandboxPath, body: Body, options: WriteOptions) -> Result<()>;

    /// Looks at a path; by default a link is followed.
    async fn stat(&self, path: &SandboxPath, options: StatOptions) -> Result<FileInfo>;

    /// Lists a directory, parents before children, each directory sorted by name. Links are not followed.
    fn list(
        &self,
        path: &SandboxPath,
        options: ListFilesOptions,
    ) -> BoxStream<'static, Result<FileInfo>>;

    /// Finds paths that match `pattern` below `base`: `*` and `?` within a name, `**` over any number of directories or
    /// none, `[a-z]` and `{a,b}`. Sorted as [`Files::list`]; links are not followed. `InvalidArgument` for a pattern that
    /// is empty or cannot be read.
    fn glob(
        &self,
        base: &SandboxPath,
        pattern: &str,
        options: GlobOptions,
    ) -> BoxStream<'static, Result<FileInfo>>;

    /// Makes a directory. `AlreadyExists` if something is there, but see [`MkdirOptions::parents`].
    async fn mkdir(&self, path: &SandboxPath, options: MkdirOptions) -> Result<()>;

    /// Renames; an existing file is replaced, a directory only if it is empty and `from` is one too. A link is renamed
    /// itself.
    ///
    /// # Errors
    /// `NotFound` if `from` or the directory above `to` is missing, `InvalidArgument` if only one of the two is a
    /// directory or `to` is below `from`, `InvalidState` if `to` is a directory that is not empty.
    async fn rename(
        &self,
        from: &SandboxPath,
        to: &SandboxPath,
        options: RenameOptions,
    ) -> Result<()>;

    /// Makes the symbolic link `path`, which leads to `target`: as it is given, whether something is there or not. A
    /// relative target starts at the directory that the link is in.
    ///
    /// # Errors
    /// `AlreadyExists` if something is at `path`, be it a link; `NotFound` if the directory above is missing;
    /// `Unsupported` without [`Capabilities::symlinks`](crate::Capabilities::symlinks).
    async fn symlink(
        &self,
        path: &SandboxPath,
        target: &SandboxPath,
        options: SymlinkOptions,
    ) -> Result<()>;

    /// Removes a file, a link or an empty directory; a whole tree if asked.
    ///
    /// # Errors
    /// `NotFound` if it is missing, `InvalidState` if a directory is not empty.
    async fn remove(&self, path: &SandboxPath, options: RemoveOptions) -> Result<()>;

    /// Changes permission bits or owner. `NotFound` also for an owner that does not exist.
    async fn set_permissions(&self, path: &SandboxPath, options: PermissionOptions) -> Result<()>;
}

/// Shorthands for whole files. Imported by the prelude.
pub trait FilesExt: Files {
    /// Largest file that [`FilesExt::read_bytes`] takes: 64 MiB. Read larger ones as a stream.
    const READ_LIMIT: usize = 64 * 1024 * 1024;

    /// Reads a whole file.
    fn read_bytes(
        &self,
        path: impl TryInto<SandboxPath, Error = Error> + Send,
    ) -> impl Future<Output = Result<Bytes>> + Send {
        async move {
            let path = path.try_into()?;
            self.read(&path, ReadOptions::new())
                .await?
                .into_bytes(Self::READ_LIMIT)
                .await
        }
    }

    /// Reads a whole file as text.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not UTF-8.
    fn read_text(
        &self,
        path: impl TryInto<SandboxPath, Error = Error> + Send,
    ) -> impl Future<Output = Result<String>> + Send {
        async move {
            String::from_utf8(self.read_bytes(path).await?.into()).map_err(|error| {
                Error::invalid("the file is not UTF-8 text, read it as bytes").with_source(error)
            })
        }
    }

    /// Writes a whole file with default options.
    fn write_bytes(
        &self,
        path: impl TryInto<SandboxPath, Error = Error> + Send,
        body: impl Into<Body> + Send,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            let (path, body) = (path.try_into()?, body.into());
            self.write(&path, body, WriteOptions::new()).await
        }
    }

    /// Whether something is at `path`, a dangling link included.
    fn exists(
        &self,
        path: impl TryInto<SandboxPath, Error = Error> + Send,
    ) -> impl Future<Output = Result<bool>> + Send {
        async move {
            match self
                .stat(&path.try_into()?, StatOptions::new().follow(false))
                .await
            {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        }
    }

    /// Collects a listing of a directory's own entries.
    fn list_all(
        &self,
        path: impl TryInto<SandboxPath, Error = Error> + Send,
    ) -> impl Future<Output = Result<Vec<FileInfo>>> + Send {
        async move {
            self.list(&path.try_into()?, ListFilesOptions::new())
                .try_collect()
                .await
        }
    }
}

impl<F: Files + ?Sized> FilesExt for F {}
