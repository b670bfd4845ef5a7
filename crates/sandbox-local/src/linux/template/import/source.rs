//! Bytes of an archive: read from a file, decompressed, counted, and digested on the way.

use super::{archive::damaged, scan::too_large};
use crate::linux::record::storage_error;
use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use sandbox_core::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
};

/// How much of a file is read at a time.
const BUFFER: usize = 128 * 1024;

/// Most memory that the decompression may take, in bytes.
const LARGEST_WINDOW: u64 = 128 * 1024 * 1024;

/// A SHA-256 in the form in which it names contents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(hash: Sha256) -> Self {
        let bytes = hash.finalize();
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reads 64 hexadecimal digits.
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (hex.len() == 64 && hex.bytes().all(is_digit)).then(|| Self(hex.to_owned()))
    }

    pub(crate) fn hex(&self) -> &str {
        &self.0
    }
}

/// Digests and counts what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    length: u64,
    /// Told of each piece; false ends the reading.
    report: Option<Rc<dyn Fn(u64) -> bool>>,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            length: 0,
            report: None,
        }
    }

    /// Tells `report` of the bytes of each piece; if that says false, the reading fails.
    pub(crate) fn reporting(mut self, report: Rc<dyn Fn(u64) -> bool>) -> Self {
        self.report = Some(report);
        self
    }

    /// Reads what is left, and tells the digest and length of all.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::of(self.hash), self.length))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        let goes_on = self
            .report
            .as_ref()
            .is_none_or(|report| report(count as u64));
        if goes_on {
            Ok(count)
        } else {
            Err(io::Error::other("it was cancelled"))
        }
    }
}

/// Ends with an error beyond a length, and says afterwards that this was the reason.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: Rc<Cell<bool>>,
}

impl<R: Read> Bounded<R> {
    /// At most `most` bytes of `inner`.
    pub(crate) fn new(inner: R, most: u64) -> (Self, Exceeded) {
        let exceeded = Rc::new(Cell::new(false));
        let said = Exceeded {
            flag: Rc::clone(&exceeded),
            most,
        };
        let bounded = Self {
            inner,
            left: most,
            exceeded,
        };
        (bounded, said)
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => {
                self.exceeded.set(true);
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }
}

/// Whether a [`Bounded`] has ended for its bound.
#[derive(Debug)]
pub(crate) struct Exceeded {
    flag: Rc<Cell<bool>>,
    most: u64,
}

impl Exceeded {
    /// The better reason, if there is one.
    pub(crate) fn or(&self, error: Error) -> Error {
        if self.flag.get() {
            let most = self.most;
            too_large(format!(
                "its archive has more than {most} bytes without compression, the most that may be imported"
            ))
        } else {
            error
        }
    }
}

/// Reads `compressed`, whatever of gzip, zstd and nothing it is compressed by.
///
/// # Errors
/// `InvalidData` for what is no such thing, here or in a later read.
pub(crate) fn decompress<'a, R: Read + 'a>(compressed: R) -> io::Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(BUFFER, compressed);
    let start = input.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(input)));
    }
    if start.starts_with(&ZSTD) {
        return Ok(Box::new(Zstd {
            next: Some(input),
            frame: None,
        }));
    }
    Ok(Box::new(input))
}

/// Decompresses into a file of `directory` that has no name, and goes with this program.
///
/// # Errors
/// `QuotaExceeded` if it has more than `most` bytes without compression.
pub(crate) fn decompress_into(directory: &Path, compressed: impl Read, most: u64) -> Result<File> {
    let failed = |error| storage_error(error, "the archive could not be decompressed");
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(file.map_err(|errno| failed(errno.into()))?);
    let plain = decompress(compressed).map_err(damaged)?;
    let (mut bounded, exceeded) = Bounded::new(plain, most);
    io::copy(&mut bounded, &mut file).map_err(|error| exceeded.or(failed(error)))?;
    Ok(file)
}

/// What a zstd frame begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The frames of a zstd file, one after the other. Those that hold no data are skipped.
struct Zstd<R: Read> {
    /// Where the next frame begins.
    next: Option<BufReader<R>>,
    frame: Option<StreamingDecoder<BufReader<R>, FrameDecoder>>,
}

impl<R: Read> Zstd<R> {
    /// Begins with the next frame; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(mut input) = self.next.take() else {
            return Ok(false);
        };
        while let [first, 0x2a, 0x4d, 0x18] = peek(&mut input)?
            && first & 0xf0 == 0x50
        {
            let mut header = [0; 8];
            input.read_exact(&mut header)?;
            let length = u64::from(u32::from_le_bytes([
                header[4], header[5], header[6], header[7],
            ]));
            if io::copy(&mut input.by_ref().take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if input.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let frame = StreamingDecoder::new_with_max_window_size(input, LARGEST_WINDOW);
        self.frame =
            Some(frame.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?);
        Ok(true)
    }
}

/// What comes next, if that are four bytes; else something that no frame begins with.
fn peek<R: Read>(input: &mut BufReader<R>) -> io::Result<[u8; 4]> {
    let start = input.fill_buf()?;
    Ok(start.first_chunk().copied().unwrap_or_default())
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.next = self.frame.take().map(StreamingDecoder::into_inner);
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    fn read(compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        decompress(compressed)?.read_to_end(&mut all).map(|_| all)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    #[test]
    fn all_parts_of_compressed_files_are_read() {
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let files = [
            b"one two".to_vec(),
            [gzip(b"one "), gzip(b"two")].concat(),
            [zstd(b"one "), skipped, zstd(b"two")].concat(),
        ];
        for file in files {
            assert_eq!(read(&file).unwrap(), b"one two");
        }
    }

    #[test]
    fn what_is_cut_off_or_senseless_is_an_error() {
        let zstd = zstd(&[7; 5000]);
        let gzip = gzip(&[7; 5000]);
        for file in [&zstd[..zstd.len() - 2], &gzip[..gzip.len() - 2]] {
            assert!(read(file).is_err());
        }
        assert!(read(&[&ZSTD[..], b"nonsense"].concat()).is_err());
        // A window of more memory than anybody should give.
        assert!(read(&[&ZSTD[..], &[0x00, 0xf8, 0, 0, 0]].concat()).is_err());
    }

    #[test]
    fn no_more_is_read_than_the_bound() {
        let (mut bounded, exceeded) = Bounded::new(io::repeat(1), 1000);
        assert!(io::copy(&mut bounded, &mut io::sink()).is_err());
        let error = exceeded.or(Error::invalid("other"));
        assert_eq!(error.kind(), sandbox_core::ErrorKind::QuotaExceeded);
    }

    #[test]
    fn the_digest_is_of_all_that_there_is() {
        let mut hashing = Hashing::new(&b"abc"[..]);
        assert_eq!(hashing.read(&mut [0; 1]).unwrap(), 1);
        let (digest, length) = hashing.finish().unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((digest.hex(), length), (abc, 3));
        assert_eq!(Digest::parse(abc), Some(digest));
        assert_eq!(Digest::parse(&abc.to_uppercase()), None);
    }
}
