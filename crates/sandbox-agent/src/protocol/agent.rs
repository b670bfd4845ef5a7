//! Host to PID 1: commands, their output, and the sandbox's life.
//!
//! A connection starts as a control connection: requests are answered in order. [`Request::Spawn`] and
//! [`Request::Attach`] turn it into an attachment (events come without being asked for; only
//! [`Request::Stdin`] and [`Request::CloseStdin`] go in), [`Request::Files`] hands it to a file worker. Closing an attachment, or its writing half, detaches and kills nothing.
//!
//! After [`Event::Exited`] or [`Event::Failed`] an attachment is a control connection again, so that one connection
//! may run command after command. What comes late for the command that has ended is passed over.
//!
//! # Output
//! PID 1 keeps the newest MiB of each command's output in a ring. While the connection that spawned a command is
//! its only reader, the program waits for it, and nothing is lost. Otherwise the program waits for
//! nobody: a reader that falls behind by more than the ring gets [`Event::Lost`] in the place of what it missed.
//! A command has ended for its readers once its main process has and what could be read then was taken; what its
//! background processes write later goes nowhere.
//!
//! A reader of much output may have the memory of the ring itself ([`Request::Share`]), so that no byte is copied through
//! the socket: it is told where output lies, reads it there, and says what it has taken.
//!
//! # Bounds
//! 1024 connections that follow commands, and 64 for other requests (further ones wait to be accepted), 64 file workers
//! (further requests for one wait), as many watches, 4096 running commands. Of ended commands the exits of the last 1024 are known, and the
//! output of the last 64 that fit into 8 MiB.
//!
//! A packet that is no request, or a request in the wrong place, is answered by [`Event::Failed`] with
//! [`Failure::Invalid`], and the connection is closed.

use super::{Blob, Limits, wire_enum, wire_struct};

/// Stream numbers of [`Event::Output`].
pub mod stream {
    /// Standard output, or both when they are merged.
    pub const STDOUT: u8 = 1;
    /// Standard error.
    pub const STDERR: u8 = 2;
    /// A terminal's output.
    pub const PTY: u8 = 3;
}

/// The memory of a ring, of which [`Event::Shared`] brings a descriptor.
///
/// The byte with the cursor `c` lies at `c % LEN`, as long as `c` is not less than the number at [`OLDEST`](shared::OLDEST).
/// That is raised before bytes are overwritten: who reads it after the bytes knows which of them were still there.
/// The memory can be neither grown nor shrunk.
pub mod shared {
    /// Bytes of output that the memory has room for.
    pub const LEN: usize = 1024 * 1024 + 64 * 1024;
    /// Where the cursor of the oldest byte lies that is certainly there: 8 bytes, little endian.
    pub const OLDEST: usize = LEN;
    /// Most bytes of one [`Event::Kept`](super::Event::Kept).
    pub const MAX_KEPT: usize = 256 * 1024;
}

wire_struct! {
    /// A command to start.
    pub struct Spawn {
        /// Program and arguments; the program is looked up in the command's own `PATH`.
        pub argv: Vec<Blob>,
        /// Added to the sandbox's environment.
        pub env: Vec<(Blob, Blob)>,
        /// Working directory; `None` is the user's home, or `/` if that is missing.
        pub cwd: Option<Blob>,
        /// User name, `uid`, or `uid:gid`; `None` is uid 1000.
        pub user: Option<String>,
        /// One pipe for both streams, so that the program's order is kept.
        pub merge_stderr: bool,
        /// Standard input stays open for [`Request::Stdin`]; else it is empty.
        pub stdin: bool,
        /// A terminal of `(rows, columns)` instead of pipes.
        pub pty: Option<(u16, u16)>,
        /// Milliseconds until the whole tree is ended; 0 is never. The end is told when nothing of the tree is left
        /// or the grace is over, and is [`Exit::TimedOut`] however the program reacts.
        pub timeout_ms: u64,
        /// Milliseconds between TERM and KILL on timeout.
        pub grace_ms: u64,
        /// A free label by which the process can be found again, at most 256 bytes.
        pub tag: Option<String>,
    }
}

wire_enum! {
    /// Where an attachment starts.
    pub enum Position {
        /// What comes from now on.
        0 => Now {},
        /// At this byte of the process's output, counted over all its streams in order of arrival.
        /// Older than the ring: starts at the oldest kept byte, after an [`Event::Lost`]. Beyond the end: as now.
        1 => Cursor { at: u64 },
        /// Nowhere: no output comes, the connection is for standard input and the exit. After [`Event::Started`]
        /// comes [`Event::Done`] if standard input is open, else [`Event::StdinClosed`].
        2 => Nothing {},
    }
}

wire_enum! {
    /// What the host may ask.
    pub enum Request {
        /// Answered by [`Event::Info`].
        0 => Info { version: u32 },
        /// The connection becomes an attachment: [`Event::Started`] or [`Event::Failed`] comes first.
        1 => Spawn { spawn: Spawn },
        /// The connection becomes an attachment of a process that runs or has ended: [`Event::Started`], now as then,
        /// or [`Event::Failed`] comes first.
        2 => Attach { process: u64, from: Position },
        /// Answered by [`Event::Processes`].
        3 => List {},
        /// Sends a signal; with `tree` to every process of the command (of its cgroup), else to its process group.
        /// SIGKILL always takes the whole tree. Answered by [`Event::Done`] or [`Event::Failed`]; once the main process
        /// has ended, by [`Failure::State`].
        4 => Signal { process: u64, signal: i32, tree: bool },
        /// Resizes a terminal. Answered by [`Event::Done`] or [`Event::Failed`].
        5 => Resize { process: u64, rows: u16, columns: u16 },
        /// On an attachment: bytes for standard input. Not answered; [`Event::StdinClosed`] if nobody reads them. While
        /// they wait for room no further request of this attachment is taken.
        6 => Stdin { data: Blob },
        /// On an attachment: ends standard input (a terminal gets its EOF character). Not answered.
        7 => CloseStdin {},
        /// Milliseconds from now until the sandbox ends itself; 0 is never. Answered by [`Event::Done`].
        8 => SetLifetime { remaining_ms: u64 },
        /// The sandbox no longer ends with its owner. Answered by [`Event::Done`].
        9 => Detach {},
        /// The connection becomes a file worker's. Not answered, but by [`Event::Failed`] if no worker can be started;
        /// what else the connection brings is then passed over. With `watch` it takes a watch and nothing else, and there
        /// may be 64 of these at a time.
        10 => Files { watch: bool },
        /// Ends the sandbox. The connection closes when it is gone.
        11 => Shutdown {},
        /// The sandbox, in which nothing was done yet and which is under its limits, gets ready for a first command, and
        /// answers nothing but [`Request::Info`], [`Request::Network`], [`Request::Begin`] and [`Request::Shutdown`] until it has begun.
        /// Answered by [`Event::Done`].
        12 => Wait {},
        /// A sandbox that waits begins: with this environment for every command, milliseconds until it ends itself
        /// (0 is never), and what its programs are told that it may use. Answered by [`Event::Done`]; never more than once in
        /// its life.
        13 => Begin { env: Vec<(Blob, Blob)>, lifetime_ms: u64, max_processes: u64, limits: Limits },
        /// Stops all processes of all commands, and the clocks of their timeouts. Answered by [`Event::Done`] when all have
        /// stopped, at once if they had already. Where that takes too long they go on, and it is [`Event::Failed`]. Until
        /// [`Request::Resume`] nothing is started; all else is served.
        14 => Pause {},
        /// Lets the processes go on; they may be going on already. After a pause by the sandbox's own clock, a lifetime
        /// that was over begins anew, and another one goes on where it stood. Answered by [`Event::Done`].
        15 => Resume {},
        /// What the end of the lifetime is, a pause or the end of the sandbox, and so many milliseconds without a connection
        /// that follows a command or works on files, after which it comes as well; 0 is never. Answered by [`Event::Done`].
        16 => SetExpiry { pauses: bool, idle_ms: u64 },
        /// Answered by [`Event::Usage`].
        17 => Usage {},
        /// On an attachment: output may come as [`Event::Kept`] from now on. The connection is for output alone then: it
        /// must not bring anything for standard input. Answered by [`Event::Shared`]; not answered if there is no
        /// memory for it, and output comes as before.
        18 => Share {},
        /// On an attachment that shares the ring: the reader has taken what comes before this cursor. What a sole
        /// foreground reader has not taken is not overwritten. The ring knows a bounded number of changes from one stream
        /// to another, so a reader says it after some thousand pieces too, however small. Not answered.
        19 => Taken { at: u64 },
        /// As [`Request::Pause`], but only until this connection closes, and unseen: nobody is told that the sandbox is
        /// paused, and commands that are asked for meanwhile start afterwards. Where no group of commands can be stopped,
        /// it is [`Failure::State`] while one of them runs.
        20 => Hold {},
        /// On a connection that holds the commands: whether nothing is in the sandbox but PID 1, and until the connection
        /// closes nothing is served on others then. File workers without a request, and what is ready for the next
        /// command, are sent away for it. Answered by [`Event::Done`], or by [`Event::Failed`] with [`Failure::State`].
        21 => Claim {},
        /// What leaves the sandbox belongs to this connection until it closes. Answered by [`Event::Network`], or by
        /// [`Event::Failed`] with [`Failure::Unsupported`] if it is not caught, and with [`Failure::Busy`] if it is another
        /// connection's. While it is nobody's, each connection that leaves is reset and each question for a name fails.
        22 => Network {},
        /// A socket that is being connected to a port of the loopback address inside, of IPv6 or of IPv4. Answered by
        /// [`Event::Connecting`], or by [`Event::Failed`] with [`Failure::NotFound`] if nobody listens there,
        /// [`Failure::State`] if the sandbox is paused. As long as
        /// this connection is open the sandbox is not idle.
        23 => Connect { port: u16, v6: bool },
        /// Where the sandbox is, for who gives it new overlays. Answered by [`Event::Places`].
        24 => Places {},
    }
}

wire_struct! {
    /// A process of [`Event::Processes`].
    pub struct ProcessEntry {
        /// Number of the process, never used again in this sandbox.
        pub process: u64,
        /// PID inside the sandbox.
        pub pid: u32,
        /// The command's label.
        pub tag: Option<String>,
        /// Program and arguments, as asked for, cut to 4 KiB; to 128 bytes where the list would be too long.
        pub argv: Vec<Blob>,
        /// Whether it has a terminal.
        pub pty: bool,
        /// How it ended, if it did.
        pub exit: Option<Exit>,
        /// Milliseconds since the start, up to the end.
        pub elapsed_ms: u64,
        /// Bytes of output so far.
        pub cursor: u64,
    }
}

wire_enum! {
    /// How a command ended.
    pub enum Exit {
        /// It returned this code.
        0 => Code { code: i32 },
        /// It was ended by this signal.
        1 => Signal { signal: i32 },
        /// Its timeout passed.
        2 => TimedOut {},
        /// It was killed, and the kernel has killed a process because the sandbox's memory was used up. If that was
        /// another process whose end was not noticed by itself, a kill by somebody else can look like this.
        3 => OutOfMemory {},
    }
}

wire_enum! {
    /// Why a request failed.
    pub enum Failure {
        /// No such process, working directory or user.
        0 => NotFound {},
        /// The request makes no sense here.
        1 => Invalid {},
        /// The user may not do this.
        2 => Denied {},
        /// A limit of the sandbox is reached (processes, memory, descriptors).
        3 => Exhausted {},
        /// The process has ended, has no open standard input or no terminal; or the sandbox is paused.
        4 => State {},
        /// Anything else.
        5 => Internal {},
        /// The sandbox was made without it.
        6 => Unsupported {},
        /// It is another connection's.
        7 => Busy {},
    }
}

wire_enum! {
    /// What PID 1 says.
    pub enum Event {
        /// Answer to [`Request::Info`].
        0 => Info { version: u32, name: String, uptime_ms: u64, remaining_ms: Option<u64>, running: u32, paused: bool },
        /// The process exists; `pid` is inside the sandbox, `at` is the cursor at which output will begin.
        1 => Started { process: u64, pid: u32, at: u64 },
        /// Output; `at` is the cursor of the first byte.
        2 => Output { stream: u8, at: u64, data: Blob },
        /// This many bytes were dropped before this reader took them.
        3 => Lost { bytes: u64 },
        /// Bytes for standard input came, and nobody reads them; sent once to each attachment of that moment.
        4 => StdinClosed {},
        /// The process ended; the last event of an attachment. `at` is the cursor of the end.
        5 => Exited { exit: Exit, at: u64 },
        /// Answer to [`Request::List`], sorted by number.
        6 => Processes { processes: Vec<ProcessEntry> },
        /// The request was carried out.
        7 => Done {},
        /// The request was not carried out.
        8 => Failed { failure: Failure, message: String },
        /// Answer to [`Request::Usage`]: how many processes belong to commands, if that can be told.
        9 => Usage { processes: Option<u64> },
        /// Answer to [`Request::Share`], with a descriptor of the memory that [`shared`] describes.
        10 => Shared {},
        /// Output that lies in the shared memory; `at` is the cursor of the first byte.
        11 => Kept { stream: u8, at: u64, len: u32 },
        /// Answer to [`Request::Network`], with two descriptors. The first one accepts connections, whose own address is
        /// the one that was meant; the second one receives questions for names (with `IPV6_PKTINFO`, without IPv6
        /// `IP_PKTINFO`), and must answer from the address that was asked. Without `ipv6` both are of IPv4 alone.
        12 => Network { ipv6: bool },
        /// Answer to [`Request::Connect`], with a descriptor: it is writable as soon as it is connected, or that has failed.
        13 => Connecting {},
        /// Answer to [`Request::Places`], with descriptors of the sandbox's user namespace, its mount namespace, its root
        /// (only as a place) and its list of mounts.
        14 => Places {},
    }
}
