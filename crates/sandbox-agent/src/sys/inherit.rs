//! What a process passes on to its children: signal handling, session, limits, open descriptors.

#![expect(
    unsafe_code,
    reason = "sigaction(2), setrlimit(2), close_range(2) and their kin"
)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

const LAST_SIGNAL: libc::c_int = 64;

/// Gives every signal its default effect and blocks none. The Rust runtime ignores SIGPIPE, and whatever started
/// this process may ignore or block more.
pub(crate) fn reset_signals() -> io::Result<()> {
    // `struct sigaction` and `sigset_t` as the kernel knows them, larger than on any architecture. All zeros is the
    // default action, no flags, and an empty set.
    let zeros = [0_u64; 8];
    let (nothing, set_size) = (ptr::null_mut::<u64>(), 8_usize);
    // SAFETY: `zeros` is a valid structure for both calls; nothing is written. The raw call also reaches the two
    // signals that the C library keeps for itself. No code of this process runs in a handler afterwards.
    unsafe {
        for number in 1..=LAST_SIGNAL {
            // Refused for SIGKILL and SIGSTOP.
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                zeros.as_ptr(),
                nothing,
                set_size,
            );
        }
        let how = libc::SIG_SETMASK;
        super::check(libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            zeros.as_ptr(),
            nothing,
            set_size,
        ))
        .map(drop)
    }
}

/// Children that end are gone at once; nobody waits for them.
pub(crate) fn forget_children() {
    // SAFETY: sets the disposition of a signal to one of the two constants. It cannot fail for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Takes [`forget_children`] back.
pub(crate) fn remember_children() {
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Becomes the parent of every descendant whose own parent ends, as PID 1 of a namespace is anyway.
pub(crate) fn adopt_orphans() {
    // SAFETY: prctl(2) with integers. It cannot fail with these.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Leaves the session and process group that were inherited, with their terminal. Fails only if that was done before.
pub(crate) fn start_session() -> io::Result<()> {
    // SAFETY: a call without arguments.
    super::check(unsafe { libc::setsid() }).map(drop)
}

/// Sets the name that process listings show, at most 15 bytes.
pub(crate) fn set_name(name: &CStr) {
    // SAFETY: a C string. The call cannot fail with one.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Permissions that new files lack.
pub(crate) fn set_umask(mask: libc::mode_t) {
    // SAFETY: a call with an integer. It always succeeds.
    unsafe { libc::umask(mask) };
}

/// The soft limit that is in force.
pub(crate) fn limit(resource: libc::__rlimit_resource_t) -> io::Result<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `limit` has room for the result and is read after the call has written it.
    unsafe {
        super::check(libc::getrlimit(resource, limit.as_mut_ptr()))?;
        Ok(limit.assume_init().rlim_cur)
    }
}

/// Sets a limit as close to `soft` and `hard` as the inherited hard limit lets.
pub(crate) fn set_limit(
    resource: libc::__rlimit_resource_t,
    soft: u64,
    hard: u64,
) -> io::Result<()> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `limit` has room for the result and is read after the call has written it.
    unsafe {
        super::check(libc::getrlimit(resource, limit.as_mut_ptr()))?;
        let mut limit = limit.assume_init();
        limit.rlim_max = hard.min(limit.rlim_max);
        limit.rlim_cur = soft.min(limit.rlim_max);
        super::check(libc::setrlimit(resource, &raw const limit)).map(drop)
    }
}

/// Resource limits and what processes start with where nobody has set any.
const USUAL_LIMITS: [(libc::__rlimit_resource_t, u64); 9] = [
    (libc::RLIMIT_CPU, libc::RLIM_INFINITY),
    (libc::RLIMIT_FSIZE, libc::RLIM_INFINITY),
    (libc::RLIMIT_DATA, libc::RLIM_INFINITY),
    (libc::RLIMIT_STACK, 8 * 1024 * 1024),
    (libc::RLIMIT_RSS, libc::RLIM_INFINITY),
    (libc::RLIMIT_NPROC, libc::RLIM_INFINITY),
    (libc::RLIMIT_AS, libc::RLIM_INFINITY),
    (libc::RLIMIT_LOCKS, libc::RLIM_INFINITY),
    (libc::RLIMIT_RTTIME, libc::RLIM_INFINITY),
];

/// Undoes the resource limits that were inherited, as far as these may be raised.
pub(crate) fn reset_limits() -> io::Result<()> {
    for (resource, soft) in USUAL_LIMITS {
        let usual = libc::rlimit {
            rlim_cur: soft,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: `usual` lives until the call returns.
        if unsafe { libc::setrlimit(resource, &raw const usual) } == -1 {
            set_limit(resource, soft, libc::RLIM_INFINITY)?;
        }
    }
    Ok(())
}

/// Closes every descriptor from 3 on that is not in `keep`.
///
/// Whatever owned one of those closes a stranger's descriptor if it is dropped later; so call this only where
/// nothing of the kind is dropped any more.
pub(crate) fn close_all_but<F: AsRawFd>(keep: &[F]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_from(first)
}

/// Closes all descriptors from `first` on.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: closes descriptors that the caller of `close_all_but` gives up.
    super::check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Puts `null` in the place of standard input, output and error.
pub(crate) fn replace_stdio(null: BorrowedFd<'_>) -> io::Result<()> {
    for fd in 0..3 {
        // SAFETY: the standard descriptors are owned by nobody.
        super::check(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    }
    Ok(())
}

/// Takes over the descriptor that this process was started with at `number`.
///
/// # Errors
/// `EBADF` if there is none.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the only call is the first thing that the process does, so the descriptor, if it is open, came from
    // whoever started it and belongs to nobody here.
    unsafe {
        super::check(libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}
