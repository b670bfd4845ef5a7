//! System calls that have been ways out, or act on the whole machine.

use crate::{
    attempt::attempt,
    lab::{Lab, Who},
};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, SECCOMP};

/// Refused by the filter alone.
fn filtered(code: &str, done: &str) {
    attempt(code)
        .fails("EPERM")
        .works_without(SECCOMP, Who::User, done);
}

/// Refused by the filter alone, where the kernel has it at all.
fn filtered_if_there(code: &str, done: &str) {
    attempt(code)
        .fails("EPERM")
        .works_without_as_on_host(SECCOMP, Who::User, done);
}

/// Only the host's root may, if the kernel has it: neither filter nor capabilities inside matter. Everywhere the call is
/// made to fail.
fn roots_alone(code: &str) {
    let tried = attempt(code).fails("EPERM");
    if tried.on_host() == "permitted" {
        tried.still_fails_without(SECCOMP | CAPABILITIES, Who::Root, "EPERM");
    }
}

#[test]
fn tracing() {
    filtered(
        "in_child(lambda: call('ptrace', 0, 0, 0, 0)); return 'traced'",
        "traced",
    );
}

#[test]
fn reading_another_process() {
    let code = r#"
        class Piece(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
        there, here = ctypes.create_string_buffer(b"secret"), ctypes.create_string_buffer(6)
        piece = lambda buffer: ctypes.byref(Piece(ctypes.addressof(buffer), 6))
        call("process_vm_readv", os.getpid(), piece(here), 1, piece(there), 1, 0)
        return here.raw.decode()
    "#;
    filtered(code, "secret");
    filtered(
        &code
            .replace("_readv", "_writev")
            .replace("here.raw", "there.raw[:6].replace(bytes(6), b'erased')"),
        "erased",
    );
}

#[test]
fn taking_descriptors_of_another_process() {
    filtered(
        "call('pidfd_getfd', call('pidfd_open', os.getpid(), 0), 1, 0); return 'taken'",
        "taken",
    );
}

#[test]
fn programs_in_the_kernel() {
    let code = "call('bpf', 0, struct.pack('4I', 2, 4, 4, 1) + bytes(104), 120); return 'made'";
    attempt(code).fails("EPERM").works_on_host("made");
}

#[test]
fn measuring_the_machine() {
    let code = r#"
        attributes = struct.pack("2I5Q", 1, 64, 1, 0, 0, 0, 0x60) + bytes(16)
        call("perf_event_open", attributes, 0, -1, -1, 0)
        return "opened"
    "#;
    attempt(code).fails("EPERM").works_on_host("opened");
}

#[test]
fn handling_page_faults() {
    filtered_if_there("call('userfaultfd', 1); return 'open'", "open");
}

#[test]
fn a_ring_of_calls_past_the_filter() {
    filtered_if_there(
        "call('io_uring_setup', 4, bytes(120)); return 'open'",
        "open",
    );
}

#[test]
fn adding_a_key() {
    filtered(
        "call('add_key', b'user', b'mine', b'payload', 7, -2); return 'added'",
        "added",
    );
}

#[test]
fn asking_for_a_key() {
    filtered(
        "call('request_key', b'user', b'absent', None, 0); return 'got it'",
        "ENOKEY",
    );
}

#[test]
fn a_keyring() {
    filtered("call('keyctl', 0, -2, 1); return 'made'", "made");
}

#[test]
fn secret_memory() {
    filtered_if_there("call('memfd_secret', 0); return 'made'", "made");
}

#[test]
fn watching_all_files() {
    filtered("call('fanotify_init', 0x200, 0); return 'open'", "open");
}

#[test]
fn the_clocks_rate() {
    filtered(
        "call('adjtimex', ctypes.create_string_buffer(512)); return 'read'",
        "read",
    );
}

#[test]
fn another_layout_of_memory() {
    filtered(
        "call('personality', 0x0040000); return 'changed'",
        "changed",
    );
}

#[test]
fn loading_a_module() {
    roots_alone("return permitted('init_module', None, 0, None)");
    roots_alone("return permitted('finit_module', -1, b'', 0)");
}

#[test]
fn removing_a_module() {
    roots_alone("return permitted('delete_module', b'no-such-module', 0x800)");
}

#[test]
fn a_swap_file() {
    roots_alone("return permitted('swapon', b'/no/such/file', 0)");
    roots_alone("return permitted('swapoff', b'/no/such/file')");
}

#[test]
fn accounting() {
    roots_alone("return permitted('acct', b'/no/such/file')");
}

#[test]
fn the_time_of_day() {
    // The monotonic clock cannot be set by anybody.
    attempt("return permitted('clock_settime', 1, bytes(16))")
        .fails("EPERM")
        .works_without(SECCOMP, Who::User, "permitted");
    attempt("return permitted('settimeofday', struct.pack('2q', 0, 10 ** 7), None)")
        .fails("EPERM")
        .works_without(SECCOMP, Who::User, "permitted");
}

#[test]
fn quotas() {
    attempt("return permitted('quotactl', 0x80000100, b'/no/such/disk', 0, None)")
        .fails("EPERM")
        .works_without(SECCOMP, Who::User, "permitted");
}

#[test]
fn the_kernels_log() {
    attempt("call('syslog', 10, 0, 0); return 'asked'")
        .fails("EPERM")
        .works_on_host("asked");
}

#[test]
fn another_kernel() {
    // Not tried on the host, and nobody inside may: that it is refused is all that can be shown.
    attempt("return permitted('kexec_load', 0, 0, None, 0xffff)").fails("EPERM");
}

/// Turns the machine off. In a sandbox that may, the kernel ends the sandbox instead.
const OFF: &str = "call('reboot', 0xfee1dead, 672274793, 0x4321fedc, None); return 'off'";

#[test]
fn turning_the_machine_off() {
    attempt(OFF)
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::Root, "EPERM");
}

#[tokio::test]
async fn turning_the_machine_off_ends_the_sandbox_at_most() {
    use sandbox_core::{ErrorKind, SandboxExt};
    let sandbox = Lab::without(SECCOMP | CAPABILITIES).sandbox().await;
    let code = crate::lab::command(Who::Root, OFF, &[]);
    let ended = crate::lab::in_time(sandbox.exec(code)).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::SandboxNotFound);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    #[test]
    fn calls_by_the_numbers_of_32_bits() {
        let code = r#"
            import mmap
            # mov eax, 20 (getpid); int 0x80; ret
            page = mmap.mmap(-1, 4096, prot=7)
            page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
            function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
            return "called" if function() == os.getpid() else "nothing"
        "#;
        attempt(code)
            .fails("ended by signal 31")
            .works_without(SECCOMP, Who::User, "called");
    }

    #[test]
    fn calls_by_the_numbers_of_x32() {
        // getpid. Where the kernel has no x32, nobody can make such a call.
        attempt("return call(0x40000000 | 39) == os.getpid()")
            .fails("ENOSYS")
            .works_without_as_on_host(SECCOMP, Who::User, "True");
    }

    #[test]
    fn segments() {
        // modify_ldt
        attempt("call(154, 0, ctypes.create_string_buffer(16), 16); return 'read'")
            .fails("ENOSYS")
            .works_without_as_on_host(SECCOMP, Who::User, "read");
    }

    #[test]
    fn ports_of_devices() {
        // iopl and ioperm. Without the filter nobody inside may either, and the host is not asked.
        for number in [172, 173] {
            attempt(format!("call({number}, 3, 1, 1); return 'allowed'")).fails("ENOSYS");
        }
    }
}
