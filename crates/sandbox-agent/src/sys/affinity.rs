//! Which processors a process may run on.

#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::mem;

/// Most processors that are looked at.
const MOST: usize = libc::CPU_SETSIZE as usize;

/// The processors that this process may run on, by their numbers.
pub(crate) fn processors() -> io::Result<Vec<usize>> {
    // SAFETY: a set of processors is a plain array of bits, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is ours and as long as the call is told.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every number is below the size of the set.
    let is_in = |number: &usize| unsafe { libc::CPU_ISSET(*number, &set) };
    Ok((0..MOST).filter(is_in).collect())
}

/// Lets the process `pid`, 0 for this one, run on these processors only.
pub(crate) fn run_on(pid: u32, processors: &[usize]) -> io::Result<()> {
    // SAFETY: a set of processors is a plain array of bits, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for number in processors.iter().filter(|number| **number < MOST) {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(*number, &mut set) };
    }
    // SAFETY: the set is ours and as long as the call is told.
    let result = unsafe {
        libc::sched_setaffinity(
            pid.cast_signed(),
            size_of::<libc::cpu_set_t>(),
            &raw const set,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A number to begin at, so that not all begin at the same processor.
pub(crate) fn anywhere() -> u16 {
    let mut random = [0; 2];
    // SAFETY: the kernel writes two bytes at most. Where it has none to give, one place is as good as another.
    unsafe {
        libc::getrandom(
            random.as_mut_ptr().cast(),
            random.len(),
            libc::GRND_NONBLOCK,
        )
    };
    u16::from_ne_bytes(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_the_processors_it_was_given() {
        let all = processors().unwrap();
        run_on(0, &all[..1]).unwrap();
        assert_eq!(processors().unwrap(), all[..1]);
        run_on(0, &all).unwrap();
        assert_eq!(processors().unwrap(), all);
        assert!(run_on(0, &[]).is_err());
    }
}
