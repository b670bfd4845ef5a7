//! What the peer says: messages that fit, that almost do, and that are none, with all kinds of descriptors.

use proptest::{collection::vec, option, prelude::*, sample::Index};
use sandbox_agent::protocol::{
    Blob, MAX_CHUNK, MAX_PACKET, Wire,
    agent::{Event, Exit, Failure, ProcessEntry},
    files::{Entry, FileReply, Stat},
};

/// A descriptor to come along with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FdKind {
    File,
    ReadOnlyFile,
    WriteOnlyFile,
    SealedMemory,
    Directory,
    Fifo,
    Socket,
    Proc,
    Null,
    Zero,
    Path,
    TcpListener,
    TcpSocket,
    UdpSocket,
}

const FDS: [FdKind; 14] = [
    FdKind::File,
    FdKind::ReadOnlyFile,
    FdKind::WriteOnlyFile,
    FdKind::SealedMemory,
    FdKind::Directory,
    FdKind::Fifo,
    FdKind::Socket,
    FdKind::Proc,
    FdKind::Null,
    FdKind::Zero,
    FdKind::Path,
    FdKind::TcpListener,
    FdKind::TcpSocket,
    FdKind::UdpSocket,
];

/// One packet, or a message too long for one.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    /// The bytes travel in memory that is sealed (or not) instead of in the packet.
    pub(super) sealed: Option<bool>,
    pub(super) fds: Vec<FdKind>,
}

/// What comes after a first request, before the peer vanishes.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    /// To a control connection or an attachment.
    pub(super) events: Vec<Packet>,
    /// To a file worker's connection.
    pub(super) replies: Vec<Packet>,
    /// Whether the request is read; else the peer vanishes with it unread after its answers.
    pub(super) reads: bool,
}

impl Answers {
    /// Whether one of them is a proper refusal, whose kind is up to the peer.
    pub(super) fn may_refuse(&self) -> bool {
        let refused = |packet: &Packet| {
            matches!(Event::decode(&packet.bytes), Ok(Event::Failed { .. }))
                || matches!(
                    FileReply::decode(&packet.bytes),
                    Ok(FileReply::Failed { .. })
                )
        };
        self.events.iter().chain(&self.replies).any(refused)
    }
}

pub(super) fn answers() -> impl Strategy<Value = Answers> {
    let events = vec(packet(event().prop_map(|event| event.encode())), 0..6);
    // An attachment starts properly in half of the cases, so that what follows is looked at.
    let started = Event::Started {
        process: 7,
        pid: 8,
        at: 0,
    }
    .encode();
    let events = (events, any::<bool>()).prop_map(move |(mut events, starts)| {
        if starts {
            events.insert(0, plain(started.clone()));
        }
        events
    });
    let replies = vec(packet(reply().prop_map(|reply| reply.encode())), 0..4);
    (events, replies, any::<bool>()).prop_map(|(events, replies, reads)| Answers {
        events,
        replies,
        reads,
    })
}

fn plain(bytes: Vec<u8>) -> Packet {
    Packet {
        bytes,
        sealed: None,
        fds: Vec::new(),
    }
}

fn packet(message: impl Strategy<Value = Vec<u8>> + 'static) -> impl Strategy<Value = Packet> {
    let message = message.boxed();
    let bytes = prop_oneof![
        6 => message.clone(),
        3 => (message, any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(disturb),
        1 => vec(any::<u8>(), 0..64),
        1 => (MAX_PACKET - 1..MAX_PACKET + 3).prop_map(|len| vec![2; len]),
    ];
    let sealed = prop_oneof![8 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let fds = prop_oneof![
        4 => vec(prop::sample::select(&FDS[..]), 0..3),
        // More than a message may carry.
        1 => vec(prop::sample::select(&FDS[..]), 7..12),
    ];
    (bytes, sealed, fds).prop_map(|(bytes, sealed, fds)| Packet { bytes, sealed, fds })
}

fn disturb((mut bytes, at, piece): (Vec<u8>, Index, Vec<u8>)) -> Vec<u8> {
    let at = at.index(bytes.len() + 1);
    match piece[0] % 3 {
        0 => bytes.truncate(at),
        1 => drop(bytes.splice(at..at, piece)),
        _ => {
            let end = bytes.len().min(at + piece.len());
            drop(bytes.splice(at..end, piece));
        }
    }
    bytes
}

/// Numbers at which sums overflow, and others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), Just(1 << 63), any::<u64>()]
}

fn blob() -> impl Strategy<Value = Blob> {
    let odd = [
        "",
        "/",
        "..",
        "../../etc/passwd",
        "/etc",
        "a\0b",
        "a//b",
        "\n",
    ];
    let odd = prop::sample::select(odd.to_vec()).prop_map(Blob::from);
    prop_oneof![
        odd,
        vec(any::<u8>(), 0..20).prop_map(Blob),
        Just(Blob(vec![b'x'; 5000]))
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

fn entry() -> impl Strategy<Value = ProcessEntry> {
    (
        number(),
        any::<(u32, bool)>(),
        vec(blob(), 0..4),
        option::of(exit()),
        number(),
    )
        .prop_map(
            |(process, (pid, pty), argv, exit, elapsed_ms)| ProcessEntry {
                process,
                pid,
                tag: None,
                argv,
                pty,
                exit,
                elapsed_ms,
                cursor: process,
            },
        )
}

fn event() -> impl Strategy<Value = Event> {
    let data = prop_oneof![vec(any::<u8>(), 0..20), Just(vec![b'x'; MAX_CHUNK])];
    let failed = |message| Event::Failed {
        failure: Failure::Invalid {},
        message,
    };
    prop_oneof![
        (any::<(u32, u32, bool)>(), number(), option::of(number())).prop_map(
            |((version, running, paused), uptime_ms, remaining_ms)| Event::Info {
                version,
                name: String::new(),
                uptime_ms,
                remaining_ms,
                running,
                paused,
            }
        ),
        (number(), any::<u32>(), number()).prop_map(|(process, pid, at)| Event::Started {
            process,
            pid,
            at
        }),
        (0_u8..5, number(), data).prop_map(|(stream, at, data)| Event::Output {
            stream,
            at,
            data: Blob(data),
        }),
        number().prop_map(|bytes| Event::Lost { bytes }),
        Just(Event::StdinClosed {}),
        (exit(), number()).prop_map(|(exit, at)| Event::Exited { exit, at }),
        vec(entry(), 0..4).prop_map(|processes| Event::Processes { processes }),
        Just(Event::Done {}),
        Just(Event::Connecting {}),
        ".{0,20}".prop_map(failed),
    ]
}

fn stat() -> impl Strategy<Value = Stat> {
    let ids = any::<(u32, u32, u32)>();
    let time = prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()];
    let names = (option::of(".{0,9}"), option::of(blob()));
    (ids, number(), time, names).prop_map(|((mode, uid, gid), size, modified_ms, names)| Stat {
        mode,
        size,
        uid,
        gid,
        modified_ms,
        user: names.0,
        group: None,
        target: names.1,
    })
}

fn reply() -> impl Strategy<Value = FileReply> {
    let entry = (blob(), stat()).prop_map(|(path, stat)| Entry { path, stat });
    prop_oneof![
        (vec(any::<u8>(), 0..20), number()).prop_map(|(data, size)| FileReply::Data {
            data: Blob(data),
            size,
        }),
        number().prop_map(|size| FileReply::Opened { size }),
        stat().prop_map(|stat| FileReply::Stat { stat }),
        vec(entry, 0..4).prop_map(|entries| FileReply::Entries { entries }),
        Just(FileReply::Done {}),
        (any::<i32>(), ".{0,20}").prop_map(|(errno, message)| FileReply::Failed { errno, message }),
    ]
}
