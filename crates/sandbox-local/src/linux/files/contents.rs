//! Contents that are moved here, through a descriptor that the sandbox handed over.

use super::answers::io_error;
use futures_util::{StreamExt, stream};
use rustix::buffer::spare_capacity;
use sandbox_agent::protocol::files::ORDINARY;
use sandbox_core::{BoxStream, Bytes, Error, ErrorKind, Result};
use std::{fs::File, io, os::fd::OwnedFd, sync::Arc};
use tokio::task::JoinHandle;

/// Bytes that are read from a descriptor at a time.
const PIECE: usize = 512 * 1024;

/// Takes a descriptor only of a regular file on a file system whose files cannot make a reader wait or act on the host.
pub(super) fn regular_file(descriptor: OwnedFd) -> Result<File> {
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

pub(super) fn read_range(
    file: Arc<File>,
    offset: u64,
    len: u64,
) -> BoxStream<'static, Result<Bytes>> {
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
