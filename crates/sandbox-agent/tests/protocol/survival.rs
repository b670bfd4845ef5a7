//! Every message of the protocol survives its encoding, whatever its fields hold.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sandbox_agent::protocol::agent::{
    Event, Exit, Failure, Position, ProcessEntry, Request, Spawn,
};
use sandbox_agent::protocol::files::{Change, Entry, FileReply, FileRequest, Stat};
use sandbox_agent::protocol::sudo::{SudoControl, SudoReply, SudoRequest};
use sandbox_agent::protocol::zygote::{
    self, Configure, Create, Lower, Overlay, Owned, Reply, Rights, Rotate, Volume,
};
use sandbox_agent::protocol::{Blob, DecodeError, Limits, Wire};

fn blob() -> impl Strategy<Value = Blob> {
    vec(any::<u8>(), 0..20).prop_map(Blob)
}

fn blobs() -> impl Strategy<Value = Vec<Blob>> {
    vec(blob(), 0..4)
}

fn env() -> impl Strategy<Value = Vec<(Blob, Blob)>> {
    vec((blob(), blob()), 0..4)
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn user() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

fn mode() -> impl Strategy<Value = Option<u32>> {
    option::of(any::<u32>())
}

fn spawn() -> impl Strategy<Value = Spawn> {
    let who = (
        blobs(),
        env(),
        option::of(blob()),
        user(),
        option::of(text()),
    );
    let how = (
        any::<[bool; 3]>(),
        any::<Option<(u16, u16)>>(),
        any::<(u64, u64)>(),
    );
    (who, how).prop_map(
        |((argv, env, cwd, user, tag), (flags, pty, (timeout_ms, grace_ms)))| Spawn {
            argv,
            env,
            cwd,
            user,
            merge_stderr: flags[0],
            stdin: flags[1],
            pty,
            timeout_ms,
            grace_ms,
            tag,
        },
    )
}

fn position() -> impl Strategy<Value = Position> {
    prop_oneof![
        Just(Position::Now {}),
        Just(Position::Nothing {}),
        any::<u64>().prop_map(|at| Position::Cursor { at })
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        any::<u32>().prop_map(|version| Request::Info { version }),
        spawn().prop_map(|spawn| Request::Spawn { spawn }),
        (any::<u64>(), position()).prop_map(|(process, from)| Request::Attach { process, from }),
        Just(Request::List {}),
        any::<(u64, i32, bool)>().prop_map(|(process, signal, tree)| Request::Signal {
            process,
            signal,
            tree
        }),
        any::<(u64, u16, u16)>().prop_map(|(process, rows, columns)| Request::Resize {
            process,
            rows,
            columns
        }),
        blob().prop_map(|data| Request::Stdin { data }),
        Just(Request::CloseStdin {}),
        any::<u64>().prop_map(|remaining_ms| Request::SetLifetime { remaining_ms }),
        Just(Request::Detach {}),
        any::<bool>().prop_map(|watch| Request::Files { watch }),
        Just(Request::Shutdown {}),
        Just(Request::Pause {}),
        Just(Request::Hold {}),
        Just(Request::Claim {}),
        Just(Request::Places {}),
        Just(Request::Usage {}),
        Just(Request::Resume {}),
        any::<(bool, u64)>().prop_map(|(pauses, idle_ms)| Request::SetExpiry { pauses, idle_ms }),
        Just(Request::Share {}),
        any::<u64>().prop_map(|at| Request::Taken { at }),
        Just(Request::Network {}),
        any::<(u16, bool)>().prop_map(|(port, v6)| Request::Connect { port, v6 }),
    ]
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<i32>().prop_map(|code| Exit::Code { code }),
        any::<i32>().prop_map(|signal| Exit::Signal { signal }),
        Just(Exit::TimedOut {}),
        Just(Exit::OutOfMemory {}),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    prop::sample::select(vec![
        Failure::NotFound {},
        Failure::Invalid {},
        Failure::Denied {},
        Failure::Exhausted {},
        Failure::State {},
        Failure::Internal {},
        Failure::Unsupported {},
        Failure::Busy {},
    ])
}

fn process() -> impl Strategy<Value = ProcessEntry> {
    let what = (
        option::of(text()),
        blobs(),
        any::<bool>(),
        option::of(exit()),
    );
    (what, any::<(u64, u32, u64, u64)>()).prop_map(
        |((tag, argv, pty, exit), (process, pid, elapsed_ms, cursor))| ProcessEntry {
            process,
            pid,
            tag,
            argv,
            pty,
            exit,
            elapsed_ms,
            cursor,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let info = (text(), any::<(u32, u64, Option<u64>, u32, bool)>());
    prop_oneof![
        info.prop_map(
            |(name, (version, uptime_ms, remaining_ms, running, paused))| Event::Info {
                version,
                name,
                uptime_ms,
                remaining_ms,
                running,
                paused
            }
        ),
        any::<(u64, u32, u64)>().prop_map(|(process, pid, at)| Event::Started { process, pid, at }),
        (any::<(u8, u64)>(), blob()).prop_map(|((stream, at), data)| Event::Output {
            stream,
            at,
            data
        }),
        any::<u64>().prop_map(|bytes| Event::Lost { bytes }),
        Just(Event::StdinClosed {}),
        (exit(), any::<u64>()).prop_map(|(exit, at)| Event::Exited { exit, at }),
        vec(process(), 0..4).prop_map(|processes| Event::Processes { processes }),
        Just(Event::Done {}),
        (failure(), text()).prop_map(|(failure, message)| Event::Failed { failure, message }),
        option::of(any::<u64>()).prop_map(|processes| Event::Usage { processes }),
        Just(Event::Shared {}),
        any::<bool>().prop_map(|ipv6| Event::Network { ipv6 }),
        Just(Event::Connecting {}),
        any::<(u8, u64, u32)>().prop_map(|(stream, at, len)| Event::Kept { stream, at, len }),
    ]
}

fn stat() -> impl Strategy<Value = Stat> {
    let names = (user(), user(), option::of(blob()));
    (names, any::<(u32, u64, u32, u32, i64)>()).prop_map(
        |((user, group, target), (mode, size, uid, gid, modified_ms))| Stat {
            mode,
            size,
            uid,
            gid,
            modified_ms,
            user,
            group,
            target,
        },
    )
}

fn file_request() -> impl Strategy<Value = FileRequest> {
    let place = || (blob(), user());
    prop_oneof![
        (place(), any::<(u64, u64)>()).prop_map(|((path, user), (offset, len))| {
            FileRequest::Read {
                path,
                user,
                offset,
                len,
            }
        }),
        (place(), mode(), blob()).prop_map(|((path, user), mode, data)| FileRequest::Write {
            path,
            user,
            mode,
            data
        }),
        (place(), mode()).prop_map(|((path, user), mode)| FileRequest::Create { path, user, mode }),
        (place(), any::<bool>()).prop_map(|((path, user), follow)| FileRequest::Stat {
            path,
            user,
            follow
        }),
        (place(), any::<(u32, u64)>()).prop_map(|((path, user), (depth, limit))| {
            FileRequest::List {
                path,
                user,
                depth,
                limit,
            }
        }),
        (place(), mode(), any::<bool>()).prop_map(|((path, user), mode, parents)| {
            FileRequest::Mkdir {
                path,
                user,
                mode,
                parents,
            }
        }),
        (place(), blob()).prop_map(|((from, user), to)| FileRequest::Rename { from, to, user }),
        (place(), any::<bool>()).prop_map(|((path, user), recursive)| FileRequest::Remove {
            path,
            user,
            recursive
        }),
        (place(), mode(), user()).prop_map(|((path, user), mode, owner)| {
            FileRequest::SetPermissions {
                path,
                user,
                mode,
                owner,
            }
        }),
        (place(), blob()).prop_map(|((path, user), target)| FileRequest::Symlink {
            path,
            user,
            target
        }),
        (place(), any::<bool>()).prop_map(|((path, user), recursive)| FileRequest::Watch {
            path,
            user,
            recursive
        }),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        blob().prop_map(|path| Change::Created { path }),
        blob().prop_map(|path| Change::Written { path }),
        blob().prop_map(|path| Change::Attributes { path }),
        blob().prop_map(|path| Change::Removed { path }),
        Just(Change::Lost {}),
    ]
}

fn file_reply() -> impl Strategy<Value = FileReply> {
    let entry = (blob(), stat()).prop_map(|(path, stat)| Entry { path, stat });
    prop_oneof![
        (blob(), any::<u64>()).prop_map(|(data, size)| FileReply::Data { data, size }),
        any::<u64>().prop_map(|size| FileReply::Opened { size }),
        stat().prop_map(|stat| FileReply::Stat { stat }),
        vec(entry, 0..4).prop_map(|entries| FileReply::Entries { entries }),
        Just(FileReply::Done {}),
        (any::<i32>(), text()).prop_map(|(errno, message)| FileReply::Failed { errno, message }),
        vec(change(), 0..4).prop_map(|changes| FileReply::Changes { changes }),
    ]
}

fn create() -> impl Strategy<Value = Create> {
    let lower = (blob(), any::<bool>()).prop_map(|(path, stored)| Lower { path, stored });
    let overlay = (blob(), vec(lower, 0..4), blob(), blob(), blob()).prop_map(
        |(target, lowers, store, upper, work)| Overlay {
            target,
            lowers,
            store,
            upper,
            work,
        },
    );
    let parts = (text(), vec(overlay, 0..4), env(), blob());
    let numbers = (any::<[u32; 4]>(), any::<[u64; 2]>(), any::<[bool; 3]>());
    (parts, numbers).prop_map(
        |((name, overlays, env, seccomp), (small, large, flags))| Create {
            name,
            uid_base: small[0],
            uid_count: small[1],
            first_uid: small[3],
            volumes: overlays
                .iter()
                .map(|overlay| Volume {
                    target: overlay.target.clone(),
                    path: overlay.store.clone(),
                    read_only: flags[0],
                    uid: small[0],
                    gid: small[1],
                })
                .collect(),
            overlays,
            tmpfs_size: large[0],
            max_processes: large[0],
            env,
            limits: flags[1].then_some(Limits {
                memory: large[0],
                cpu_millis: large[1],
                processes: 0,
            }),
            lifetime_ms: large[1],
            owned: flags[0],
            seccomp,
            process_cgroup: flags[1],
            oom_counter: flags[2],
            captured: flags[2],
            weaken: small[2],
        },
    )
}

fn sudo_request() -> impl Strategy<Value = SudoRequest> {
    (blobs(), env(), user(), any::<bool>()).prop_map(|(argv, env, user, cwd)| SudoRequest {
        argv,
        env,
        user,
        cwd,
    })
}

/// The message comes back, and neither a part of it nor more than it is taken for one.
fn check<T: Wire + PartialEq + std::fmt::Debug>(message: &T) -> Result<(), TestCaseError> {
    let bytes = message.encode();
    let decoded = T::decode(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(message));
    for len in 0..bytes.len() {
        prop_assert!(T::decode(&bytes[..len]).is_err());
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    prop_assert_eq!(T::decode(&longer), Err(DecodeError::Trailing));
    Ok(())
}

proptest! {
    #[test]
    fn requests_survive(message in request()) {
        check(&message)?;
    }

    #[test]
    fn events_survive(message in event()) {
        check(&message)?;
    }

    #[test]
    fn file_messages_survive(request in file_request(), reply in file_reply()) {
        check(&request)?;
        check(&reply)?;
    }

    #[test]
    fn zygote_messages_survive(message in create(), other in (any::<(u32, u32)>(), blob(), text(), any::<i32>())) {
        let ((version, number), staging, step, errno) = other;
        let overlays = message.overlays.clone();
        let rotate = Rotate { uid_base: number, uid_count: version, overlays, generation: version };
        check(&zygote::Request::Rotate { rotate })?;
        check(&zygote::Request::Create { create: message })?;
        check(&Rights::User {})?;
        check(&Rights::Subordinate { count: number })?;
        check(&Configure { version, rights: Rights::Root { storage_base: number }, join: errno > 0, staging: staging.clone() })?;
        check(&Reply::Ready { version })?;
        let others = vec![Owned { path: staging.clone(), uid: version, gid: number }];
        check(&zygote::Request::Give { path: staging.clone(), others })?;
        let file = zygote::OwnedFile { inode: number.into(), uid: version, gid: number, mode: 0o755 };
        check(&zygote::Owners { files: vec![file] })?;
        let from = vec![staging.clone()];
        check(&zygote::Request::Copy { from, to: staging.clone(), bytes: number.into(), files: 1 })?;
        check(&Reply::Copied { bytes: number.into(), files: 1 })?;
        check(&zygote::Request::Move { from: staging.clone(), to: staging.clone() })?;
        check(&zygote::Request::Remove { path: staging.clone() })?;
        check(&zygote::Request::Measure { path: staging.clone(), most_files: number.into() })?;
        check(&Reply::Measured { bytes: number.into(), files: 1, is_whole: errno > 0 })?;
        check(&Reply::Created { pid: number })?;
        check(&Reply::Failed { step, errno })?;
    }

    #[test]
    fn sudo_messages_survive(message in sudo_request(), signal: i32, code: i32, text in text()) {
        check(&message)?;
        check(&SudoControl::Signal { signal })?;
        check(&SudoReply::Ended { code, message: text })?;
    }
}

#[test]
fn lengths_that_lie_take_no_memory() {
    // A list of 4,294,967,295 processes.
    assert_eq!(
        Event::decode(&[6, 255, 255, 255, 255]),
        Err(DecodeError::Truncated)
    );
    // A program name as long.
    assert_eq!(
        Request::decode(&[1, 1, 0, 0, 0, 255, 255, 255, 255]),
        Err(DecodeError::Truncated)
    );
}
