//! Encodings of valid messages: every variant of every kind, with every field filled.

use sandbox_agent::protocol::{
    Blob, Limits, Wire,
    agent::{Event, Exit, Failure, Position, ProcessEntry, Request, Spawn},
    files::{Change, Entry, FileReply, FileRequest, Stat},
    sudo::{SudoControl, SudoReply, SudoRequest},
    zygote::{
        Configure, Create, Lower, Overlay, Owned, Reply, Request as ZygoteRequest, Rights, Rotate,
        Volume,
    },
};

/// Index of the kind in `oracle::KINDS`, and a message's bytes.
pub(crate) type Sample = (u8, Vec<u8>);

/// All samples.
pub(crate) fn all() -> Vec<Sample> {
    let mut samples = vec![(0, configure().encode()), (7, sudo().encode())];
    samples.push((8, SudoControl::Signal { signal: 15 }.encode()));
    let message = "no such program".to_owned();
    samples.push((9, SudoReply::Ended { code: 127, message }.encode()));
    samples.extend(
        zygote_requests()
            .iter()
            .map(|request| (1, request.encode())),
    );
    samples.extend(replies().iter().map(|reply| (2, reply.encode())));
    samples.extend(requests().iter().map(|request| (3, request.encode())));
    samples.extend(events().iter().map(|event| (4, event.encode())));
    samples.extend(file_requests().iter().map(|request| (5, request.encode())));
    samples.extend(file_replies().iter().map(|reply| (6, reply.encode())));
    samples
}

fn blobs(texts: &[&str]) -> Vec<Blob> {
    texts.iter().map(|text| Blob::from(*text)).collect()
}

fn env() -> Vec<(Blob, Blob)> {
    vec![("HOME".into(), "/root".into()), ("LANG".into(), "C".into())]
}

fn configure() -> Configure {
    Configure {
        version: 1,
        rights: Rights::Root {
            storage_base: 0x7000_0000,
        },
        join: false,
        staging: "/srv/staging".into(),
    }
}

fn limits() -> Limits {
    Limits {
        memory: 2 << 30,
        cpu_millis: 1500,
        processes: 512,
    }
}

fn overlay() -> Overlay {
    Overlay {
        target: "/".into(),
        lowers: vec![
            Lower {
                path: "/srv/changes".into(),
                stored: true,
            },
            Lower {
                path: "/usr".into(),
                stored: false,
            },
        ],
        store: "/srv/store".into(),
        upper: "u0".into(),
        work: "w0".into(),
    }
}

fn rotate() -> Rotate {
    Rotate {
        uid_base: 0x7001_0000,
        uid_count: 65_536,
        overlays: vec![overlay()],
        generation: 3,
    }
}

fn create() -> Create {
    Create {
        name: "s234".into(),
        uid_base: 0x7001_0000,
        uid_count: 65_536,
        first_uid: 0,
        overlays: vec![overlay()],
        volumes: vec![Volume {
            target: "/data".into(),
            path: "/srv/data".into(),
            read_only: true,
            uid: 1000,
            gid: 1000,
        }],
        tmpfs_size: 64 << 20,
        max_processes: 0,
        env: env(),
        limits: Some(limits()),
        lifetime_ms: 3_600_000,
        owned: true,
        seccomp: Blob(vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f]),
        process_cgroup: true,
        oom_counter: false,
        captured: true,
        weaken: 0,
    }
}

fn zygote_requests() -> [ZygoteRequest; 8] {
    let path = || Blob::from("/state/x");
    let others = vec![Owned {
        path: "etc/shadow".into(),
        uid: 0,
        gid: 42,
    }];
    [
        ZygoteRequest::Create { create: create() },
        ZygoteRequest::Rotate { rotate: rotate() },
        ZygoteRequest::Mapped {},
        ZygoteRequest::Remove { path: path() },
        ZygoteRequest::Give {
            path: path(),
            others,
        },
        ZygoteRequest::Measure {
            path: path(),
            most_files: 500_000,
        },
        ZygoteRequest::Move {
            from: path(),
            to: path(),
        },
        ZygoteRequest::Copy {
            from: vec![path()],
            to: path(),
            bytes: 1 << 30,
            files: 500_000,
        },
    ]
}

fn replies() -> [Reply; 10] {
    let step = "mount the overlay".to_owned();
    [
        Reply::Ready { version: 1 },
        Reply::Created { pid: 4711 },
        Reply::Failed { step, errno: 22 },
        Reply::Rotated {},
        Reply::Busy {},
        Reply::Unmapped {},
        Reply::Done {},
        Reply::Measured {
            bytes: 4096,
            files: 1,
            is_whole: true,
        },
        Reply::Elsewhere {},
        Reply::Copied { bytes: 1, files: 2 },
    ]
}

fn spawn() -> Spawn {
    Spawn {
        argv: blobs(&["sh", "-c", "exit 3"]),
        env: env(),
        cwd: Some("/home/user".into()),
        user: Some("root".into()),
        merge_stderr: true,
        stdin: true,
        pty: Some((24, 80)),
        timeout_ms: 1000,
        grace_ms: 2000,
        tag: Some("build".into()),
    }
}

fn requests() -> Vec<Request> {
    let data = Blob(vec![0, 1, 0xff]);
    let (rows, columns) = (24, 80);
    vec![
        Request::Info { version: 1 },
        Request::Spawn { spawn: spawn() },
        Request::Attach {
            process: 7,
            from: Position::Now {},
        },
        Request::Attach {
            process: 7,
            from: Position::Cursor { at: 1 << 40 },
        },
        Request::List {},
        Request::Signal {
            process: 7,
            signal: 9,
            tree: true,
        },
        Request::Resize {
            process: 7,
            rows,
            columns,
        },
        Request::Stdin { data },
        Request::CloseStdin {},
        Request::SetLifetime { remaining_ms: 5 },
        Request::Detach {},
        Request::Files { watch: true },
        Request::Shutdown {},
        Request::Wait {},
        Request::Begin {
            env: env(),
            lifetime_ms: 5,
            max_processes: 0,
            limits: limits(),
        },
        Request::Pause {},
        Request::Hold {},
        Request::Claim {},
        Request::Places {},
        Request::Usage {},
        Request::Resume {},
        Request::SetExpiry {
            pauses: true,
            idle_ms: 60_000,
        },
        Request::Share {},
        Request::Taken { at: 5 },
        Request::Network {},
        Request::Connect {
            port: 8000,
            v6: true,
        },
    ]
}

fn entry(exit: Option<Exit>) -> ProcessEntry {
    ProcessEntry {
        process: 7,
        pid: 12,
        tag: Some("build".into()),
        argv: blobs(&["sleep", "60"]),
        pty: false,
        exit,
        elapsed_ms: 1234,
        cursor: 99,
    }
}

fn events() -> Vec<Event> {
    let exits = [
        Exit::Code { code: 3 },
        Exit::Signal { signal: 9 },
        Exit::TimedOut {},
        Exit::OutOfMemory {},
    ];
    let failures = [
        Failure::NotFound {},
        Failure::Invalid {},
        Failure::Denied {},
        Failure::Exhausted {},
        Failure::State {},
        Failure::Internal {},
        Failure::Unsupported {},
        Failure::Busy {},
    ];
    let failed = |failure| Event::Failed {
        failure,
        message: "no such process".into(),
    };
    let mut events: Vec<_> = failures.into_iter().map(failed).collect();
    events.extend([Some(3), None].map(|processes| Event::Usage { processes }));
    let (stream, at, len) = (2, 5, 70_000);
    events.extend([Event::Shared {}, Event::Kept { stream, at, len }]);
    events.extend([
        Event::Network { ipv6: true },
        Event::Connecting {},
        Event::Places {},
    ]);
    let exited = |exit: &Exit| Event::Exited {
        exit: exit.clone(),
        at: 5,
    };
    events.extend(exits.iter().map(exited));
    let entries = exits.into_iter().map(Some).chain([None]).map(entry);
    events.extend([
        Event::Info {
            version: 1,
            name: "s234".into(),
            uptime_ms: 1,
            remaining_ms: Some(2),
            running: 3,
            paused: true,
        },
        Event::Started {
            process: 7,
            pid: 12,
            at: 3,
        },
        Event::Output {
            stream: 1,
            at: 5,
            data: Blob(vec![0xff; 9]),
        },
        Event::Lost { bytes: 4096 },
        Event::StdinClosed {},
        Event::Processes {
            processes: entries.collect(),
        },
        Event::Done {},
    ]);
    events
}

fn stat() -> Stat {
    Stat {
        mode: 0o120_777,
        size: 4,
        uid: 1000,
        gid: 1000,
        modified_ms: -1,
        user: Some("user".into()),
        group: Some("user".into()),
        target: Some("../x".into()),
    }
}

fn file_requests() -> Vec<FileRequest> {
    let path = || Blob::from("/home/user/x");
    let user = || Some("root".to_owned());
    let mode = Some(0o600);
    vec![
        FileRequest::Read {
            path: path(),
            user: user(),
            offset: 1,
            len: 2,
        },
        FileRequest::Write {
            path: path(),
            user: user(),
            mode,
            data: Blob(vec![7; 5]),
        },
        FileRequest::Create {
            path: path(),
            user: user(),
            mode,
        },
        FileRequest::Stat {
            path: path(),
            user: user(),
            follow: true,
        },
        FileRequest::List {
            path: path(),
            user: user(),
            depth: 3,
            limit: 100,
        },
        FileRequest::Mkdir {
            path: path(),
            user: user(),
            mode,
            parents: true,
        },
        FileRequest::Rename {
            from: path(),
            to: path(),
            user: user(),
        },
        FileRequest::Remove {
            path: path(),
            user: user(),
            recursive: true,
        },
        FileRequest::SetPermissions {
            path: path(),
            user: user(),
            mode,
            owner: Some(":games".into()),
        },
        FileRequest::Symlink {
            path: path(),
            user: user(),
            target: path(),
        },
        FileRequest::Watch {
            path: path(),
            user: user(),
            recursive: true,
        },
    ]
}

fn file_replies() -> Vec<FileReply> {
    let entry = Entry {
        path: "a/b".into(),
        stat: stat(),
    };
    vec![
        FileReply::Data {
            data: Blob(vec![7; 5]),
            size: 5,
        },
        FileReply::Opened { size: 1 << 30 },
        FileReply::Stat { stat: stat() },
        FileReply::Entries {
            entries: vec![entry.clone(), entry],
        },
        FileReply::Done {},
        FileReply::Failed {
            errno: 2,
            message: "no such file".into(),
        },
        FileReply::Changes {
            changes: vec![
                Change::Created { path: "a".into() },
                Change::Written { path: "a".into() },
                Change::Attributes { path: "a".into() },
                Change::Removed { path: "".into() },
                Change::Lost {},
            ],
        },
    ]
}

fn sudo() -> SudoRequest {
    SudoRequest {
        argv: blobs(&["apt-get", "update"]),
        env: env(),
        user: Some("#0".into()),
        cwd: true,
    }
}
