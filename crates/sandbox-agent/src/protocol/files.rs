//! Host to file worker: one request at a time, answered by one reply ([`FileReply::Entries`] may repeat).
//!
//! Paths start at `/` or at the home of `user`, have at most 4095 bytes with it, and are resolved inside the sandbox with
//! the rights of `user` (a name, `uid`, `uid:gid` or `name:group`; `None` is uid 1000). Links are followed, except links of `/proc` to a process's own
//! files. Only regular files are opened, never a fifo, socket or device, so that no file can make the worker wait.
//! Descriptors are those of files on ordinary file systems; files of the kernel (`/proc`) are copied when read, at
//! most 16 MiB, and written by one `write(2)` of all data.
//!
//! `errno` of a refusal is the system's, and besides: `ENOENT` for a user or owner that does not exist; `EINVAL` for a
//! path that is empty or holds a NUL, for a user that makes no sense, and for something that is not a regular
//! file where one is needed (a directory is `EISDIR`); `EBUSY` for `/` and mount points; `EAGAIN` for a file that a
//! program holds a lease on; `EPROTO` for a malformed request.
//!
//! Closing the connection ends an operation in progress. What it did until then stays done; only the copy of a
//! rename across mounts is taken back.

use super::{Blob, wire_enum, wire_struct};

/// File systems, as `statfs(2)` numbers them, whose files are no more than their bytes: overlayfs, tmpfs, ext2 to ext4,
/// xfs, btrfs. Descriptors are those of files on these.
pub const ORDINARY: [u64; 5] = [0x794c_7630, 0x0102_1994, 0xef53, 0x5846_5342, 0x9123_683e];

wire_struct! {
    /// What `stat` says.
    pub struct Stat {
        /// `st_mode`, type and permissions.
        pub mode: u32,
        /// Size in bytes.
        pub size: u64,
        /// Owner inside the sandbox.
        pub uid: u32,
        /// Group inside the sandbox.
        pub gid: u32,
        /// Modification time, milliseconds since 1970.
        pub modified_ms: i64,
        /// Owner's name, if the sandbox's `/etc/passwd` has one.
        pub user: Option<String>,
        /// Group's name, if the sandbox's `/etc/group` has one.
        pub group: Option<String>,
        /// Where a symbolic link points.
        pub target: Option<Blob>,
    }
}

wire_struct! {
    /// A directory's entry.
    pub struct Entry {
        /// Path below the listed directory.
        pub path: Blob,
        /// Of the entry itself; links are not followed.
        pub stat: Stat,
    }
}

wire_enum! {
    /// What the host may ask of the file tree.
    pub enum FileRequest {
        /// Reads up to `len` bytes at `offset`. A range of at most [`super::MAX_CHUNK`] bytes comes as
        /// [`FileReply::Data`], a longer one as [`FileReply::Opened`] with a read-only descriptor, in which
        /// `offset` is the same. Beyond the end there is no data, which is no error.
        0 => Read { path: Blob, user: Option<String>, offset: u64, len: u64 },
        /// Replaces the contents by `data`, making parent directories. Answered by [`FileReply::Done`].
        ///
        /// New directories get 0755, a new file `mode` or 0644. An existing file keeps its inode, and its mode if
        /// none is given. When the disk is full, what fitted stays.
        1 => Write { path: Blob, user: Option<String>, mode: Option<u32>, data: Blob },
        /// Opens for writing, emptied, making parent directories, with modes as for [`FileRequest::Write`].
        /// Answered by [`FileReply::Opened`] with a write-only descriptor.
        2 => Create { path: Blob, user: Option<String>, mode: Option<u32> },
        /// Answered by [`FileReply::Stat`]. Links are followed if `follow`.
        3 => Stat { path: Blob, user: Option<String>, follow: bool },
        /// Answered by any number of [`FileReply::Entries`], then [`FileReply::Done`]. Depth 1 is the directory's
        /// own entries; links are not followed. Entries come sorted by name, those below a directory right after
        /// it; a directory that `user` may not read comes without them. `limit` entries at most, then
        /// [`FileReply::Failed`] with `EOVERFLOW`; with `ENAMETOOLONG` where paths get longer than any may be.
        4 => List { path: Blob, user: Option<String>, depth: u32, limit: u64 },
        /// Makes a directory, with `mode` or 0755; with `parents` also those above, with 0755, and an existing
        /// one is no error and keeps its mode.
        5 => Mkdir { path: Blob, user: Option<String>, mode: Option<u32>, parents: bool },
        /// Renames as rename(2) does. Across mounts it copies and removes: the copy appears at once and whole, and
        /// keeps permissions, modification times, links and holes, and owners if `user` is root; not hard links and
        /// extended attributes. A file never replaces a directory.
        6 => Rename { from: Blob, to: Blob, user: Option<String> },
        /// Removes a file, link or empty directory; with `recursive` a whole tree, but nothing on other mounts.
        7 => Remove { path: Blob, user: Option<String>, recursive: bool },
        /// Changes permissions (`mode & 07777`) or owner (`name`, `uid`, `name:group`, `uid:gid`, `:group`) of what
        /// `path` leads to.
        8 => SetPermissions { path: Blob, user: Option<String>, mode: Option<u32>, owner: Option<String> },
        /// Makes a symbolic link; what is there is not replaced, and no directories are made.
        9 => Symlink { path: Blob, user: Option<String>, target: Blob },
        /// Watches a directory, if `recursive` with those below it: [`FileReply::Done`] comes when all are watched, then any
        /// number of [`FileReply::Changes`], and [`FileReply::Done`] when the directory is not at `path` any more. Whatever
        /// the peer sends meanwhile ends the worker. `EMFILE` where there are too many directories.
        10 => Watch { path: Blob, user: Option<String>, recursive: bool },
    }
}

wire_enum! {
    /// A change in a watched directory. Paths are below that; an empty one is the directory itself.
    pub enum Change {
        /// It was made or moved to here, or was found in a new directory.
        0 => Created { path: Blob },
        /// Its contents were changed.
        1 => Written { path: Blob },
        /// Its permissions, owner or times were changed.
        2 => Attributes { path: Blob },
        /// It was removed or moved away.
        3 => Removed { path: Blob },
        /// Here changes were lost.
        4 => Lost {},
    }
}

wire_enum! {
    /// The worker's answers.
    pub enum FileReply {
        /// Contents; `size` is the whole file's.
        0 => Data { data: Blob, size: u64 },
        /// A descriptor of a regular file comes along.
        1 => Opened { size: u64 },
        /// Answer to [`FileRequest::Stat`].
        2 => Stat { stat: Stat },
        /// Some entries.
        3 => Entries { entries: Vec<Entry> },
        /// The request was carried out.
        4 => Done {},
        /// The request was not carried out. `errno` is the system's; `message` names the cause.
        5 => Failed { errno: i32, message: String },
        /// What has happened in a watched directory.
        6 => Changes { changes: Vec<Change> },
    }
}

impl FileRequest {
    /// Whose rights it asks for; `None` is the default user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Read { user, .. }
            | Self::Write { user, .. }
            | Self::Create { user, .. }
            | Self::Stat { user, .. }
            | Self::List { user, .. }
            | Self::Mkdir { user, .. }
            | Self::Rename { user, .. }
            | Self::Remove { user, .. }
            | Self::SetPermissions { user, .. }
            | Self::Symlink { user, .. }
            | Self::Watch { user, .. } => user.as_deref(),
        }
    }
}
