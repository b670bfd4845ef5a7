//! Memory that costs nothing until it is touched and that children do not get.

#![expect(unsafe_code, reason = "mmap(2), memfd_create(2)")]

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Seals of shared memory: it is as long as it was made, for everybody.
const SEALS: libc::c_int = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// Zeroed memory of its own mapping, given back when dropped.
///
/// Its pages exist only once they are written to. A forked child has no copy: neither does forking get slower with
/// the memory in use, nor does a child hold what it has no business with.
#[derive(Debug)]
pub(crate) struct Area {
    start: NonNull<u8>,
    len: usize,
}

impl Area {
    /// Maps `len` bytes.
    ///
    /// # Errors
    /// `OutOfMemory` if there is no room for them.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// Maps `len` bytes that others may read as well, by the descriptor.
    ///
    /// # Errors
    /// Those of memfd_create(2); `OutOfMemory` if there is no room for the bytes.
    pub(crate) fn shared(len: usize) -> io::Result<(Self, OwnedFd)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a C string, and the descriptor is new.
        let fd = unsafe {
            let fd = super::check(libc::memfd_create(c"output".as_ptr(), flags))?;
            OwnedFd::from_raw_fd(fd)
        };
        let size = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: both only change the file behind our own descriptor.
        unsafe {
            super::check(libc::ftruncate(fd.as_raw_fd(), size))?;
            super::check(libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS))?;
        }
        Ok((Self::map(len, libc::MAP_SHARED, fd.as_raw_fd())?, fd))
    }

    fn map(len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) };
        let start = match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => start,
            _ => return Err(io::Error::last_os_error()),
        };
        let area = Self { start, len };
        // SAFETY: the whole range is the mapping made above.
        super::check(unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTFORK) })?;
        Ok(area)
    }

    /// Stores a number at `offset`, to be seen by those who share the memory before anything that is written after it.
    pub(crate) fn publish(&mut self, offset: usize, number: u64) {
        let place = &mut self[offset..offset + size_of::<u64>()];
        assert!(
            place.as_ptr().cast::<u64>().is_aligned(),
            "a number in the middle of words"
        );
        // SAFETY: the eight bytes are there, aligned, and nobody else in this process has access to them.
        let place = unsafe { AtomicU64::from_ptr(place.as_mut_ptr().cast()) };
        place.store(number.to_le(), Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

impl Deref for Area {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is `len` bytes long, initialized to zeros, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Area {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is `self`'s own, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
