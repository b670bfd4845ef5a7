//! Gives files of an ordinary user's sandboxes to subordinate ids, in the zygote's user namespace, in which these are the
//! ids that sandboxes see and 1 more.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown};
use std::path::Path;

use sandbox_agent::protocol::zygote::{Overlay, Owned, OwnedFile, Owners};
use sandbox_agent::protocol::{Blob, Wire as _};

use super::failure::{During as _, Failure};
use super::stage::Stage;
use super::trees::{is, open, place};
use crate::files::walk::{self, Step, Walk};
use crate::pid1::COMMANDS;
use crate::sys::file;

/// Most bytes of a table of owners: enough for ten million files.
const LONGEST_TABLE: u64 = 256 << 20;

/// The last id of a sandbox, as it is here.
const LAST: u32 = 65_536;

/// Whose the files are that are not root's, by their inodes.
pub(crate) type Exceptions = HashMap<u64, OwnedFile>;

pub(crate) fn read_owners(table: Option<OwnedFd>) -> io::Result<Exceptions> {
    let mut bytes = Vec::new();
    if let Some(table) = table {
        let mut table = File::from(table);
        table.rewind()?;
        table.take(LONGEST_TABLE).read_to_end(&mut bytes)?;
    }
    if bytes.is_empty() {
        return Ok(HashMap::new());
    }
    let owners = Owners::decode(&bytes).map_err(io::Error::other)?;
    Ok(owners
        .files
        .into_iter()
        .map(|file| (file.inode, file))
        .collect())
}

/// An id of a sandbox as this user namespace has it.
fn given(id: u32) -> io::Result<u32> {
    let own = id.checked_add(1).filter(|own| *own < u32::MAX);
    own.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Gives a tree that nobody else knows yet to root of the sandboxes, but for what is others'.
pub(crate) fn give(path: &Blob, others: &[Owned], owners: &Exceptions) -> io::Result<()> {
    let (parent, name) = place(path)?;
    let root = open(parent.as_fd(), &name)?;
    let of_root = give_one(parent.as_fd(), &name, owners)?;
    set_mode(root.as_fd(), of_root)?;
    let mut walk = Walk::of_any_depth(file::open(root.as_fd(), c".", walk::OPEN, 0, 0)?)?;
    loop {
        let name = match walk.step()? {
            Step::Entry(name) => name,
            Step::Left(_) => continue,
            Step::End => break,
        };
        let exception = give_one(walk.directory()?, &name, owners)?;
        match walk.enter(name) {
            Err(error) if is(&error, &[libc::ENOTDIR, libc::ELOOP]) => {}
            entered => {
                entered?;
                set_mode(walk.directory()?, exception)?;
            }
        }
    }
    for other in others {
        let inside = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
        let path = match &*other.path.0 {
            b"" => c".".to_owned(),
            path => file::c_string(path)?,
        };
        let entry = file::open(
            root.as_fd(),
            &path,
            libc::O_PATH | libc::O_NOFOLLOW,
            0,
            inside,
        )?;
        file::set_owner(
            entry.as_fd(),
            Some(given(other.uid)?),
            Some(given(other.gid)?),
        )?;
    }
    Ok(())
}

/// Gives an entry to whom it belongs; returns what is known of it if that is not root.
fn give_one<'a>(
    directory: BorrowedFd<'_>,
    name: &CStr,
    owners: &'a Exceptions,
) -> io::Result<Option<&'a OwnedFile>> {
    let exception = if owners.is_empty() {
        None
    } else {
        owners.get(&file::status_of(directory, name)?.st_ino)
    };
    let (uid, gid) = exception.map_or((0, 0), |file| (file.uid, file.gid));
    file::set_owner_of(directory, name, given(uid)?, given(gid)?)?;
    Ok(exception)
}

/// Gives a directory the permissions that it is to have in the end.
fn set_mode(directory: BorrowedFd<'_>, exception: Option<&OwnedFile>) -> io::Result<()> {
    match exception.map(|file| file.mode) {
        None | Some(u32::MAX) => Ok(()),
        Some(mode) => file::set_mode(directory, c".", mode & 0o7777),
    }
}

/// Gives the directories of changed files to whom the layers below are, or else to root of the sandbox.
pub(crate) fn give_store(stage: &Stage, overlays: &[Overlay]) -> Result<(), Failure> {
    stage.visit_host(|| {
        for overlay in overlays {
            let owner = match overlay.lowers.first().filter(|top| top.stored) {
                Some(top) => fs::symlink_metadata(OsStr::from_bytes(&top.path.0))
                    .map(|found| owner(found.uid(), found.gid()))
                    .during("look at the layer below the sandbox's files")?,
                None => (1, 1),
            };
            give_directories(overlay, owner)?;
        }
        Ok(())
    })
}

/// As [`give_store`], to whom the present overlays' roots are.
pub(crate) fn give_store_like(
    stage: &Stage,
    overlays: &[Overlay],
    roots: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    stage.visit_host(|| {
        for (overlay, root) in overlays.iter().zip(roots) {
            let status = file::status(*root).during("look at the sandbox's root")?;
            give_directories(overlay, owner(status.st_uid, status.st_gid))?;
        }
        Ok(())
    })
}

fn give_directories(overlay: &Overlay, of_files: (u32, u32)) -> Result<(), Failure> {
    let store = Path::new(OsStr::from_bytes(&overlay.store.0));
    for (name, (uid, gid)) in [(&overlay.upper, of_files), (&overlay.work, (1, 1))] {
        let path = store.join(OsStr::from_bytes(&name.0));
        lchown(path, Some(uid), Some(gid)).during("give the sandbox its files")?;
    }
    Ok(())
}

/// Whose a directory is to be that a sandbox has as its root. What is none of the sandbox's users' is root's.
fn owner(uid: u32, gid: u32) -> (u32, u32) {
    let given = |id: u32| if (1..=LAST).contains(&id) { id } else { 1 };
    (given(uid), given(gid))
}

/// Lets root of a sandbox make groups for its commands, stop them and kill them. The group that these are in stays this
/// user's, who could not remove them otherwise.
pub(crate) fn give_cgroup(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let top = format!("/proc/self/fd/{}", cgroup.as_raw_fd());
    let commands = format!("{top}/{}", COMMANDS.to_string_lossy());
    fs::DirBuilder::new().mode(0o755).create(&commands)?;
    for (path, mode) in [
        // A process is moved by who may write to both groups and the one above them.
        (format!("{top}/cgroup.procs"), 0o664),
        (format!("{commands}/cgroup.procs"), 0o664),
        (format!("{commands}/cgroup.freeze"), 0o664),
        (commands, 0o775),
    ] {
        chown(&path, None, Some(1))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn blob(path: &Path) -> Blob {
        Blob(path.as_os_str().as_bytes().to_vec())
    }

    #[test]
    fn a_tree_is_given_to_root_but_for_what_is_others() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("home/user")).unwrap();
        symlink("/etc/passwd", top.join("home/link")).unwrap();
        let owned = |path: &str, uid, gid| Owned {
            path: path.into(),
            uid,
            gid,
        };
        let others = [owned("home/user", 1000, 42), owned("", 0, 6)];
        give(&blob(&top), &others, &Exceptions::new()).unwrap();
        let owner = |name: &str| {
            let found = fs::symlink_metadata(top.join(name)).unwrap();
            (found.uid(), found.gid())
        };
        assert_eq!(
            (owner(""), owner("home"), owner("home/link")),
            ((1, 7), (1, 1), (1, 1))
        );
        assert_eq!(owner("home/user"), (1001, 43));
        let out = [Owned {
            path: "home/link/../../../x".into(),
            uid: 0,
            gid: 0,
        }];
        assert!(give(&blob(&top), &out, &Exceptions::new()).is_err());
        let nobody = [Owned {
            path: "home".into(),
            uid: u32::MAX,
            gid: 0,
        }];
        assert!(give(&blob(&top), &nobody, &Exceptions::new()).is_err());
        assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
    }

    #[test]
    fn the_owners_of_many_files_come_in_a_table_by_their_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("closed")).unwrap();
        fs::write(top.join("closed/file"), "").unwrap();
        fs::hard_link(top.join("closed/file"), top.join("same")).unwrap();
        symlink("/etc/passwd", top.join("link")).unwrap();
        let found = |name: &str| fs::symlink_metadata(top.join(name)).unwrap();
        let file = |name: &str, uid, gid, mode| OwnedFile {
            inode: found(name).ino(),
            uid,
            gid,
            mode,
        };
        let files = vec![
            file("", 0, 5, 0o711),
            file("closed", 7, 0, 0),
            file("same", 1000, 42, u32::MAX),
            file("link", 3, 3, u32::MAX),
        ];
        let table = file::memory_file(c"table").unwrap();
        let written = File::from(table.try_clone().unwrap());
        io::Write::write_all(&mut &written, &Owners { files }.encode()).unwrap();
        let owners = read_owners(Some(table)).unwrap();
        give(&blob(&top), &[], &owners).unwrap();
        let owner = |name: &str| {
            (
                found(name).uid(),
                found(name).gid(),
                found(name).mode() & 0o777,
            )
        };
        assert_eq!(owner(""), (1, 6, 0o711));
        assert_eq!(owner("closed"), (8, 1, 0));
        assert_eq!(owner("closed/file").0, 1001);
        assert_eq!((owner("same").1, owner("link").0), (43, 4));
        assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
        let cut = file::memory_file(c"cut").unwrap();
        io::Write::write_all(&mut &File::from(cut.try_clone().unwrap()), &[1, 0, 0]).unwrap();
        assert!(read_owners(Some(cut)).is_err());
    }
}
