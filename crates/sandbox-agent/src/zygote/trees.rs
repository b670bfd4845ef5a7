//! Work on stored files of an ordinary user's sandboxes. They belong to subordinate ids, so that only processes in the
//! zygote's user namespace may remove them or give them away ([`super::give`]).
//!
//! Hostile code has made them, and may still be changing them. Every step is relative to an open directory, follows no
//! link and leaves no mount.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sandbox_agent::protocol::zygote::{Reply, Request};
use sandbox_agent::protocol::{Blob, Wire as _};

use super::failure::{During as _, Failure};
use super::stage::Stage;
use super::{copy, give};
use crate::files::walk::{self, Step, Walk};
use crate::sys::clone::{self, Forked};
use crate::sys::{file, inherit, program, socket};

/// How often directories may turn out to have been filled again before a removal gives up.
const PASSES: u32 = 100;

/// Bytes of a block as `stat(2)` counts them.
const BLOCK: u64 = 512;

/// Carries the request out in a process of its own, which answers on `socket`. If there is no such process, whoever waits
/// there sees the socket close.
pub(crate) fn tend(stage: &Stage, request: &Request, socket: OwnedFd, table: Option<OwnedFd>) {
    if let Ok(Forked::Child) = clone::fork(None) {
        inherit::set_name(c"sandbox-files");
        // Above all the library's socket: while it is open, the library waits for the answer of a zygote that has ended.
        let mut keep = stage.descriptors().to_vec();
        keep.extend(
            [socket.as_raw_fd()]
                .into_iter()
                .chain(table.as_ref().map(AsRawFd::as_raw_fd)),
        );
        if inherit::close_all_but(&keep).is_err() {
            program::exit(1);
        }
        let reply = stage
            .visit_host(|| carry_out(stage, request, table))
            .unwrap_or_else(Failure::into_reply);
        // Who asked may be gone; then nobody else needs to know.
        let _ = socket::send(socket.as_fd(), &reply.encode(), &[]);
        program::exit(0);
    }
}

fn carry_out(stage: &Stage, request: &Request, table: Option<OwnedFd>) -> Result<Reply, Failure> {
    match request {
        Request::Remove { path } => remove(path).during("remove a tree")?,
        Request::Give { path, others } => {
            let owners = give::read_owners(table).during("read whose the files are")?;
            give::give(path, others, &owners).during("give a tree away")?;
        }
        Request::Measure { path, most_files } => {
            return measure(path, *most_files).during("measure a tree");
        }
        Request::Move { from, to } => relocate(from, to).during("move a directory")?,
        Request::Copy {
            from,
            to,
            bytes,
            files,
        } => {
            let marks = if stage.is_root() { "trusted" } else { "user" };
            let limits = [*bytes, *files];
            return copy::copy(from, to, marks, limits).during("copy a tree");
        }
        Request::Create { .. } | Request::Rotate { .. } | Request::Mapped {} => {
            return Err(Failure::invalid("read the request"));
        }
    }
    Ok(Reply::Done {})
}

/// The directory that `path` is in, and its name there.
pub(super) fn place(path: &Blob) -> io::Result<(OwnedFd, CString)> {
    let path = Path::new(OsStr::from_bytes(&path.0));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok((
        super::stage::directory(parent)?,
        file::c_string(name.as_bytes())?,
    ))
}

pub(super) fn open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    file::open(parent, name, walk::OPEN, 0, libc::RESOLVE_NO_SYMLINKS)
}

pub(super) fn is(error: &io::Error, errnos: &[i32]) -> bool {
    error
        .raw_os_error()
        .is_some_and(|errno| errnos.contains(&errno))
}

fn remove(path: &Blob) -> io::Result<()> {
    match place(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        place => {
            let (parent, name) = place?;
            remove_at(parent.as_fd(), &name)
        }
    }
}

/// Removes an entry with all that is in it.
pub(super) fn remove_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    for _ in 0..PASSES {
        match remove_one(parent, name) {
            Err(error) if is_filled(&error) => {}
            removed => return removed,
        }
        match open(parent, name).and_then(empty) {
            // It has become something else, or was moved by somebody who removes it as well.
            Err(error)
                if is(
                    &error,
                    &[libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::ESTALE],
                ) => {}
            emptied => emptied?,
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENOTEMPTY))
}

fn is_filled(error: &io::Error) -> bool {
    is(error, &[libc::ENOTEMPTY, libc::EEXIST])
}

fn relocate(from: &Blob, to: &Blob) -> io::Result<()> {
    let ((old, name), (new, new_name)) = (place(from)?, place(to)?);
    file::rename(old.as_fd(), &name, new.as_fd(), &new_name)
}

/// Removes one entry, whatever it is, unless it is a directory with entries. It is no error if there is none.
fn remove_one(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match file::unlink(parent, name, false) {
        Err(error) if is(&error, &[libc::EISDIR]) => remove_empty(parent, name),
        Err(error) if is(&error, &[libc::ENOENT]) => Ok(()),
        removed => removed,
    }
}

fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match file::unlink(parent, name, true) {
        Err(error) if is(&error, &[libc::ENOENT, libc::ENOTDIR]) => Ok(()),
        removed => removed,
    }
}

/// Removes what is in a directory. Where somebody makes new entries meanwhile, these may be left.
fn empty(root: OwnedFd) -> io::Result<()> {
    let mut walk = Walk::of_any_depth(root)?;
    loop {
        match walk.step()? {
            Step::Entry(name) => match file::unlink(walk.directory()?, &name, false) {
                Err(error) if is(&error, &[libc::EISDIR]) => match walk.enter(name) {
                    Err(error) if is(&error, &[libc::ENOENT, libc::ENOTDIR, libc::ELOOP]) => {}
                    entered => entered?,
                },
                Err(error) if is(&error, &[libc::ENOENT]) => {}
                removed => removed?,
            },
            // What was filled while the walk was in it is left to the next pass.
            Step::Left(name) => match remove_empty(walk.directory()?, &name) {
                Err(error) if is_filled(&error) => {}
                removed => removed?,
            },
            Step::End => return Ok(()),
        }
    }
}

/// Counts what is in the upper directories of a store.
fn measure(path: &Blob, most_files: u64) -> io::Result<Reply> {
    let (parent, name) = place(path)?;
    let mut walk = Walk::of_any_depth(open(parent.as_fd(), &name)?)?;
    let (mut bytes, mut files) = (0_u64, 0_u64);
    let is_whole = loop {
        let name = match walk.step()? {
            Step::Entry(name) => name,
            Step::Left(_) => continue,
            Step::End => break true,
        };
        // At the top the others are the kernel's own, to work in.
        let is_top = walk.depth() == 0;
        if is_top && !name.to_bytes().starts_with(b"u") {
            continue;
        }
        if !is_top {
            files += 1;
            let status = file::status_of(walk.directory()?, &name);
            let blocks = status.map_or(0, |status| u64::try_from(status.st_blocks).unwrap_or(0));
            bytes = bytes.saturating_add(blocks.saturating_mul(BLOCK));
        }
        if files > most_files {
            break false;
        }
        match walk.enter(name) {
            // No directory, or gone meanwhile.
            Err(error)
                if is(
                    &error,
                    &[libc::ENOTDIR, libc::ELOOP, libc::ENOENT, libc::EXDEV],
                ) => {}
            entered => entered?,
        }
    };
    Ok(Reply::Measured {
        bytes,
        files,
        is_whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn blob(path: &Path) -> Blob {
        Blob(path.as_os_str().as_bytes().to_vec())
    }

    #[test]
    fn a_tree_deeper_than_others_may_be_walked_goes_away_and_no_link_is_followed() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let [top, kept] = ["top", "kept"].map(|name| directory.path().join(name));
        fs::create_dir(&top).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        symlink(&kept, top.join("link")).unwrap();
        let mut level = super::super::stage::directory(&top).unwrap();
        for _ in 0..70_000 {
            file::make_dir(level.as_fd(), c"d", 0).unwrap();
            level = file::open(level.as_fd(), c"d", libc::O_PATH, 0, 0).unwrap();
        }
        // Whoever is in it makes the kernel look at all of it for each directory.
        drop(level);
        remove(&blob(&top)).unwrap();
        assert!(!top.exists() && kept.join("file").exists());
        remove(&blob(&top)).unwrap();
        remove(&blob(&top.join("below"))).unwrap();
    }

    #[test]
    fn only_changed_files_are_measured() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["u0/a", "w0/work"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("u0/a/file"), vec![1; 100_000]).unwrap();
        symlink("/usr", directory.path().join("u0/link")).unwrap();
        let measured = |most| match measure(&blob(directory.path()), most).unwrap() {
            Reply::Measured {
                bytes,
                files,
                is_whole,
            } => (bytes >= 100_000, files, is_whole),
            other => panic!("{other:?}"),
        };
        assert_eq!(measured(100), (true, 3, true));
        assert!(!measured(2).2);
    }
}
