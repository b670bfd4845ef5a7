//! Files of a sandbox: every call is carried out by a worker inside it, so that a path means what it means there.
//!
//! Short contents travel in the answer. For long ones the worker hands over a descriptor of the open file, and the bytes
//! are moved here; only regular files on file systems that are files are taken.

mod watch;
mod workers;

use super::{provider::NAME, sandbox::Link};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use globset::{Candidate, GlobBuilder};
use rustix::{buffer::spare_capacity, io::Errno};
use sandbox_agent::protocol::{
    Blob, MAX_CHUNK,
    files::{Entry, FileReply, FileRequest, ORDINARY, Stat},
};
use sandbox_core::{
    Body, BoxStream, Bytes, Error, ErrorKind, FileContents, FileInfo, FileKind, Files, GlobOptions,
    ListFilesOptions, MkdirOptions, PermissionOptions, ReadOptions, RemoveOptions, RenameOptions,
    Result, SandboxPath, StatOptions, SymlinkOptions, WriteOptions,
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::JoinHandle;
use workers::Workers;

/// Bytes that are read from a descriptor at a time.
const PIECE: usize = 512 * 1024;
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

/// Takes a descriptor only of a regular file on a file system whose files cannot make a reader wait or act on the host.
fn regular_file(descriptor: OwnedFd) -> Result<File> {
    let file = File::from(descriptor);
    let metadata = file.metadata().map_err(io_error)?;
    let system = rustix::fs::fstatfs(&file).map_err(|errno| io_error(errno.into()))?;
    if metadata.is_file() && ORDINARY.contains(&(system.f_type as u64)) {
        return Ok(file);
    }
    Err(Error::new(
        ErrorKind::Protocol,
        "the sandbox handed over something that is no regular file",
    ))
}

fn read_range(file: Arc<File>, offset: u64, len: u64) -> BoxStream<'static, Result<Bytes>> {
    let first = read_piece(Arc::clone(&file), offset, len);
    stream::try_unfold(
        (file, offset, len, first),
        |(file, offset, left, piece)| async move {
            let failed =
                |error| Error::new(ErrorKind::Internal, "a read failed").with_source(error);
            let piece = piece.await.map_err(failed)?.map_err(io_error)?;
            let count = piece.len() as u64;
            if count == 0 {
                return Ok(None);
            }
            let (offset, left) = (offset + count, left - count);
            // While the reader does something with this piece.
            let next = read_piece(Arc::clone(&file), offset, left);
            Ok(Some((Bytes::from(piece), (file, offset, left, next))))
        },
    )
    .boxed()
}

/// Begins to read up to `left` bytes; none at the end.
fn read_piece(file: Arc<File>, offset: u64, left: u64) -> JoinHandle<io::Result<Vec<u8>>> {
    tokio::task::spawn_blocking(move || {
        let len = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
        let mut piece = Vec::with_capacity(len);
        if len > 0 {
            rustix::io::pread(&*file, spare_capacity(&mut piece), offset)?;
            piece.truncate(len);
        }
        Ok(piece)
    })
}

fn to_info(base: &SandboxPath, entry: Entry) -> Result<FileInfo> {
    let path = base
        .join(&entry.path.0)
        .map_err(|error| misfit().with_source(error))?;
    Ok(from_stat(path, entry.stat))
}

fn from_stat(path: SandboxPath, stat: Stat) -> FileInfo {
    let kind = match stat.mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let mut info = FileInfo::new(path, kind, stat.size);
    info.mode = Some(stat.mode & 0o7777);
    info.owner = Some(stat.user.unwrap_or_else(|| stat.uid.to_string()));
    info.group = Some(stat.group.unwrap_or_else(|| stat.gid.to_string()));
    let since = Duration::from_millis(stat.modified_ms.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    info.modified = if stat.modified_ms < 0 {
        epoch.checked_sub(since)
    } else {
        epoch.checked_add(since)
    };
    info.target = stat.target.map(|target| target.0);
    info
}

fn misfit() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the sandbox's file worker gave an answer that does not fit",
    )
}

/// The worker's refusal.
fn refused(errno: i32, message: String) -> Error {
    let kind = match errno {
        1..4096 => kind_of(Errno::from_raw_os_error(errno)),
        // No number that a kernel has.
        _ => ErrorKind::Protocol,
    };
    Error::new(kind, message).with_context("errno", errno)
}

/// A failure on a descriptor that the worker handed over.
fn io_error(error: std::io::Error) -> Error {
    let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
        // It was not opened for what was asked.
        Some(Errno::BADF) => ErrorKind::Protocol,
        Some(errno) => kind_of(errno),
        None => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::EXIST => ErrorKind::AlreadyExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::PermissionDenied,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::StorageFull,
        Errno::NOTEMPTY | Errno::BUSY | Errno::TXTBSY => ErrorKind::InvalidState,
        Errno::NOMEM | Errno::NFILE | Errno::MFILE | Errno::OVERFLOW | Errno::FBIG => {
            ErrorKind::QuotaExceeded
        }
        Errno::IO => ErrorKind::Internal,
        Errno::AGAIN => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidArgument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_may_carry_any_number() {
        for errno in [0, -1, 4096, 65_536, i32::MIN, i32::MAX] {
            let kind = refused(errno, String::new()).kind();
            assert_eq!(kind, ErrorKind::Protocol, "{errno}");
        }
        assert_eq!(refused(2, String::new()).kind(), ErrorKind::NotFound);
        assert_eq!(
            refused(4095, String::new()).kind(),
            ErrorKind::InvalidArgument
        );
    }
}
