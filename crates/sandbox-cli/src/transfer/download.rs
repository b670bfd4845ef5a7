//! Copies from a sandbox to this machine. What the sandbox says about its files is not trusted.

use super::{
    AT_A_TIME, Progress, Report,
    directory::{Below, Directory, stays_inside},
    spec::Place,
};
use crate::session::{Sink, Stream};
use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use sandbox::{
    BoxStream, Bytes, Error, ErrorKind, FileInfo, FileKind, ListFilesOptions, ReadOptions, Sandbox,
    SandboxPath, StatOptions,
};
use std::{
    fs,
    io::SeekFrom,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use tokio::io::{AsyncSeekExt, AsyncWrite, AsyncWriteExt};

/// How many zeros in a row become a hole. Large enough that most files are written piece by piece.
const BLOCK: usize = 64 * 1024;

/// Permissions of a file whose provider does not tell them.
const DEFAULT_MODE: u32 = 0o644;

/// Copies out of one sandbox, with the rights of one of its users.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    pub(crate) sandbox: &'a dyn Sandbox,
    /// `None` is the sandbox's default user.
    pub(crate) user: Option<String>,
    pub(crate) progress: Progress,
}

/// What lies below a directory of the sandbox.
#[derive(Debug, Default)]
struct Tree {
    directories: Vec<(Below, u32)>,
    files: Vec<(Below, FileInfo)>,
    links: Vec<(Below, Vec<u8>)>,
    bytes: u64,
}

impl Download<'_> {
    /// Copies a file or directory to `destination`, into it if it is a directory.
    pub(crate) async fn copy(&self, place: &Place, destination: &Path) -> Result<Report> {
        let info = self.stat(&place.path).await?;
        let name = place.path.file_name().filter(|_| !place.contents);
        match info.kind {
            FileKind::Directory => self.directory(&place.path, name, destination).await,
            FileKind::File if !place.directory => self.single(&info, destination).await,
            FileKind::File => bail!("{} is a file, not a directory", place.path),
            _ => bail!("{} is neither file nor directory", place.path),
        }
    }

    /// Writes a file to standard output.
    pub(crate) async fn print(&self, place: &Place) -> Result<Report> {
        let mut pieces = self.read(&place.path).await?;
        let mut sink = Sink::start();
        let mut bytes = 0;
        while let Some(piece) = pieces.try_next().await.context("cannot read on")? {
            bytes += piece.len() as u64;
            sink.write(Stream::Stdout, piece).await?;
        }
        sink.finish().await?;
        Ok(Report {
            files: 1,
            bytes,
            ..Report::default()
        })
    }

    async fn stat(&self, path: &SandboxPath) -> Result<FileInfo> {
        let mut options = StatOptions::new();
        options.user.clone_from(&self.user);
        let info = self.sandbox.files().stat(path, options).await;
        info.context("cannot read from the sandbox")
    }

    async fn read(
        &self,
        path: &SandboxPath,
    ) -> Result<BoxStream<'static, sandbox::Result<Bytes>>, sandbox::Error> {
        let mut options = ReadOptions::new();
        options.user.clone_from(&self.user);
        let contents = self.sandbox.files().read(path, options).await?;
        Ok(contents.into_stream())
    }

    /// Copies one file to where this machine's user wants it.
    async fn single(&self, info: &FileInfo, destination: &Path) -> Result<Report> {
        self.progress.expect(info.size);
        let pieces = self.read(&info.path).await?;
        let there = || format!("cannot write {}", destination.display());
        let bytes = match Spot::of(destination, info.path.file_name()).with_context(there)? {
            Spot::Special(path) => {
                let file = tokio::fs::OpenOptions::new().write(true).open(path).await;
                self.pour(pieces, file.with_context(there)?).await
            }
            Spot::Entry(directory, name) => {
                let mut partial = directory
                    .start_file(&name, info.mode.unwrap_or(DEFAULT_MODE))
                    .with_context(there)?;
                let bytes = self.fill(pieces, &mut partial.file).await;
                if bytes.is_ok() {
                    partial.finish().with_context(there)?;
                }
                bytes
            }
        };
        Ok(Report {
            files: 1,
            bytes: bytes.with_context(there)?,
            ..Report::default()
        })
    }

    async fn pour(
        &self,
        mut pieces: BoxStream<'static, sandbox::Result<Bytes>>,
        mut file: impl AsyncWrite + Unpin,
    ) -> Result<u64> {
        let mut bytes = 0;
        while let Some(piece) = pieces.try_next().await? {
            file.write_all(&piece).await?;
            bytes += piece.len() as u64;
            self.progress.add(piece.len());
        }
        file.flush().await?;
        Ok(bytes)
    }

    /// Fills a new file. Where there are only zeros it gets a hole, for a file of a sandbox can be far longer than any
    /// disk and take no room there.
    async fn fill(
        &self,
        mut pieces: BoxStream<'static, sandbox::Result<Bytes>>,
        file: &mut tokio::fs::File,
    ) -> Result<u64> {
        let mut bytes = 0;
        while let Some(piece) = pieces.try_next().await? {
            for block in piece.chunks(BLOCK) {
                if block.iter().all(|byte| *byte == 0) {
                    file.seek(SeekFrom::Current(block.len() as i64)).await?;
                } else {
                    file.write_all(block).await?;
                }
            }
            bytes += piece.len() as u64;
            self.progress.add(piece.len());
        }
        file.flush().await?;
        file.set_len(bytes).await?;
        Ok(bytes)
    }

    /// Copies all that is in a directory: directories first, links last, so that no link leads a file astray.
    async fn directory(
        &self,
        source: &SandboxPath,
        name: Option<&[u8]>,
        destination: &Path,
    ) -> Result<Report> {
        let mut report = Report::default();
        let tree = self.list(source, &mut report).await?;
        self.progress.expect(tree.bytes);
        let there = || format!("cannot make {}", destination.display());
        let target = open_destination(destination, name).with_context(there)?;
        for (path, mode) in &tree.directories {
            target
                .make_directory(path, *mode)
                .with_context(|| format!("cannot make {path}"))?;
        }
        let copied: Vec<Result<u64, Error>> = stream::iter(&tree.files)
            .map(|(path, info)| self.below(&target, path, info))
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        for ((path, _), copied) in tree.files.iter().zip(&copied) {
            match copied {
                Ok(bytes) => {
                    report.files += 1;
                    report.bytes += bytes;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    report.skip(&path.to_bytes(), "it vanished meanwhile");
                }
                Err(error) => report.fail(&path.to_bytes(), error),
            }
        }
        for (path, link) in &tree.links {
            if stays_inside(path, link) {
                target
                    .make_link(path, link)
                    .with_context(|| format!("cannot make {path}"))?;
            } else {
                report.skip(&path.to_bytes(), "a link that leads out of the directory");
            }
        }
        Ok(report)
    }

    /// Copies one file of a directory. One that cannot be opened in the sandbox is no reason to leave out the others.
    async fn below(
        &self,
        target: &Directory,
        path: &Below,
        info: &FileInfo,
    ) -> Result<Result<u64, Error>> {
        let pieces = match self.read(&info.path).await {
            Ok(pieces) => pieces,
            Err(error) if is_of_file(error.kind()) => return Ok(Err(error)),
            Err(error) => return Err(error).with_context(|| format!("cannot copy {path}")),
        };
        let copy = async {
            let mut partial = target.start_file(path, info.mode.unwrap_or(DEFAULT_MODE))?;
            let bytes = self.fill(pieces, &mut partial.file).await?;
            partial.finish()?;
            Ok::<_, anyhow::Error>(bytes)
        };
        let bytes = copy.await.with_context(|| format!("cannot copy {path}"))?;
        Ok(Ok(bytes))
    }

    /// What is below a directory of the sandbox, every path checked.
    async fn list(&self, source: &SandboxPath, report: &mut Report) -> Result<Tree> {
        let mut options = ListFilesOptions::new().depth(u32::MAX);
        options.user.clone_from(&self.user);
        let mut entries = self.sandbox.files().list(source, options);
        let mut tree = Tree::default();
        while let Some(info) = entries
            .try_next()
            .await
            .context("cannot list the directory in the sandbox")?
        {
            let Some(path) = below_of(source, &info.path) else {
                bail!(
                    "the sandbox lists {:?}, which is not below {source}",
                    info.path
                );
            };
            match info.kind {
                FileKind::Directory => tree.directories.push((path, info.mode.unwrap_or(0o755))),
                FileKind::File => {
                    tree.bytes = tree.bytes.saturating_add(info.size);
                    tree.files.push((path, info));
                }
                FileKind::Symlink => tree.links.push((path, info.target.unwrap_or_default())),
                _ => report.skip(&path.to_bytes(), "neither file, directory nor link"),
            }
        }
        Ok(tree)
    }
}

/// Whether an error is about the one file that was to be opened.
fn is_of_file(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidArgument
            | ErrorKind::InvalidState
    )
}

/// The part of a listed path that is below the listed directory.
fn below_of(source: &SandboxPath, path: &SandboxPath) -> Option<Below> {
    let mut rest = path.as_bytes().strip_prefix(source.as_bytes())?;
    if !source.as_bytes().ends_with(b"/") {
        rest = rest.strip_prefix(b"/")?;
    }
    Below::new(rest)
}

/// Opens the directory that takes the contents: `destination` itself, or a directory `name` in it if it exists already.
fn open_destination(destination: &Path, name: Option<&[u8]>) -> Result<Directory> {
    let exists = fs::metadata(destination).is_ok();
    if !exists {
        fs::create_dir_all(destination)?;
    }
    let directory = Directory::open(destination)?;
    let Some(name) = name.filter(|_| exists) else {
        return Ok(directory);
    };
    let name = Below::new(name).context("the directory has no name")?;
    directory.make_directory(&name, 0o755)?;
    Ok(directory.enter(&name)?)
}

/// Where one file goes.
enum Spot {
    /// A name in a directory.
    Entry(Directory, Below),
    /// A pipe or device that this machine's user named: it is written, not replaced.
    Special(PathBuf),
}

impl Spot {
    fn of(destination: &Path, name: Option<&[u8]>) -> Result<Self> {
        let written_as_directory = destination.as_os_str().as_bytes().ends_with(b"/");
        if written_as_directory {
            fs::create_dir_all(destination)?;
        }
        let (directory, name) = match fs::metadata(destination) {
            Ok(info) if info.is_dir() => {
                (destination.to_owned(), name.unwrap_or_default().to_vec())
            }
            Ok(info) if !info.is_file() => return Ok(Self::Special(destination.to_owned())),
            // A link that this machine's user named is followed, as by cp.
            Ok(_) => parts(&destination.canonicalize()?),
            Err(_) => parts(destination),
        };
        let name = Below::new(&name).context("it is no name for a file")?;
        Ok(Self::Entry(Directory::open(&directory)?, name))
    }
}

fn parts(path: &Path) -> (PathBuf, Vec<u8>) {
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let name = path.file_name().unwrap_or_default();
    (directory, name.as_bytes().to_vec())
}
