//! Who this process is and what it may do: ids, capabilities, and the flags that go with them.

#![expect(unsafe_code, reason = "set*id(2), capset(2) and prctl(2)")]

use std::io;
use std::ptr;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// `struct __user_cap_header_struct` of `linux/capability.h`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct` of `linux/capability.h`; two of them hold 64 bits.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Effective user and group.
pub(crate) fn effective_ids() -> (u32, u32) {
    // SAFETY: plain calls that cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Takes these groups beside the first one.
///
/// Where nobody can change groups, since the user namespace was made without any right to, there are none to take and
/// the inherited ones stay: the kernel lets no process be rid of groups that way.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: `groups` lives until the call returns. The raw call changes this thread only.
    let result =
        super::check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) });
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && groups.is_empty() => {
            match std::fs::read("/proc/self/setgroups") {
                Ok(rule) if rule.starts_with(b"deny") => Ok(()),
                _ => Err(error),
            }
        }
        result => result.map(drop),
    }
}

/// Becomes user and group 0 of this user namespace, without other groups.
pub(crate) fn become_root() -> io::Result<()> {
    set_groups(&[])?;
    // SAFETY: calls with integers. The raw calls change this thread only, which is the only one there is.
    unsafe {
        super::check(libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        super::check(libc::syscall(libc::SYS_setresuid, 0, 0, 0)).map(drop)
    }
}

/// Acts on files as user and group `id` and keeps every capability it has in effect.
///
/// # Errors
/// `PermissionDenied` if the id did not change, which the calls themselves do not say.
pub(crate) fn act_on_files_as(id: u32) -> io::Result<()> {
    // SAFETY: calls with integers. An id of -1 changes nothing and returns the current one.
    unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
        let now = (libc::setfsgid(u32::MAX), libc::setfsuid(u32::MAX));
        if now != (id.cast_signed(), id.cast_signed()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    // The change has dropped (or given back) the capabilities over files from the effective set.
    put_all_in_effect()
}

fn put_all_in_effect() -> io::Result<()> {
    let mut data = capabilities()?;
    for half in &mut data {
        half.effective = half.permitted;
    }
    set_capabilities(&data)
}

/// Acts as user `id`, in everything but its real and saved ids, and keeps every capability it has in effect.
pub(crate) fn act_as(id: u32) -> io::Result<()> {
    const SAME: libc::uid_t = libc::uid_t::MAX;
    // SAFETY: a call with integers. The raw call changes this thread only, which is the only one there is.
    super::check(unsafe { libc::syscall(libc::SYS_setresuid, SAME, id, SAME) })?;
    put_all_in_effect()
}

/// Takes all capabilities from this process, so that what it runs has none either.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    clear_ambient()?;
    set_capabilities(&[CapabilityData::default(); 2])
}

fn clear_ambient() -> io::Result<()> {
    let (option, clear) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL);
    // SAFETY: prctl(2) with integers.
    super::check(unsafe { libc::prctl(option, clear, 0, 0, 0) }).map(drop)
}

/// Reduces what this process and all it ever runs can do to the capabilities in `keep`, one bit each. Those in `hold`
/// it holds besides, without effect, and nothing that it runs does.
pub(crate) fn limit_capabilities(keep: u64, hold: u64) -> io::Result<()> {
    // SAFETY: prctl(2) with integers.
    unsafe {
        for capability in 0..64 {
            if keep & (1 << capability) != 0 {
                continue;
            }
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                let error = io::Error::last_os_error();
                // The first number that the kernel does not know.
                if error.raw_os_error() == Some(libc::EINVAL) {
                    break;
                }
                return Err(error);
            }
        }
    }
    clear_ambient()?;
    let half = |shift: u32| CapabilityData {
        effective: (keep >> shift) as u32,
        permitted: ((keep | hold) >> shift) as u32,
        inheritable: 0,
    };
    set_capabilities(&[half(0), half(32)])
}

/// Leaves the session keyring that was inherited for a new, empty one. Nothing to leave where there are no keyrings.
pub(crate) fn leave_session_keyring() -> io::Result<()> {
    let no_name = ptr::null::<libc::c_char>();
    // SAFETY: no name is given, so no memory is read.
    match super::check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name)
    }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.map(drop),
    }
}

fn capabilities() -> io::Result<[CapabilityData; 2]> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 writes two elements, which `data` has.
    super::check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    Ok(data)
}

fn set_capabilities(data: &[CapabilityData; 2]) -> io::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    // SAFETY: version 3 reads two elements, which `data` has.
    super::check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
        .map(drop)
}
