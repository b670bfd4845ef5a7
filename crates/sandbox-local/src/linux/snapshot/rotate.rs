//! Makes a layer of what a sandbox has changed without copying it: the sandbox, in which nothing runs, goes on with empty
//! directories above that layer.
//!
//! What is on disk changes in steps, and this program may be killed after any of them. So the record names the snapshot
//! that is to be the layer before the kernel is asked to change anything; whether it has is then told by the sandbox's own
//! list of mounts; and the rest can be done by whoever looks next.

use super::{
    Manifest, WITHDRAWN, below,
    take::{Made, New},
};
use crate::linux::{
    create::{ids, overlays},
    init,
    places::Places,
    record::{Record, STORE},
    remove::remove_tree,
    site::Site,
    store,
    template::Tree,
    zygote::Zygote,
};
use sandbox_agent::protocol::{
    Blob,
    zygote::{Request, Rotate},
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Puts the sandbox of this record, which the connection `claim` has for itself, on the snapshot that is being made, above
/// `lowers`; its `manifest` is given the trees with it. `None` if that cannot be done now; then the sandbox is as it was, and
/// what was being made is gone.
pub(super) fn rotate(
    site: &Site,
    record: &Record,
    claim: BorrowedFd<'_>,
    lowers: &[Tree],
    new: &mut Option<New>,
    manifest: impl FnOnce(Vec<Tree>) -> Manifest,
) -> sandbox_core::Result<Option<Made>> {
    let failed = super::take::not_copied;
    let store = site.records.path(&record.id).join(STORE);
    let Some(new) = new.take() else {
        return Ok(None);
    };
    let layered = new.adopt(&store, record.generation, lowers.to_vec());
    let made = new.put(&site.state, manifest(layered.map_err(failed)?), WITHDRAWN)?;
    let moved = move_on(site, record, claim, &made).map_err(failed)?;
    if !moved {
        remove_tree(&site.state.join(made.directory())).map_err(failed)?;
    }
    Ok(moved.then_some(made))
}

/// Has the kernel put the sandbox on its next layer; returns whether it has.
fn move_on(site: &Site, record: &Record, claim: BorrowedFd<'_>, made: &Made) -> io::Result<bool> {
    let mut record = record.clone();
    let store = &site.records.path(&record.id).join(STORE);
    let path = site.records.path(&record.id);
    let Some((_, init)) = init::find(&path, &record.uids())? else {
        return Ok(false);
    };
    let Some(places) = Places::of(site, &record, claim)? else {
        return Ok(false);
    };
    record.next = Some(made.directory());
    site.records.update(&record)?;
    make_directories(store, &record)?;
    let generation = record.generation + 1;
    let trees = standing(site, store, record.generation, made);
    let (uid_base, uid_count, _) = ids(&record);
    let rotate = Rotate {
        uid_base,
        uid_count,
        overlays: overlays(store, &trees, generation),
        generation,
    };
    match site.zygote.rotate(rotate, init.as_fd(), claim, &places) {
        Ok(true) => {}
        Ok(false) => tracing::debug!(id = %record.id, "files of the sandbox are open for writing"),
        Err(error) => tracing::debug!(id = %record.id, %error, "the sandbox keeps its layers"),
    }
    let settled = settle(site, &record, claim)?;
    let moved = settled.generation == generation;
    // What is of no use any more: the old directories to work in, or the new ones.
    let unused = if moved { record.generation } else { generation };
    for name in (0..trees.len()).flat_map(|index| store::names(index, unused)) {
        remove_tree(&store.join(name))?;
    }
    Ok(moved)
}

/// Makes the directories of the next generation; those of files are as the present ones.
fn make_directories(store: &Path, record: &Record) -> io::Result<()> {
    for index in 0..record.trees.len() {
        let present = store::names(index, record.generation);
        let next = store::names(index, record.generation + 1);
        for (present, next) in present.iter().zip(next) {
            let next = store.join(next);
            // Of an attempt that was cut short.
            remove_tree(&next)?;
            fs::create_dir(&next)?;
            store::make_alike(&next, &store.join(present))?;
        }
    }
    Ok(())
}

/// The trees of a snapshot with what becomes part of it where it still is.
fn standing(site: &Site, store: &Path, generation: u32, made: &Made) -> Vec<Tree> {
    let mut trees = below(&site.state, made.manifest().trees.clone());
    for (index, tree) in trees.iter_mut().enumerate() {
        let own = own_layer(&site.state, &made.directory(), index);
        if let Some(top) = tree.lowers.first_mut().filter(|top| top.path == own)
            && !own.exists()
        {
            let [upper, _] = store::names(index, generation);
            top.path = store.join(upper);
        }
    }
    trees
}

/// Where a snapshot has the layer of a tree.
fn own_layer(state: &Path, directory: &str, index: usize) -> PathBuf {
    state.join(directory).join(index.to_string())
}

/// Brings the record of a sandbox, which answers on `connection`, in line with what the kernel has done, if somebody was
/// about to change it; returns it.
pub(super) fn settle(
    site: &Site,
    record: &Record,
    connection: BorrowedFd<'_>,
) -> io::Result<Record> {
    let mut settled = record.clone();
    let Some(next) = settled.next.take() else {
        return Ok(settled);
    };
    if is_at(site, record, connection, record.generation + 1)? {
        let manifest = Manifest::read(&site.state.join(&next), WITHDRAWN)?;
        let store = site.records.path(&record.id).join(STORE);
        for (index, tree) in manifest.trees.iter().enumerate() {
            let own = own_layer(&site.state, &next, index);
            let top = tree.lowers.first().map(|top| site.state.join(&top.path));
            if top.as_ref() == Some(&own) && !own.exists() {
                let [upper, _] = store::names(index, record.generation);
                move_directory(&store.join(upper), &own)?;
            }
        }
        settled.trees = manifest.trees;
        settled.generation += 1;
    }
    site.records.update(&settled)?;
    Ok(settled)
}

/// Whether the root of a sandbox is of this generation. One that has ended has none.
fn is_at(
    site: &Site,
    record: &Record,
    connection: BorrowedFd<'_>,
    generation: u32,
) -> io::Result<bool> {
    match Places::of(site, record, connection)? {
        Some(places) => places.are_at(generation),
        None => Ok(false),
    }
}

/// Moves the directory of changed files to its place in a snapshot. Whoever moves a directory must be able to write to it.
fn move_directory(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let Some(helper) = Zygote::helper() else {
                return move_closed(from, to);
            };
            let blob = |path: &Path| Blob(path.as_os_str().as_bytes().to_vec());
            let (from, to) = (blob(from), blob(to));
            helper.tend(&Request::Move { from, to }).map(drop)
        }
        moved => moved,
    }
}

/// As [`move_directory`], of one that is this program's user's.
fn move_closed(from: &Path, to: &Path) -> io::Result<()> {
    let permissions = fs::symlink_metadata(from)?.permissions();
    fs::set_permissions(from, fs::Permissions::from_mode(0o700))?;
    let moved = fs::rename(from, to);
    let now = if moved.is_ok() { to } else { from };
    fs::set_permissions(now, permissions)?;
    moved
}
