//! Library to zygote: make one sandbox, give one new layers, or work on files that the library's user may not touch.

use super::{Blob, Limits, wire_enum, wire_struct};

wire_struct! {
    /// First message to a new zygote; answered by [`Reply::Ready`], or before that by [`Reply::Unmapped`].
    pub struct Configure {
        /// [`super::VERSION`].
        pub version: u32,
        /// Whose rights the zygote has.
        pub rights: Rights,
        /// Whether it makes no user namespace for itself but joins the one that a sandbox was made in by another zygote of
        /// the same user. The sandbox's own user namespace comes along then.
        pub join: bool,
        /// An empty host directory on which the new root is assembled, in a private mount namespace.
        pub staging: Blob,
    }
}

wire_enum! {
    /// Whose rights the zygote has, and who owns what is stored.
    pub enum Rights {
        /// Those of real root. All stored files are owned by the range of host uids that begins here.
        0 => Root { storage_base: u32 },
        /// Those of one user, who is 0 in a user namespace that the zygote makes for itself. All stored files are
        /// that user's.
        1 => User {},
        /// Those of one user who is 0 in a user namespace that the zygote makes for itself, and whose subordinate ids
        /// are `1..=count` there. The library has it mapped when the zygote asks for that. All stored files are owned
        /// as sandboxes see them, one further on: what is 0 inside is 1 there.
        2 => Subordinate { count: u32 },
    }
}

wire_struct! {
    /// Whose a file is, by ids inside.
    pub struct Owned {
        /// Path below the top of its tree.
        pub path: Blob,
        pub uid: u32,
        pub gid: u32,
    }
}

wire_struct! {
    /// Whose the files of a tree are that are not root's, by their numbers in the file system.
    pub struct Owners {
        pub files: Vec<OwnedFile>,
    }
}

wire_struct! {
    /// Whose a file is, by ids inside, and the permissions of a directory.
    pub struct OwnedFile {
        pub inode: u64,
        pub uid: u32,
        pub gid: u32,
        /// `u32::MAX` if they are as they should be.
        pub mode: u32,
    }
}

wire_struct! {
    /// A read-only layer of an overlay.
    pub struct Lower {
        /// Host path of a directory.
        pub path: Blob,
        /// Whether owner ids on disk are from the storage range, as those of a store; else `0..` appear as `0..` inside.
        /// Only real root can map either; to others all files appear as they are.
        pub stored: bool,
    }
}

wire_struct! {
    /// One overlay of the sandbox's file tree. Host paths; the zygote opens them with its own rights.
    pub struct Overlay {
        /// Absolute mount point inside the sandbox; `/` first.
        pub target: Blob,
        /// Top first.
        pub lowers: Vec<Lower>,
        /// Directory on the host that holds `upper` and `work`; its owners are as [`Rights`] says.
        pub store: Blob,
        /// Name of the upper directory in `store`.
        pub upper: Blob,
        /// Name of the work directory in `store`; empty, as it was made.
        pub work: Blob,
    }
}

wire_struct! {
    /// A directory of the host that a sandbox shares with others. Its descriptor comes with the request.
    pub struct Volume {
        /// Absolute mount point inside.
        pub target: Blob,
        /// Where it is on the host, without links: only real root can mount what another one has opened.
        pub path: Blob,
        pub read_only: bool,
        /// Host uid whose files belong to `user` inside. 0 is nobody: all files there are the storage range's. Only real root
        /// can map either; to others all files appear as they are.
        pub uid: u32,
        /// Likewise the gid.
        pub gid: u32,
    }
}

wire_struct! {
    /// Makes a sandbox whose PID 1 answers on the listening socket that comes along.
    ///
    /// Descriptors, in this order: the listening socket; the read end of the owner's lifeline;
    /// the record's lock file; then, if `process_cgroup`, the sandbox's cgroup2 directory;
    /// then, if `oom_counter`, the file that counts OOM kills; then the directory of each volume.
    pub struct Create {
        /// Host name and id of the sandbox.
        pub name: String,
        /// First uid (and gid) of the sandbox's range, as the zygote has it.
        pub uid_base: u32,
        /// Length of the range. If it is 1 the sandbox has one user and no root: there is nobody to change to.
        pub uid_count: u32,
        /// What the first of them is inside.
        pub first_uid: u32,
        /// File tree, `/` first.
        pub overlays: Vec<Overlay>,
        /// What else is mounted, after the overlays and in this order.
        pub volumes: Vec<Volume>,
        /// Size of each of the tmpfs mounts `/run` and `/dev/shm`, in bytes.
        pub tmpfs_size: u64,
        /// How many processes the sandbox may have when a command of its starts another one, by what the kernel counts for
        /// its user; 0 is no limit. Only where it has one user.
        pub max_processes: u64,
        /// Environment that every command of the sandbox starts from.
        pub env: Vec<(Blob, Blob)>,
        /// What its programs are told that it may use; `None` if that comes with [`super::agent::Request::Begin`].
        pub limits: Option<Limits>,
        /// Milliseconds until the sandbox ends itself; 0 is never.
        pub lifetime_ms: u64,
        /// Whether the sandbox ends when the lifeline is closed.
        pub owned: bool,
        /// Compiled BPF (`struct sock_filter[]`) that every user process runs under.
        pub seccomp: Blob,
        /// A cgroup2 directory comes along; each command gets a child of it.
        pub process_cgroup: bool,
        /// A file that counts OOM kills comes along: `memory.events` (v2) or `memory.oom_control` (v1).
        pub oom_counter: bool,
        /// What leaves the sandbox is caught, for who asks with [`super::agent::Request::Network`]. Without it there is no
        /// way out at all.
        pub captured: bool,
        /// Walls to leave out, of [`super::zygote::weaken`]. Refused unless built with the `weaken` feature.
        pub weaken: u32,
    }
}

wire_struct! {
    /// Gives a sandbox, in which nothing runs but its PID 1, new overlays in the place of those that it has. What is
    /// mounted on the old ones moves to the new ones, and nobody can write to the old ones any more.
    ///
    /// Descriptors, in this order: the pidfd of PID 1; the connection that has claimed the sandbox
    /// ([`super::agent::Request::Claim`]), so that the claim lasts until all is done, whatever becomes of the library; then
    /// those of [`super::agent::Event::Places`].
    pub struct Rotate {
        /// As that of [`Create`].
        pub uid_base: u32,
        /// As that of [`Create`].
        pub uid_count: u32,
        /// With the targets of those that it has, in any of whose places the new ones show the same.
        pub overlays: Vec<Overlay>,
        /// Their source in the list of mounts is [`source`] of this number, which tells them from the old ones.
        pub generation: u32,
    }
}

wire_enum! {
    /// What a zygote may be asked.
    ///
    /// Work on files only with [`Rights::Subordinate`], since others need no help with it. The end of a socket comes along
    /// then, and on that the answer is given: it may take long, and others do not wait for it.
    pub enum Request {
        /// Answered by [`Reply::Created`] or [`Reply::Failed`].
        0 => Create { create: Create },
        /// Answered by [`Reply::Rotated`], [`Reply::Busy`], [`Reply::Elsewhere`] or [`Reply::Failed`].
        1 => Rotate { rotate: Rotate },
        /// The zygote's user namespace has its maps. Answered by [`Reply::Ready`].
        2 => Mapped {},
        /// Removes a directory with all that is in it. It is no error if there is none. Answered by [`Reply::Done`].
        3 => Remove { path: Blob },
        /// Gives a tree to root of all sandboxes, but for what is another one's. For many files, a memory file with
        /// [`Owners`] comes along as well. Answered by [`Reply::Done`].
        4 => Give { path: Blob, others: Vec<Owned> },
        /// Counts what is in directories of `path` whose names begin with `u`. Answered by [`Reply::Measured`].
        5 => Measure { path: Blob, most_files: u64 },
        /// Moves a directory within a file system. Answered by [`Reply::Done`].
        6 => Move { from: Blob, to: Blob },
        /// Copies upper directories of overlays, the uppermost first, to one that shows what all of them show. With any
        /// rights. Answered by [`Reply::Copied`], or by [`Reply::Failed`] with `EFBIG` if there is more than these.
        7 => Copy { from: Vec<Blob>, to: Blob, bytes: u64, files: u64 },
    }
}

/// The source of overlays in the list of mounts.
pub fn source(generation: u32) -> String {
    format!("generation-{generation}")
}

/// Walls that a test build can leave out, one bit each.
pub mod weaken {
    /// No seccomp filter on user processes.
    pub const SECCOMP: u32 = 1 << 0;
    /// `no_new_privs` stays off.
    pub const NO_NEW_PRIVS: u32 = 1 << 1;
    /// Capabilities are not dropped.
    pub const CAPABILITIES: u32 = 1 << 2;
    /// The host's network namespace.
    pub const NETWORK: u32 = 1 << 3;
    /// The host's PID namespace is not replaced.
    pub const PROCESSES: u32 = 1 << 4;
    /// The host's IPC namespace.
    pub const IPC: u32 = 1 << 5;
    /// `/proc` is neither masked nor partly read-only.
    pub const PROC_MASKS: u32 = 1 << 6;
    /// PID 1 stays dumpable.
    pub const DUMPABLE: u32 = 1 << 7;
    /// The host's root stays attached at `/.host` instead of being detached.
    pub const ROOT: u32 = 1 << 8;
    /// User namespaces may be made inside.
    pub const USER_NAMESPACES: u32 = 1 << 9;
    /// The host's UTS namespace.
    pub const HOST_NAME: u32 = 1 << 10;
    /// Host device nodes are not hidden: the host's `/dev` is bound.
    pub const DEVICES: u32 = 1 << 11;
}

wire_enum! {
    /// The zygote's answers.
    pub enum Reply {
        /// Answer to [`Configure`].
        0 => Ready { version: u32 },
        /// The sandbox exists and answers on its socket. A pidfd of PID 1 comes along.
        1 => Created { pid: u32 },
        /// Nothing was made. `errno` may be 0.
        2 => Failed { step: String, errno: i32 },
        /// The sandbox has the new overlays.
        3 => Rotated {},
        /// The sandbox has its old overlays: something of them is open for writing, or removed and still open.
        4 => Busy {},
        /// The zygote has a user namespace, and waits for its maps and [`Request::Mapped`].
        5 => Unmapped {},
        /// It is done.
        6 => Done {},
        /// Bytes on disk and number of files; `is_whole` unless there were more.
        7 => Measured { bytes: u64, files: u64, is_whole: bool },
        /// The sandbox was made by another zygote, and only one that has joined that can enter it.
        8 => Elsewhere {},
        /// Bytes that were written, and entries that were made.
        9 => Copied { bytes: u64, files: u64 },
    }
}
