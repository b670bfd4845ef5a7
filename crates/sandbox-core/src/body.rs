//! File contents on their way in and out: bytes at hand, or a stream of them.

use crate::{BoxStream, Bytes, Error, ErrorKind, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::fmt;

/// What to write into a file.
pub struct Body(Contents);

enum Contents {
    Bytes(Bytes),
    Stream {
        size: Option<u64>,
        stream: BoxStream<'static, Result<Bytes>>,
    },
}

impl Body {
    /// A body that comes piece by piece, never held in memory as a whole. `size` is its length in bytes, if known.
    pub fn stream(stream: BoxStream<'static, Result<Bytes>>, size: Option<u64>) -> Self {
        Self(Contents::Stream { size, stream })
    }

    /// Length in bytes, if known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match &self.0 {
            Contents::Bytes(bytes) => Some(bytes.len() as u64),
            Contents::Stream { size, .. } => *size,
        }
    }

    /// The bytes, if they are at hand.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Contents::Bytes(bytes) => Some(bytes),
            Contents::Stream { .. } => None,
        }
    }

    /// The pieces in order.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        match self.0 {
            Contents::Bytes(bytes) => stream::once(async { Ok(bytes) }).boxed(),
            Contents::Stream { stream, .. } => stream,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

macro_rules! from_bytes {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Body {
            fn from(bytes: $ty) -> Self {
                Self(Contents::Bytes(bytes.into()))
            }
        }
    )*};
}
from_bytes!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

/// The contents of a file, or of a range of it.
pub struct FileContents {
    size: u64,
    stream: BoxStream<'static, Result<Bytes>>,
}

impl FileContents {
    /// Contents that come piece by piece; `size` is the whole file's, in bytes, when it was opened.
    pub fn new(size: u64, stream: BoxStream<'static, Result<Bytes>>) -> Self {
        Self { size, stream }
    }

    /// Contents that are at hand.
    pub fn from_bytes(size: u64, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::new(size, stream::once(async { Ok(bytes) }).boxed())
    }

    /// Size of the whole file in bytes, when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The pieces in order.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        self.stream
    }

    /// Collects everything.
    ///
    /// # Errors
    /// `QuotaExceeded` as soon as there are more than `limit` bytes; whatever reading fails with.
    pub async fn into_bytes(mut self, limit: usize) -> Result<Bytes> {
        let mut all = Vec::new();
        while let Some(piece) = self.stream.try_next().await? {
            if all.len() + piece.len() > limit {
                let message =
                    format!("file is larger than the {limit} bytes asked for, read it as a stream");
                return Err(Error::new(ErrorKind::QuotaExceeded, message));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}

impl fmt::Debug for FileContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileContents")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
