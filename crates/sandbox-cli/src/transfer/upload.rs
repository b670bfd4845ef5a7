//! Copies from this machine into a sandbox.

use super::{
    AT_A_TIME, Progress, Report,
    spec::{self, Place},
};
use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use sandbox::{
    Body, BoxStream, Bytes, Error, ErrorKind, FileKind, MkdirOptions, RemoveOptions, Sandbox,
    SandboxPath, StatOptions, SymlinkOptions, WriteOptions,
};
use std::{
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{io::AsyncReadExt, sync::mpsc};

/// How much of a file is read at a time.
const CHUNK: usize = 256 * 1024;

/// Files up to this size are sent at once; longer ones, and those of unknown size, as a stream.
const AT_ONCE: u64 = CHUNK as u64;

/// Copies into one sandbox, with the rights of one of its users.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    pub(crate) sandbox: &'a dyn Sandbox,
    /// `None` is the sandbox's default user.
    pub(crate) user: Option<String>,
    pub(crate) progress: Progress,
}

/// What lies below a directory of this machine.
#[derive(Debug, Default)]
struct Tree {
    directories: Vec<(PathBuf, u32)>,
    files: Vec<(PathBuf, u32)>,
    links: Vec<(PathBuf, Vec<u8>)>,
    bytes: u64,
}

impl Upload<'_> {
    /// Copies a file or directory to `place`, into it if it is a directory.
    pub(crate) async fn copy(&self, source: &Path, place: &Place) -> Result<Report> {
        let written = source.as_os_str().as_bytes();
        let contents = written == b"." || written.ends_with(b"/.");
        let into = place.directory || self.is_directory(place).await?;
        if into && !contents {
            let name = spec::name_of(source)?;
            let path = place.path.join(name.as_bytes())?;
            self.copy_as(source, &path).await
        } else {
            self.copy_as(source, &place.path).await
        }
    }

    /// Copies a file or directory to just this path.
    async fn copy_as(&self, source: &Path, path: &SandboxPath) -> Result<Report> {
        let info =
            fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
        if info.is_dir() {
            return self.directory(source, path).await;
        }
        self.progress.expect(info.len());
        let bytes = self.file(source, path, mode_of(&info)).await?;
        Ok(Report {
            files: 1,
            bytes,
            ..Report::default()
        })
    }

    /// Copies pieces as they come into a file.
    pub(crate) async fn stream(
        &self,
        mut pieces: mpsc::Receiver<io::Result<Bytes>>,
        place: &Place,
    ) -> Result<Report> {
        if place.directory || self.is_directory(place).await? {
            bail!("{} is a directory, name a file in it", place.path);
        }
        // Before the file is touched: whoever gives us nothing to read is to find it as it was.
        let first = pieces.recv().await.transpose().map_err(input_error)?;
        let counter = Counter::default();
        let counted = counter.clone();
        let rest = stream::unfold(pieces, async |mut pieces| {
            let piece = pieces.recv().await?;
            Some((piece.map_err(input_error), pieces))
        });
        let pieces = stream::iter(first.map(Ok)).chain(rest);
        let pieces = pieces.inspect_ok(move |piece| counted.add(piece.len()));
        self.write(&place.path, Body::stream(pieces.boxed(), None), None)
            .await?;
        Ok(Report {
            files: 1,
            bytes: counter.get(),
            ..Report::default()
        })
    }

    async fn is_directory(&self, place: &Place) -> Result<bool> {
        let mut options = StatOptions::new();
        options.user.clone_from(&self.user);
        match self.sandbox.files().stat(&place.path, options).await {
            Ok(info) => Ok(info.kind == FileKind::Directory),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("cannot look at the destination"),
        }
    }

    /// Copies all that is in a directory: directories first, links last.
    async fn directory(&self, source: &Path, destination: &SandboxPath) -> Result<Report> {
        let mut report = Report::default();
        let tree = Tree::read(source, &mut report)?;
        self.progress.expect(tree.bytes);
        for (path, mode) in &tree.directories {
            let path = beneath(destination, path)?;
            let mut options = MkdirOptions::new().parents(true).mode(*mode);
            options.user.clone_from(&self.user);
            self.sandbox
                .files()
                .mkdir(&path, options)
                .await
                .context("cannot make a directory in the sandbox")?;
        }
        let copied: Vec<u64> = stream::iter(&tree.files)
            .map(|(path, mode)| async move {
                let destination = beneath(destination, path)?;
                self.file(&source.join(path), &destination, *mode).await
            })
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        report.files = copied.len() as u64;
        report.bytes = copied.iter().sum();
        self.links(destination, &tree.links).await?;
        Ok(report)
    }

    /// Copies one file; its size.
    async fn file(&self, source: &Path, destination: &SandboxPath, mode: u32) -> Result<u64> {
        let here = || format!("cannot read {}", source.display());
        let file = tokio::fs::File::open(source).await.with_context(here)?;
        let info = file.metadata().await.with_context(here)?;
        // Files of /proc are empty by their own account, and pipes have no size.
        let size = Some(info.len()).filter(|size| info.is_file() && *size > 0);
        let counter = Counter::default();
        let pieces = pieces(file, size, counter.clone(), self.progress.clone());
        let body = match size {
            Some(1..=AT_ONCE) => collect(pieces).await.with_context(here)?.into(),
            _ => Body::stream(pieces, size),
        };
        self.write(destination, body, Some(mode))
            .await
            .with_context(|| format!("cannot copy {}", source.display()))?;
        Ok(counter.get())
    }

    async fn write(&self, path: &SandboxPath, body: Body, mode: Option<u32>) -> Result<()> {
        let mut options = WriteOptions::new();
        options.mode = mode;
        options.user.clone_from(&self.user);
        self.sandbox.files().write(path, body, options).await?;
        Ok(())
    }

    /// Makes links, in the place of links and files that are there.
    async fn links(&self, destination: &SandboxPath, links: &[(PathBuf, Vec<u8>)]) -> Result<()> {
        for (path, target) in links {
            let (path, target) = (beneath(destination, path)?, SandboxPath::new(target)?);
            self.link(&path, &target)
                .await
                .context("cannot make a link in the sandbox")?;
        }
        Ok(())
    }

    async fn link(&self, path: &SandboxPath, target: &SandboxPath) -> sandbox::Result<()> {
        let files = self.sandbox.files();
        let mut options = SymlinkOptions::new();
        options.user.clone_from(&self.user);
        match files.symlink(path, target, options.clone()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let mut look = StatOptions::new().follow(false);
                look.user.clone_from(&self.user);
                if files.stat(path, look).await?.kind == FileKind::Directory {
                    return Err(error);
                }
                let mut remove = RemoveOptions::new();
                remove.user.clone_from(&self.user);
                files.remove(path, remove).await?;
                files.symlink(path, target, options).await
            }
            result => result,
        }
    }
}

impl Tree {
    /// Reads a directory. What is neither directory, file nor link is left out.
    fn read(source: &Path, report: &mut Report) -> Result<Self> {
        let mut tree = Self::default();
        let mut open = vec![PathBuf::new()];
        let top =
            fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
        tree.directories.push((PathBuf::new(), mode_of(&top)));
        while let Some(directory) = open.pop() {
            let full = source.join(&directory);
            let here = || format!("cannot read {}", full.display());
            for entry in fs::read_dir(&full).with_context(here)? {
                let entry = entry.with_context(here)?;
                let path = directory.join(entry.file_name());
                let info = entry.metadata().with_context(here)?;
                let kind = info.file_type();
                if kind.is_dir() {
                    tree.directories.push((path.clone(), mode_of(&info)));
                    open.push(path);
                } else if kind.is_file() {
                    tree.bytes += info.len();
                    tree.files.push((path, mode_of(&info)));
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path()).with_context(here)?;
                    tree.links
                        .push((path, target.into_os_string().into_encoded_bytes()));
                } else {
                    report.skip(
                        path.as_os_str().as_bytes(),
                        "neither file, directory nor link",
                    );
                }
            }
        }
        Ok(tree)
    }
}

/// Permissions without setuid and the like. The owner of a directory can always use it, or it could not be filled.
fn mode_of(info: &Metadata) -> u32 {
    let owner = if info.is_dir() { 0o700 } else { 0 };
    info.permissions().mode() & 0o777 | owner
}

fn beneath(directory: &SandboxPath, path: &Path) -> Result<SandboxPath> {
    if path.as_os_str().is_empty() {
        return Ok(directory.clone());
    }
    Ok(directory.join(path.as_os_str().as_bytes())?)
}

/// The contents of a file: the `size` bytes that it had when it was opened, if that is known.
fn pieces(
    file: tokio::fs::File,
    size: Option<u64>,
    counter: Counter,
    progress: Progress,
) -> BoxStream<'static, sandbox::Result<Bytes>> {
    let file = file.take(size.unwrap_or(u64::MAX));
    stream::try_unfold(file, move |mut file| {
        let (counter, progress) = (counter.clone(), progress.clone());
        async move {
            let mut buffer = Vec::with_capacity(CHUNK);
            let read = file.read_buf(&mut buffer).await.map_err(read_error)?;
            counter.add(read);
            progress.add(read);
            if read > 0 {
                return Ok(Some((Bytes::from(buffer), file)));
            }
            match size {
                Some(size) if counter.get() < size => Err(Error::new(
                    ErrorKind::InvalidState,
                    "the file shrank while it was read",
                )),
                _ => Ok(None),
            }
        }
    })
    .boxed()
}

async fn collect(mut pieces: BoxStream<'static, sandbox::Result<Bytes>>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Counts bytes that a stream has yielded.
#[derive(Debug, Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn read_error(error: io::Error) -> Error {
    Error::new(ErrorKind::InvalidState, "the file cannot be read").with_source(error)
}

fn input_error(error: io::Error) -> Error {
    let message = "standard input cannot be read";
    Error::new(ErrorKind::InvalidState, message).with_source(error)
}
