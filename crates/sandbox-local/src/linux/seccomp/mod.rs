//! Compiles the system call policy to BPF: a binary search over the call's number, so that no call pays for the length
//! of the list, and so that the kernel's own check of the filter at installation stays short.

mod policy;

use std::sync::OnceLock;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
/// Success, without anything done.
const DONE: u32 = libc::SECCOMP_RET_ERRNO;
const EPROTONOSUPPORT: u32 = libc::SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32;
const EAFNOSUPPORT: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xc000_00f3;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Low half of the first arguments; the high half follows it.
const ARGUMENT_0: u32 = 16;
const ARGUMENT_1: u32 = 24;
const ARGUMENT_2: u32 = 32;
const HIGH_HALF: u32 = 4;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One BPF instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Op {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

fn op(code: u16, k: u32) -> Op {
    Op {
        code,
        if_true: 0,
        if_false: 0,
        k,
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Return(u32),
    /// Allowed unless the argument has one of these bits.
    WithoutBits(u32, u32),
    /// Allowed if the argument is one of these, else the given answer.
    OneOf(u32, &'static [u32], u32),
    /// Allowed unless the argument is one of these, which get the given answer.
    NoneOf(u32, &'static [u32], u32),
    /// Allowed unless it sets a limit that must stay.
    Limits,
    /// Allowed for some families and protocols.
    Sockets,
    /// Allowed unless the flags, the first argument here, make a file, and the mode, the second one, has a set-id bit.
    Opens(u32, u32),
}

/// Whether programs may make files that run as their owner or group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetId {
    /// The owner on disk is nobody of this machine.
    Allowed,
    /// The owner on disk may be somebody of this machine, as in a folder that is shared.
    Refused,
}

/// The filter for user code, as the bytes of a `struct sock_filter[]`.
pub(crate) fn filter(set_id: SetId) -> &'static [u8] {
    static FILTERS: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];
    FILTERS[set_id as usize].get_or_init(|| program(set_id).iter().flat_map(bytes).collect())
}

fn bytes(op: &Op) -> impl Iterator<Item = u8> + use<> {
    let [a, b] = op.code.to_ne_bytes();
    [a, b, op.if_true, op.if_false]
        .into_iter()
        .chain(op.k.to_ne_bytes())
}

fn program(set_id: SetId) -> Vec<Op> {
    let mut ops = vec![
        op(LOAD, ARCHITECTURE),
        // A call in another architecture's numbers means something else: nobody makes one by accident.
        Op {
            code: JUMP_EQUAL,
            if_true: 1,
            if_false: 0,
            k: ARCH,
        },
        op(RETURN, KILL),
        op(LOAD, NUMBER),
    ];
    ops.extend(search(&ranges(verdicts(set_id))));
    ops
}

fn verdicts(set_id: SetId) -> Vec<(u32, Verdict)> {
    let number = |call: libc::c_long| call as u32;
    let all = |calls: &[libc::c_long], verdict| {
        calls
            .iter()
            .map(|call| (number(*call), verdict))
            .collect::<Vec<_>>()
    };
    let mut verdicts = all(policy::ALLOWED, Verdict::Return(ALLOW));
    verdicts.extend(all(policy::ALLOWED_HERE, Verdict::Return(ALLOW)));
    verdicts.extend(all(policy::REFUSED, Verdict::Return(EPERM)));
    verdicts.extend([
        (
            number(libc::SYS_clone),
            Verdict::WithoutBits(ARGUMENT_0, policy::NEW_NAMESPACES),
        ),
        (
            number(libc::SYS_unshare),
            Verdict::WithoutBits(ARGUMENT_0, policy::NEW_NAMESPACES),
        ),
        (
            number(libc::SYS_personality),
            Verdict::OneOf(ARGUMENT_0, policy::PERSONALITIES, EPERM),
        ),
        (number(libc::SYS_socket), Verdict::Sockets),
        (
            number(libc::SYS_ioctl),
            Verdict::NoneOf(ARGUMENT_1, policy::REFUSED_IOCTLS, EPERM),
        ),
        (
            number(libc::SYS_setrlimit),
            Verdict::NoneOf(ARGUMENT_0, policy::FIXED_LIMITS, DONE),
        ),
        (number(libc::SYS_prlimit64), Verdict::Limits),
    ]);
    if set_id == SetId::Refused {
        let others = without_set_id();
        verdicts.retain(|(number, _)| others.iter().all(|(other, _)| other != number));
        verdicts.extend(others);
    }
    verdicts.sort_by_key(|(number, _)| *number);
    verdicts
}

/// What becomes of the calls that can set a set-id bit where none may be set.
fn without_set_id() -> Vec<(u32, Verdict)> {
    let modes = policy::MODES.iter().map(|(call, mode)| {
        let verdict = Verdict::WithoutBits(argument(*mode), policy::SET_ID);
        (*call as u32, verdict)
    });
    let opens = policy::OPENS.iter().map(|(call, flags, mode)| {
        let verdict = Verdict::Opens(argument(*flags), argument(*mode));
        (*call as u32, verdict)
    });
    // Its mode is in memory, which a filter does not see. Libraries fall back to `openat`.
    let unseen = (libc::SYS_openat2 as u32, Verdict::Return(ENOSYS));
    modes.chain(opens).chain([unseen]).collect()
}

/// Offset of the low half of an argument, counted from 0.
fn argument(index: u32) -> u32 {
    ARGUMENT_0 + 8 * index
}

/// The verdicts as ranges: each starts at its number and reaches to the next. Everything else does not exist, the calls
/// of x32 (from 0x4000_0000) and `clone3` (whose flags a filter cannot see; libraries fall back to `clone`) included.
fn ranges(verdicts: Vec<(u32, Verdict)>) -> Vec<(u32, Verdict)> {
    let missing = Verdict::Return(ENOSYS);
    let mut ranges = vec![(0, missing)];
    let mut push = |start: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((start, verdict)),
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if number > next {
            push(next, missing);
        }
        push(number, verdict);
        next = number + 1;
    }
    push(next, missing);
    ranges
}

/// A binary search for the range that the loaded number is in.
fn search(ranges: &[(u32, Verdict)]) -> Vec<Op> {
    if let [(_, verdict)] = ranges {
        return answer(*verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let low_ops = search(low);
    // A conditional jump reaches 255 instructions, an unconditional one as far as it must.
    let mut ops = vec![
        Op {
            code: JUMP_AT_LEAST,
            if_true: 0,
            if_false: 1,
            k: high[0].0,
        },
        op(JUMP, low_ops.len() as u32),
    ];
    ops.extend(low_ops);
    ops.extend(search(high));
    ops
}

fn answer(verdict: Verdict) -> Vec<Op> {
    let check = |argument, values: &[u32], listed, other| {
        let mut ops = vec![op(LOAD, argument)];
        for value in values {
            ops.extend([
                Op {
                    code: JUMP_EQUAL,
                    if_true: 0,
                    if_false: 1,
                    k: *value,
                },
                op(RETURN, listed),
            ]);
        }
        ops.push(op(RETURN, other));
        ops
    };
    match verdict {
        Verdict::Return(answer) => vec![op(RETURN, answer)],
        Verdict::WithoutBits(argument, bits) => vec![
            op(LOAD, argument),
            Op {
                code: JUMP_ANY_BIT,
                if_true: 0,
                if_false: 1,
                k: bits,
            },
            op(RETURN, EPERM),
            op(RETURN, ALLOW),
        ],
        Verdict::OneOf(argument, values, other) => check(argument, values, ALLOW, other),
        Verdict::NoneOf(argument, values, listed) => check(argument, values, listed, ALLOW),
        Verdict::Opens(flags, mode) => {
            let any = |bits, if_false| Op {
                code: JUMP_ANY_BIT,
                if_true: 0,
                if_false,
                k: bits,
            };
            vec![
                op(LOAD, flags),
                any(policy::MAKES, 3),
                op(LOAD, mode),
                any(policy::SET_ID, 1),
                op(RETURN, EPERM),
                op(RETURN, ALLOW),
            ]
        }
        Verdict::Limits => limits(),
        Verdict::Sockets => sockets(),
    }
}

/// Decides on `socket(family, type, protocol)`.
fn sockets() -> Vec<Op> {
    let mut ops = vec![op(LOAD, ARGUMENT_0)];
    for (family, protocols) in policy::SOCKETS {
        let of_family = if protocols.is_empty() {
            vec![op(RETURN, ALLOW)]
        } else {
            answer(Verdict::OneOf(ARGUMENT_2, protocols, EPROTONOSUPPORT))
        };
        ops.push(Op {
            code: JUMP_EQUAL,
            if_true: 0,
            if_false: of_family.len() as u8,
            k: *family,
        });
        ops.extend(of_family);
    }
    ops.push(op(RETURN, EAFNOSUPPORT));
    ops
}

/// Decides on `prlimit64(pid, resource, new, old)`: nothing of PID 1, and no new value for what is fixed.
fn limits() -> Vec<Op> {
    let if_equal = |k, if_true, if_false| Op {
        code: JUMP_EQUAL,
        if_true,
        if_false,
        k,
    };
    let mut ops = vec![
        op(LOAD, ARGUMENT_0),
        if_equal(policy::INIT, 0, 1),
        op(RETURN, EPERM),
        op(LOAD, ARGUMENT_1),
    ];
    for fixed in policy::FIXED_LIMITS {
        ops.extend([
            if_equal(*fixed, 0, 6),
            op(LOAD, ARGUMENT_2),
            if_equal(0, 0, 2),
            op(LOAD, ARGUMENT_2 + HIGH_HALF),
            if_equal(0, 1, 0),
            op(RETURN, DONE),
            op(RETURN, ALLOW),
        ]);
    }
    ops.push(op(RETURN, ALLOW));
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn run(arch: u32, number: u32, [first, second, third]: [u64; 3]) -> u32 {
        let program = program(SetId::Allowed);
        interpret(&program, arch, number, [first, second, third, 0])
    }

    fn interpret(program: &[Op], arch: u32, number: u32, arguments: [u64; 4]) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let op = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { op.if_true } else { op.if_false });
            match op.code {
                LOAD => {
                    accumulator = match op.k {
                        ARCHITECTURE => arch,
                        NUMBER => number,
                        offset => {
                            let argument = arguments[(offset - ARGUMENT_0) as usize / 8];
                            (argument >> (offset % 8 * 8)) as u32
                        }
                    }
                }
                JUMP => at += op.k as usize,
                JUMP_EQUAL => at += jump(accumulator == op.k),
                JUMP_AT_LEAST => at += jump(accumulator >= op.k),
                JUMP_ANY_BIT => at += jump(accumulator & op.k != 0),
                RETURN => return op.k,
                other => panic!("unknown code {other}"),
            }
        }
    }

    #[test]
    fn every_number_gets_the_verdict_of_the_policy() {
        let listed: std::collections::HashMap<_, _> =
            verdicts(SetId::Allowed).into_iter().collect();
        assert_eq!(
            listed.len(),
            verdicts(SetId::Allowed).len(),
            "a call is listed twice"
        );
        for number in (0..1024).chain([0x4000_0000, 0x4000_003b, u32::MAX]) {
            let expected = match listed.get(&number) {
                Some(Verdict::Return(answer)) => *answer,
                Some(_) => continue,
                None => ENOSYS,
            };
            assert_eq!(run(ARCH, number, [0; 3]), expected, "call {number}");
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let call = |number: libc::c_long, first: u64, second: u64| {
            run(ARCH, number as u32, [first, second, 0])
        };
        assert_eq!(call(libc::SYS_clone, libc::SIGCHLD as u64, 0), ALLOW);
        assert_eq!(call(libc::SYS_clone, libc::CLONE_NEWUSER as u64, 0), EPERM);
        assert_eq!(call(libc::SYS_unshare, libc::CLONE_NEWNS as u64, 0), EPERM);
        assert_eq!(call(libc::SYS_clone3, 0, 0), ENOSYS);
        assert_eq!(call(libc::SYS_socket, libc::AF_INET as u64, 0), ALLOW);
        assert_eq!(
            call(libc::SYS_socket, libc::AF_VSOCK as u64, 0),
            EAFNOSUPPORT
        );
        let socket = |family: i32, protocol| {
            run(ARCH, libc::SYS_socket as u32, [family as u64, 1, protocol])
        };
        assert_eq!(socket(libc::AF_UNIX, 9), ALLOW);
        assert_eq!(socket(libc::AF_INET, 6), ALLOW);
        assert_eq!(socket(libc::AF_INET6, 58), ALLOW);
        assert_eq!(socket(libc::AF_INET6, 132), EPROTONOSUPPORT);
        assert_eq!(socket(libc::AF_NETLINK, 0), ALLOW);
        assert_eq!(socket(libc::AF_NETLINK, 12), EPROTONOSUPPORT);
        assert_eq!(socket(libc::AF_PACKET, 0), EAFNOSUPPORT);
        assert_eq!(call(libc::SYS_ioctl, 0, libc::TIOCSTI), EPERM);
        assert_eq!(call(libc::SYS_ioctl, 0, libc::TIOCSTI | 1 << 32), EPERM);
        assert_eq!(call(libc::SYS_ioctl, 0, libc::TCGETS), ALLOW);
        assert_eq!(call(libc::SYS_personality, 0x40000, 0), EPERM);
        assert_eq!(call(libc::SYS_ptrace, 0, 0), EPERM);
    }

    #[test]
    fn limits_that_must_stay_are_read_but_not_set() {
        let set = |pid, resource: u32, new| {
            run(
                ARCH,
                libc::SYS_prlimit64 as u32,
                [pid, resource.into(), new],
            )
        };
        let (core, files) = (libc::RLIMIT_CORE, libc::RLIMIT_NOFILE);
        assert_eq!(set(1, files, 0), EPERM);
        assert_eq!(set(1 << 32 | 1, files, 0x1000), EPERM);
        assert_eq!(set(0, files, 0x1000), ALLOW);
        assert_eq!(set(7, files, 0x1000), ALLOW);
        assert_eq!(set(0, core, 0), ALLOW);
        assert_eq!(set(0, core, 0x1000), DONE);
        assert_eq!(set(7, core, 0x1000 << 32), DONE);
        let old = |resource: u32| {
            run(
                ARCH,
                libc::SYS_setrlimit as u32,
                [resource.into(), 0x1000, 0],
            )
        };
        assert_eq!((old(core), old(files)), (DONE, ALLOW));
    }

    #[test]
    fn set_id_bits_are_refused_where_their_owner_may_be_somebody() {
        let call = |set_id, number: libc::c_long, arguments| {
            interpret(&program(set_id), ARCH, number as u32, arguments)
        };
        let (make, temporary) = (libc::O_CREAT as u64, libc::O_TMPFILE as u64);
        let set = [
            (libc::SYS_fchmod, [3, 0o4755, 0, 0]),
            (libc::SYS_fchmodat, [3, 0x1000, 0o2755, 0]),
            (452, [3, 0x1000, 0o6000, 0]),
            (libc::SYS_mknodat, [3, 0x1000, 0o10_4755, 0]),
            (libc::SYS_openat, [3, 0x1000, make, 0o4755]),
            (libc::SYS_openat, [3, 0x1000, temporary, 0o2755]),
            #[cfg(target_arch = "x86_64")]
            (libc::SYS_chmod, [0x1000, 0o4755, 0, 0]),
            #[cfg(target_arch = "x86_64")]
            (libc::SYS_creat, [0x1000, 0o4755, 0, 0]),
            #[cfg(target_arch = "x86_64")]
            (libc::SYS_mknod, [0x1000, 0o10_2755, 0, 0]),
            #[cfg(target_arch = "x86_64")]
            (libc::SYS_open, [0x1000, make, 0o4755, 0]),
        ];
        for (number, arguments) in set {
            assert_eq!(call(SetId::Refused, number, arguments), EPERM, "{number}");
            assert_eq!(call(SetId::Allowed, number, arguments), ALLOW, "{number}");
            let plain = arguments.map(|value| value & !0o6000 | value & (make | temporary));
            assert_eq!(call(SetId::Refused, number, plain), ALLOW, "{number}");
        }
        // Whoever makes no file leaves anything in the place of the mode.
        let plain = [3, 0x1000, libc::O_DIRECTORY as u64, 0o6755];
        assert_eq!(call(SetId::Refused, libc::SYS_openat, plain), ALLOW);
        assert_eq!(call(SetId::Refused, libc::SYS_openat2, [0; 4]), ENOSYS);
        assert_eq!(call(SetId::Refused, libc::SYS_ptrace, [0; 4]), EPERM);
    }

    #[test]
    fn another_architecture_is_killed() {
        assert_eq!(run(0x4000_0003, 1, [0; 3]), KILL);
    }

    #[test]
    fn fits_the_kernel() {
        for set_id in [SetId::Allowed, SetId::Refused] {
            assert!(program(set_id).len() <= 4096);
            assert_eq!(filter(set_id).len(), program(set_id).len() * 8);
        }
    }
}
