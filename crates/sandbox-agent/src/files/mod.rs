//! The file worker: a process that PID 1 forks for one connection and that serves its file requests one at a time.
//!
//! It works inside the sandbox's own root with the rights of the asked user, so it reaches what that user's programs
//! reach and nothing else. Its real uid stays 0: programs of other users cannot signal it. What it must not do is
//! wait for, or act on, anything but regular files and directories.

mod connection;
mod content;
mod copy;
mod error;
mod list;
mod meta;
mod remove;
mod rename;
mod tree;
pub(crate) mod walk;
mod watch;

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sandbox_agent::protocol::Blob;
use sandbox_agent::protocol::files::{FileReply, FileRequest};

use self::connection::{Abort, Connection, Gone, Outcome};
use self::content::Contents;
use self::error::{FileError, Result};
use self::list::Listing;
use self::tree::Tree;
use self::watch::Watching;
use crate::account::{self, Names};
use crate::sys::file;

/// How long a worker waits for the next request. Until then the sandbox does not count as idle.
const IDLE: Duration = Duration::from_secs(2);

/// Serves file requests until the peer closes `connection`, or `farewell` is closed and there is none: one watch, or any
/// number of others.
///
/// To be called in a process of its own, single-threaded, with uid 0 of the sandbox; it never comes back.
pub(crate) fn serve(connection: OwnedFd, farewell: Option<OwnedFd>, watches: bool) -> ! {
    let worker = Worker::new(Connection::new(connection, farewell, IDLE), watches);
    std::process::exit(i32::from(worker.run().is_err()))
}

/// Serves one connection.
#[derive(Debug)]
struct Worker {
    connection: Connection,
    /// Whether it is there for a watch.
    watches: bool,
    /// An error if the sandbox has no `/proc`.
    tree: std::io::Result<Tree>,
    names: Names,
    /// Whose rights the thread has.
    identity: Option<(u32, u32, Vec<u32>)>,
}

/// What a request is answered with at its end.
enum Answer {
    Reply(FileReply),
    Descriptor(OwnedFd, u64),
}

impl Answer {
    const DONE: Self = Self::Reply(FileReply::Done {});
}

impl From<Contents> for Answer {
    fn from(contents: Contents) -> Self {
        match contents {
            Contents::Data(data, size) => Self::Reply(FileReply::Data {
                data: Blob(data),
                size,
            }),
            Contents::Opened(fd, size) => Self::Descriptor(fd, size),
        }
    }
}

impl Worker {
    fn new(connection: Connection, watches: bool) -> Self {
        file::clear_umask();
        Self {
            connection,
            watches,
            tree: Tree::new(),
            names: Names::default(),
            identity: None,
        }
    }

    fn run(mut self) -> Result<(), Gone> {
        while let Some(request) = self.connection.receive()? {
            let answer = match request {
                Ok(request) => self.answer(request),
                Err(error) => Err(error.into()),
            };
            match answer {
                Ok(Answer::Reply(reply)) => self.connection.send(&reply, None)?,
                Ok(Answer::Descriptor(fd, size)) => {
                    self.connection
                        .send(&FileReply::Opened { size }, Some(fd.as_fd()))?;
                }
                Err(Abort::Failed(FileError { errno, message })) => {
                    self.connection
                        .send(&FileReply::Failed { errno, message }, None)?;
                }
                Err(Abort::Gone) => return Err(Gone),
            }
        }
        Ok(())
    }

    fn answer(&mut self, mut request: FileRequest) -> Outcome<Answer> {
        if self.watches != matches!(request, FileRequest::Watch { .. }) {
            let message = "watches, and nothing else, go on connections of their own";
            return Err(FileError::new(libc::EPROTO, message).into());
        }
        let (uid, home) = self.become_user(request.user())?;
        for path in paths(&mut request) {
            start_at(&home, path);
        }
        let Self {
            connection,
            tree,
            names,
            ..
        } = self;
        let tree = tree
            .as_ref()
            .map_err(|error| FileError::of(error, "open", b"/proc/self/fd"))?;
        match request {
            FileRequest::Read {
                path, offset, len, ..
            } => Ok(content::read(tree, &path.0, offset, len)?.into()),
            FileRequest::Create { path, mode, .. } => {
                Ok(Answer::Descriptor(content::create(tree, &path.0, mode)?, 0))
            }
            FileRequest::Stat { path, follow, .. } => {
                let stat = meta::stat(tree, names, &path.0, follow)?;
                Ok(Answer::Reply(FileReply::Stat { stat }))
            }
            FileRequest::List {
                path, depth, limit, ..
            } => {
                meta::refresh(names);
                let (path, batch) = (path.0.as_slice(), Default::default());
                let mut listing = Listing {
                    tree,
                    names,
                    connection,
                    path,
                    batch,
                };
                listing.run(depth, limit)?;
                Ok(Answer::DONE)
            }
            FileRequest::Watch {
                path, recursive, ..
            } => {
                Watching::new(tree, &path.0, recursive)?.run(connection)?;
                Ok(Answer::DONE)
            }
            change => perform(tree, connection, uid, change).map(|()| Answer::DONE),
        }
    }

    /// Takes the rights of `user`, and says which uid that is and where its home is.
    fn become_user(&mut self, user: Option<&str>) -> Result<(u32, Vec<u8>)> {
        if !matches!(user, None | Some("user" | "root")) {
            // The account files are looked at with the same rights, whoever was served last.
            self.take(0, 0, Vec::new())?;
        }
        let account = account::resolve(user)?;
        self.take(account.uid, account.gid, account.groups)?;
        Ok((account.uid, account.home))
    }

    fn take(&mut self, uid: u32, gid: u32, groups: Vec<u32>) -> Result<()> {
        let wanted = (uid, gid, groups);
        if self.identity.as_ref() != Some(&wanted) {
            // Until all of it is taken, the thread is nobody in particular.
            self.identity = None;
            file::set_identity(uid, gid, &wanted.2).map_err(|error| {
                FileError::new(
                    error::errno(&error),
                    format!("take the rights of uid {uid}: {error}"),
                )
            })?;
            self.identity = Some(wanted);
        }
        Ok(())
    }
}

/// Carries out a request that changes something and is answered by its success alone.
fn perform(
    tree: &Tree,
    connection: &mut Connection,
    uid: u32,
    request: FileRequest,
) -> Outcome<()> {
    match request {
        FileRequest::Write {
            path, mode, data, ..
        } => content::write(tree, &path.0, mode, &data.0)?,
        FileRequest::Mkdir {
            path,
            mode,
            parents,
            ..
        } => meta::mkdir(tree, &path.0, mode, parents)?,
        FileRequest::Rename { from, to, .. } => {
            rename::rename(tree, connection, &from.0, &to.0, uid)?
        }
        FileRequest::Remove {
            path, recursive, ..
        } => remove::remove(tree, connection, &path.0, recursive)?,
        FileRequest::SetPermissions {
            path, mode, owner, ..
        } => {
            meta::set_permissions(tree, &path.0, mode, owner.as_deref())?;
        }
        FileRequest::Symlink { path, target, .. } => meta::symlink(tree, &path.0, &target.0)?,
        // Their answers are more than that: they change nothing here.
        FileRequest::Read { .. }
        | FileRequest::Create { .. }
        | FileRequest::Stat { .. }
        | FileRequest::List { .. }
        | FileRequest::Watch { .. } => {}
    }
    Ok(())
}

/// The paths of a request, as far as they are looked for where its user is.
fn paths(request: &mut FileRequest) -> impl Iterator<Item = &mut Blob> {
    let (first, second) = match request {
        FileRequest::Read { path, .. }
        | FileRequest::Write { path, .. }
        | FileRequest::Create { path, .. }
        | FileRequest::Stat { path, .. }
        | FileRequest::List { path, .. }
        | FileRequest::Mkdir { path, .. }
        | FileRequest::Remove { path, .. }
        | FileRequest::SetPermissions { path, .. }
        | FileRequest::Symlink { path, .. }
        | FileRequest::Watch { path, .. } => (path, None),
        FileRequest::Rename { from, to, .. } => (from, Some(to)),
    };
    [first].into_iter().chain(second)
}

/// Puts `home` before a relative path. One that is empty stays so, and is refused.
fn start_at(home: &[u8], path: &mut Blob) {
    if !path.0.is_empty() && !path.0.starts_with(b"/") {
        path.0 = [home, b"/", &path.0].concat();
    }
}
