//! Reading and writing the contents of regular files.
//!
//! A file is first opened as `O_PATH` and its kind looked at, so that a fifo or device is never really opened. Only
//! descriptors of files on ordinary file systems are handed out: those of `/proc` and the like would let the host act
//! on kernel objects, so their contents are copied.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use sandbox_agent::protocol::{MAX_CHUNK, files::ORDINARY};

use super::error::{Explain, FileError, Result, errno};
use super::tree::{Tree, checked, unusual};
use crate::sys::file;

/// Longest file outside ordinary file systems that is copied.
const COPY_LIMIT: u64 = 16 * 1024 * 1024;

/// Permissions of a new file that none were asked for.
const DEFAULT_MODE: u32 = 0o644;

/// What a read gives.
#[derive(Debug)]
pub(super) enum Contents {
    /// The bytes, and the size of the whole file.
    Data(Vec<u8>, u64),
    /// A read-only descriptor, and the size of the whole file.
    Opened(OwnedFd, u64),
}

/// Reads `len` bytes of `path` from `offset`, or opens it if they are many.
pub(super) fn read(tree: &Tree, path: &[u8], offset: u64, len: u64) -> Result<Contents> {
    let target = tree.find(path)?;
    let size = regular(target.as_fd(), path)?;
    let file = File::from(
        tree.reopen(target.as_fd(), libc::O_RDONLY)
            .explain("open", path)?,
    );
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_CHUNK);
    if is_ordinary(file.as_fd()).explain("open", path)? {
        return match len {
            Some(len) => Ok(Contents::Data(
                read_range(&file, offset, len).explain("read", path)?,
                size,
            )),
            None => Ok(Contents::Opened(file.into(), size)),
        };
    }
    let bytes = read_all(file, path)?;
    let size = bytes.len() as u64;
    match len {
        Some(len) => {
            let start =
                usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
            let range = bytes
                .get(start..bytes.len().min(start + len))
                .unwrap_or_default();
            Ok(Contents::Data(range.to_vec(), size))
        }
        None => Ok(Contents::Opened(
            copy_to_memory(tree, &bytes).explain("copy", path)?,
            size,
        )),
    }
}

/// Replaces the contents of `path` by `data`, making it and its parent directories as needed.
pub(super) fn write(tree: &Tree, path: &[u8], mode: Option<u32>, data: &[u8]) -> Result<()> {
    let (file, ordinary) = open_emptied(tree, path, mode)?;
    if !ordinary {
        // Such a file takes one write as one command; a second call with a rest of it would be another command.
        let written = (&file).write(data).explain("write", path)?;
        return if written == data.len() {
            Ok(())
        } else {
            Err(FileError::about(
                libc::EIO,
                path,
                "took only a part of what was written",
            ))
        };
    }
    (&file).write_all(data).explain("write", path)?;
    match mode {
        // Writing takes these bits away.
        Some(mode) if mode & 0o6000 != 0 => tree
            .set_mode(file.as_fd(), mode)
            .explain("set the permissions of", path),
        _ => Ok(()),
    }
}

/// Opens `path` for writing from its start, emptied, making it and its parent directories as needed.
pub(super) fn create(tree: &Tree, path: &[u8], mode: Option<u32>) -> Result<OwnedFd> {
    let (file, ordinary) = open_emptied(tree, path, mode)?;
    if ordinary {
        Ok(file.into())
    } else {
        Err(FileError::about(
            libc::EINVAL,
            path,
            "is a file of the kernel, write it whole instead",
        ))
    }
}

/// Opens and empties a regular file. The flag says whether it is on an ordinary file system; one that is not is not
/// emptied.
fn open_emptied(tree: &Tree, path: &[u8], mode: Option<u32>) -> Result<(File, bool)> {
    checked(path)?;
    if path.ends_with(b"/") {
        return Err(FileError::about(libc::EISDIR, path, "names a directory"));
    }
    let file = match tree.find(path) {
        Ok(target) => {
            regular(target.as_fd(), path)?;
            tree.reopen(target.as_fd(), libc::O_WRONLY)
                .explain("open", path)?
        }
        Err(error) if error.errno == libc::ENOENT => make(tree, path, mode)?,
        Err(error) => return Err(error),
    };
    let file = File::from(file);
    let ordinary = is_ordinary(file.as_fd()).explain("open", path)?;
    // Before the contents, which may be meant for fewer eyes than the old ones.
    if let Some(mode) = mode {
        tree.set_mode(file.as_fd(), mode)
            .explain("set the permissions of", path)?;
    }
    if ordinary {
        file.set_len(0).explain("empty", path)?;
    }
    Ok((file, ordinary))
}

/// Makes a file that was not there a moment ago. A link to a missing file makes that file.
fn make(tree: &Tree, path: &[u8], mode: Option<u32>) -> Result<OwnedFd> {
    let place = tree.place(path, true)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NONBLOCK;
    // Whoever may read it in the end, nobody else may in between.
    let first = mode.map_or(DEFAULT_MODE, |mode| mode & 0o700);
    let file = file::open(
        place.parent.as_fd(),
        &place.name,
        flags,
        first,
        libc::RESOLVE_NO_MAGICLINKS,
    );
    let file = file.explain("create", path)?;
    // The path may have become something else meanwhile.
    regular(file.as_fd(), path)?;
    tree.refuse_own(file.as_fd(), path)?;
    Ok(file)
}

/// The size of a regular file; an error says what it is instead.
fn regular(fd: BorrowedFd<'_>, path: &[u8]) -> Result<u64> {
    let status = file::status(fd).explain("stat", path)?;
    match unusual(status.st_mode) {
        None => Ok(status.st_size.cast_unsigned()),
        Some(kind) => {
            let errno = if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
                libc::EISDIR
            } else {
                libc::EINVAL
            };
            Err(FileError::about(
                errno,
                path,
                &format!("is {kind}, not a regular file"),
            ))
        }
    }
}

fn is_ordinary(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(ORDINARY.contains(&file::file_system(fd)?.cast_unsigned()))
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
fn read_range(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(filled as u64);
        // The kernel refuses a range beyond the end of all files instead of finding nothing there.
        if i64::try_from(at.saturating_add(rest.len() as u64)).is_err() {
            break;
        }
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads a whole file of the kernel, whose size is known only at its end.
fn read_all(file: File, path: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.take(COPY_LIMIT + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > COPY_LIMIT => Err(FileError::about(
            libc::EFBIG,
            path,
            "is a file of the kernel with more than 16 MiB",
        )),
        Ok(_) => Ok(bytes),
        Err(error) if errno(&error) == libc::EAGAIN => Err(FileError::about(
            libc::EAGAIN,
            path,
            "is a file of the kernel that has no more to read now",
        )),
        Err(error) => Err(FileError::of(&error, "read", path)),
    }
}

/// Makes a sealed copy of `bytes` and opens it read-only.
fn copy_to_memory(tree: &Tree, bytes: &[u8]) -> io::Result<OwnedFd> {
    let copy = File::from(file::memory_file(c"sandbox-file")?);
    (&copy).write_all(bytes)?;
    file::seal(copy.as_fd())?;
    tree.reopen(copy.as_fd(), libc::O_RDONLY)
}
