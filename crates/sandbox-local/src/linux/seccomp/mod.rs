//! Compiles the system call policy to BPF: a binary search over the call's number, so that no call pays for the length
//! of the list, and so that the kernel's own check of the filter at installation stays short.

mod policy;

use std::sync::OnceLock;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
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
/// Low half of the first and the second argument.
const ARGUMENT_0: u32 = 16;
const ARGUMENT_1: u32 = 24;

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
    /// Allowed unless the argument is one of these.
    NoneOf(u32, &'static [u32]),
}

/// The filter for user code, as the bytes of a `struct sock_filter[]`.
pub(crate) fn filter() -> &'static [u8] {
    static FILTER: OnceLock<Vec<u8>> = OnceLock::new();
    FILTER.get_or_init(|| program().iter().flat_map(bytes).collect())
}

fn bytes(op: &Op) -> impl Iterator<Item = u8> + use<> {
    let [a, b] = op.code.to_ne_bytes();
    [a, b, op.if_true, op.if_false]
        .into_iter()
        .chain(op.k.to_ne_bytes())
}

fn program() -> Vec<Op> {
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
    ops.extend(search(&ranges()));
    ops
}

fn verdicts() -> Vec<(u32, Verdict)> {
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
        (
            number(libc::SYS_socket),
            Verdict::OneOf(ARGUMENT_0, policy::FAMILIES, EAFNOSUPPORT),
        ),
        (
            number(libc::SYS_ioctl),
            Verdict::NoneOf(ARGUMENT_1, policy::REFUSED_IOCTLS),
        ),
    ]);
    verdicts.sort_by_key(|(number, _)| *number);
    verdicts
}

/// The verdicts as ranges: each starts at its number and reaches to the next. Everything else does not exist, the calls
/// of x32 (from 0x4000_0000) and `clone3` (whose flags a filter cannot see; libraries fall back to `clone`) included.
fn ranges() -> Vec<(u32, Verdict)> {
    let missing = Verdict::Return(ENOSYS);
    let mut ranges = vec![(0, missing)];
    let mut push = |start: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((start, verdict)),
    };
    let mut next = 0;
    for (number, verdict) in verdicts() {
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
        Verdict::NoneOf(argument, values) => check(argument, values, EPERM, ALLOW),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn run(arch: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let program = program();
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
                        ARGUMENT_0 => arguments[0],
                        ARGUMENT_1 => arguments[1],
                        other => panic!("loads from {other}"),
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
        let listed: std::collections::HashMap<_, _> = verdicts().into_iter().collect();
        assert_eq!(listed.len(), verdicts().len(), "a call is listed twice");
        for number in (0..1024).chain([0x4000_0000, 0x4000_003b, u32::MAX]) {
            let expected = match listed.get(&number) {
                Some(Verdict::Return(answer)) => *answer,
                Some(_) => continue,
                None => ENOSYS,
            };
            assert_eq!(run(ARCH, number, [0, 0]), expected, "call {number}");
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let call = |number: libc::c_long, arguments| run(ARCH, number as u32, arguments);
        assert_eq!(call(libc::SYS_clone, [libc::SIGCHLD as u32, 0]), ALLOW);
        assert_eq!(
            call(libc::SYS_clone, [libc::CLONE_NEWUSER as u32, 0]),
            EPERM
        );
        assert_eq!(
            call(libc::SYS_unshare, [libc::CLONE_NEWNS as u32, 0]),
            EPERM
        );
        assert_eq!(call(libc::SYS_clone3, [0, 0]), ENOSYS);
        assert_eq!(call(libc::SYS_socket, [libc::AF_INET as u32, 0]), ALLOW);
        assert_eq!(
            call(libc::SYS_socket, [libc::AF_VSOCK as u32, 0]),
            EAFNOSUPPORT
        );
        assert_eq!(call(libc::SYS_ioctl, [0, libc::TIOCSTI as u32]), EPERM);
        assert_eq!(call(libc::SYS_ioctl, [0, libc::TCGETS as u32]), ALLOW);
        assert_eq!(call(libc::SYS_personality, [0x40000, 0]), EPERM);
        assert_eq!(call(libc::SYS_ptrace, [0, 0]), EPERM);
    }

    #[test]
    fn another_architecture_is_killed() {
        assert_eq!(run(0x4000_0003, 1, [0, 0]), KILL);
    }

    #[test]
    fn fits_the_kernel() {
        assert!(program().len() <= 4096);
        assert_eq!(filter().len(), program().len() * 8);
    }
}
