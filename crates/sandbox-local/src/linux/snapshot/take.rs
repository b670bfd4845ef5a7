//! Takes a snapshot of what a sandbox has changed, while none of its commands runs: as a layer that both stand on, by the
//! file system, or by copying it.

use super::{
    DIRECTORY, How, Manifest, NEW, OFFERED, Offered, WITHDRAWN, below, hold_all, make_directory,
    new_id, relative, require_free, rotate,
};
use crate::linux::{
    create::{check_name, now_ms},
    disk,
    record::{Record, STORE, storage_error},
    remove::remove_tree,
    site::Site,
    store::{self, Store},
    template::{Layer, Template, Tree, hold},
    usage,
};
use rustix::fs::syncfs;
use sandbox_agent::protocol::{
    Blob,
    zygote::{Reply, Request},
};
use sandbox_core::{Error, ErrorKind, Result, SnapshotInfo};
use std::{
    fs::{self, File},
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// Most bytes and files that are copied while the commands of a sandbox wait.
pub(crate) const MOST_BYTES: u64 = 4 << 30;
const MOST_FILES: u64 = 500_000;

/// Most layers of snapshots on each other. One more, and the upper half of them are merged: the lower ones have been there
/// for longer, and tend to be the larger ones.
const DEEPEST: usize = 16;

/// A snapshot that was just taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// If it is offered.
    pub(crate) info: Option<SnapshotInfo>,
    /// It, ready to start from.
    pub(crate) template: Template,
}

/// A sandbox whose commands are held while a snapshot is taken of it.
pub(crate) trait Holder {
    /// Whether nothing is in it but its PID 1, and nothing will be until all is done.
    fn claim(&self) -> Result<bool>;

    /// The connection by which that holds.
    fn connection(&self) -> BorrowedFd<'_>;

    /// Fails if it has ended: then somebody may have begun to remove it.
    fn still_there(&self) -> Result<()>;
}

/// A sandbox of which a snapshot is about to be taken.
#[derive(Debug)]
pub(crate) struct Prepared {
    record: Record,
    name: Option<String>,
    /// What it stands on.
    lowers: Vec<Tree>,
    /// What is to be the snapshot, if something of it is there already.
    new: Option<New>,
}

/// Does what takes long, while the commands of the sandbox go on, which answers on `connection`: merges layers that nobody
/// changes any more. Nobody else does the same.
///
/// # Errors
/// `AlreadyExists` for the name, `StorageFull`.
pub(crate) fn prepare(
    site: &Site,
    record: &Record,
    name: Option<String>,
    connection: BorrowedFd<'_>,
) -> Result<Prepared> {
    let failed = |error| storage_error(error, "the snapshot could not be written");
    if let Some(name) = &name {
        check_name(name)?;
        require_free(&site.state, name)?;
    }
    if record.trees.is_empty() {
        let message = "the sandbox was made by a version that takes no snapshots";
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    let record = rotate::settle(site, record, connection).map_err(failed)?;
    let mut lowers = below(&site.state, record.trees.clone());
    let mut new = None;
    // Where nothing has changed there will be no layer more.
    let store = site.records.path(&record.id).join(STORE);
    if is_deep(site, &lowers) && has_changes(&store, &record).map_err(not_copied)? {
        let made = New::make(&site.state, &lowers).map_err(failed)?;
        lowers = made.merge(site, lowers).map_err(failed)?;
        new = Some(made);
    }
    Ok(Prepared {
        record,
        name,
        lowers,
        new,
    })
}

/// Keeps what a sandbox has changed, of which nothing runs meanwhile. A snapshot without `offer` is for the template that
/// comes with it alone.
///
/// # Errors
/// `QuotaExceeded` if there is too much to copy, `StorageFull`; `InvalidState` if something runs and cannot be stopped.
pub(crate) fn take(
    site: &Site,
    prepared: Prepared,
    offer: bool,
    holder: &impl Holder,
) -> Result<Taken> {
    let failed = |error| storage_error(error, "the snapshot could not be written");
    let Prepared {
        record,
        name,
        mut lowers,
        new: prepared,
    } = prepared;
    let own_lowers = || below(&site.state, record.trees.clone());
    let path = site.records.path(&record.id);
    let store = path.join(STORE);
    let changed = has_changes(&store, &record).map_err(not_copied)?;
    if !offer && !changed {
        return unchanged(site, &record, own_lowers());
    }
    let manifest = |trees: Vec<Tree>, how, copied: Copied| Manifest {
        name: name.clone(),
        created_ms: now_ms(),
        sandbox: record.id.clone(),
        template: record.template.clone(),
        shell: record.shell.clone(),
        env: record.template_env.clone(),
        trees: relative(&site.state, &trees),
        how,
        bytes: copied.bytes,
        files: copied.files,
    };
    let new = match prepared {
        Some(new) => new,
        None => New::make(&site.state, &lowers).map_err(failed)?,
    };
    let mut new = Some(new);
    if changed && record.store == Store::Directory && holder.claim()? {
        // To count them takes longer the more there are, which is nothing that a fork should wait for.
        let known = offer.then(|| usage::of_disk(&path)).flatten();
        let (bytes, files) = known.unwrap_or_default();
        let frozen = |trees| manifest(trees, How::Frozen, Copied { bytes, files });
        let rotation = rotate::rotate(
            site,
            &record,
            holder.connection(),
            &lowers,
            &mut new,
            frozen,
        )?;
        if let Some(made) = rotation {
            holder.still_there()?;
            return made.taken(&site.state, offer);
        }
    }
    if changed && !can_be_stopped(&record) {
        return Err(not_stopped());
    }
    let new = match new {
        Some(new) => new,
        // What was merged went with the layer that could not be made.
        None => {
            lowers = own_lowers();
            let new = New::make(&site.state, &lowers).map_err(failed)?;
            if is_deep(site, &lowers) {
                lowers = new.merge(site, lowers).map_err(failed)?;
            }
            new
        }
    };
    let (how, taken) = match record.store {
        _ if !changed => (How::Copied, Ok((lowers, Copied::default()))),
        Store::Subvolume => (How::Shared, new.share(site, &record, &store, lowers)),
        _ => (
            How::Copied,
            new.copy(site, &store, record.generation, lowers),
        ),
    };
    // What somebody removes meanwhile cannot be copied either, and that is the better reason.
    holder.still_there()?;
    let (trees, copied) = taken.map_err(not_copied)?;
    let file = if offer { OFFERED } else { WITHDRAWN };
    new.put(&site.state, manifest(trees, how, copied), file)?
        .taken(&site.state, offer)
}

/// Whether what runs in the sandbox has stopped once that is held.
fn can_be_stopped(record: &Record) -> bool {
    record.groups.v2.is_some()
}

fn not_stopped() -> Error {
    let message = "something runs in the sandbox that cannot be stopped without a cgroup of version 2: end it first";
    Error::new(ErrorKind::InvalidState, message)
}

/// Whether anything is in the upper directories of a store.
fn has_changes(store: &Path, record: &Record) -> io::Result<bool> {
    for index in 0..record.trees.len() {
        if !is_empty(&upper_of(store, index, record.generation))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The upper directory of a tree.
fn upper_of(store: &Path, index: usize, generation: u32) -> PathBuf {
    let [upper, _] = store::names(index, generation);
    store.join(upper)
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    match fs::read_dir(directory) {
        // Somebody inside has closed it to an ordinary user: a change as well.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        entries => Ok(entries?.next().is_none()),
    }
}

/// What a sandbox that has changed nothing was made from itself.
fn unchanged(site: &Site, record: &Record, trees: Vec<Tree>) -> Result<Taken> {
    let held = hold_all(&site.state, &trees, None);
    let held = held.and_then(|held| held.ok_or_else(|| io::ErrorKind::NotFound.into()));
    let template = Template {
        name: record.template.clone(),
        directory: record.template_directory.clone().unwrap_or_default(),
        _held: held.map_err(not_copied)?,
        trees,
        shell: record.shell.clone(),
        env: record.template_env.clone(),
    };
    Ok(Taken {
        info: None,
        template,
    })
}

pub(super) fn not_copied(error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::FileTooLarge {
        return storage_error(error, "the sandbox's changed files could not be copied");
    }
    let message = format!(
        "the sandbox has changed too much to be copied while its commands wait: at most {} MiB and {MOST_FILES} files",
        MOST_BYTES >> 20
    );
    Error::new(ErrorKind::QuotaExceeded, message)
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copied {
    bytes: u64,
    files: u64,
}

/// A snapshot that is being made. Dropping it removes what there is of it.
#[derive(Debug)]
pub(super) struct New {
    id: String,
    path: PathBuf,
    /// This and all below it, so that nobody removes them.
    held: Vec<File>,
}

impl New {
    fn make(state: &Path, lowers: &[Tree]) -> io::Result<Self> {
        let directory = make_directory(state)?;
        // Those of a sandbox that lives, and from now on they stay also if it does not.
        let gone = io::ErrorKind::NotFound;
        let mut held = hold_all(state, lowers, None)?.ok_or(gone)?;
        loop {
            let id = new_id()?;
            let path = directory.join(format!("{NEW}{id}"));
            fs::create_dir(&path)?;
            // Somebody who cleans up may have been quicker.
            if let Some(own) = hold(&path)? {
                held.push(own);
                return Ok(Self { id, path, held });
            }
        }
    }

    /// Puts one layer in the place of the upper half of those of each tree that has too many. Nobody changes them any more,
    /// so that nothing has to wait meanwhile.
    fn merge(&self, site: &Site, mut trees: Vec<Tree>) -> io::Result<Vec<Tree>> {
        for (index, tree) in trees.iter_mut().enumerate() {
            if count_ours(site, tree) < DEEPEST {
                continue;
            }
            let path = self.path.join(format!("{index}.merged"));
            let upper_half = tree.lowers.drain(..DEEPEST / 2);
            let upper_half: Vec<_> = upper_half.map(|layer| layer.path).collect();
            copy(site, &upper_half, &path, [u64::MAX; 2])?;
            tree.lowers.insert(0, Layer { path, stored: true });
        }
        Ok(trees)
    }

    /// As [`Self::copy`], in no time: the store is part of a file system that can do that.
    fn share(
        &self,
        site: &Site,
        record: &Record,
        store: &Path,
        mut trees: Vec<Tree>,
    ) -> io::Result<(Vec<Tree>, Copied)> {
        let shared = disk::copy(&site.state, record.id.as_str(), &self.id)?;
        for (index, tree) in trees.iter_mut().enumerate() {
            let upper = |store| upper_of(store, index, record.generation);
            if !is_empty(&upper(store))? {
                let path = upper(&shared);
                tree.lowers.insert(0, Layer { path, stored: true });
            }
        }
        Ok((trees, Copied::default()))
    }

    /// The trees with layers for what is in the upper directories in `store`. They are not there yet.
    pub(super) fn adopt(
        &self,
        store: &Path,
        generation: u32,
        mut trees: Vec<Tree>,
    ) -> io::Result<Vec<Tree>> {
        for (index, tree) in trees.iter_mut().enumerate() {
            if !is_empty(&upper_of(store, index, generation))? {
                let path = self.path.join(index.to_string());
                tree.lowers.insert(0, Layer { path, stored: true });
            }
        }
        Ok(trees)
    }

    /// Copies the upper directories in `store`; returns the trees with them, and what was copied.
    fn copy(
        &self,
        site: &Site,
        store: &Path,
        generation: u32,
        mut trees: Vec<Tree>,
    ) -> io::Result<(Vec<Tree>, Copied)> {
        let mut all = Copied::default();
        for (index, tree) in trees.iter_mut().enumerate() {
            let upper = upper_of(store, index, generation);
            if is_empty(&upper)? {
                continue;
            }
            let path = self.path.join(index.to_string());
            let left = [MOST_BYTES - all.bytes, MOST_FILES - all.files];
            let copied = copy(site, &[upper], &path, left)?;
            all.bytes += copied.bytes;
            all.files += copied.files;
            tree.lowers.insert(0, Layer { path, stored: true });
        }
        Ok((trees, all))
    }

    /// Gives it its name, from which on it is there, with `file` as its manifest.
    pub(super) fn put(mut self, state: &Path, mut manifest: Manifest, file: &str) -> Result<Made> {
        let failed = |error| storage_error(error, "the snapshot could not be written");
        let directory = state.join(DIRECTORY);
        let path = directory.join(&self.id);
        let temporary = self.path.strip_prefix(state).unwrap_or(&self.path);
        for layer in manifest.trees.iter_mut().flat_map(|tree| &mut tree.lowers) {
            if let Ok(own) = layer.path.strip_prefix(temporary) {
                layer.path = Path::new(DIRECTORY).join(&self.id).join(own);
            }
        }
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
        fs::write(self.path.join(file), text).map_err(failed)?;
        if file == OFFERED {
            sync(state, &self.path, manifest.how).map_err(failed)?;
        }
        let name = manifest.name.as_ref().filter(|_| file == OFFERED);
        let _names = name.map(|name| reserve(state, name)).transpose()?;
        fs::rename(&self.path, &path).map_err(failed)?;
        self.path = PathBuf::new();
        Ok(Made {
            id: std::mem::take(&mut self.id),
            held: std::mem::take(&mut self.held),
            manifest,
            offered: file == OFFERED,
        })
    }
}

/// Has the disk what is in a snapshot before it is offered: overlays leave that to the kernel's leisure, and a power cut
/// could leave the name and lose the files.
fn sync(state: &Path, snapshot: &Path, how: How) -> io::Result<()> {
    let file_system = match how {
        How::Shared => state.join(disk::DIRECTORY),
        How::Copied | How::Frozen => snapshot.to_owned(),
    };
    Ok(syncfs(File::open(file_system)?)?)
}

/// Whether one more layer would be one too many.
fn is_deep(site: &Site, trees: &[Tree]) -> bool {
    trees.iter().any(|tree| count_ours(site, tree) >= DEEPEST)
}

/// How many layers of a tree are of snapshots.
fn count_ours(site: &Site, tree: &Tree) -> usize {
    let places = [DIRECTORY, disk::DIRECTORY].map(|name| site.state.join(name));
    let is_ours = |layer: &&Layer| {
        let place = layer.path.parent().and_then(Path::parent);
        place.is_some_and(|place| places.iter().any(|ours| ours == place))
    };
    tree.lowers.iter().take_while(is_ours).count()
}

/// Has layers, the uppermost first, copied to one at `to`.
fn copy(site: &Site, from: &[PathBuf], to: &Path, [bytes, files]: [u64; 2]) -> io::Result<Copied> {
    let blob = |path: &Path| Blob(path.as_os_str().as_bytes().to_vec());
    let request = Request::Copy {
        from: from.iter().map(|path| blob(path)).collect(),
        to: blob(to),
        bytes,
        files,
    };
    match site.zygote.tend(&request)? {
        Reply::Copied { bytes, files } => Ok(Copied { bytes, files }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Refuses a name that is taken. As long as what is returned is there, nobody takes it.
fn reserve(state: &Path, name: &str) -> Result<File> {
    let lock = || {
        let names = File::create(state.join(DIRECTORY).join(".lock"))?;
        names.lock()?;
        Ok(names)
    };
    let names =
        lock().map_err(|error| storage_error(error, "the snapshot could not be written"))?;
    require_free(state, name)?;
    Ok(names)
}

/// A snapshot that was made.
pub(super) struct Made {
    id: String,
    /// This and all below it, so that nobody removes them.
    held: Vec<File>,
    manifest: Manifest,
    offered: bool,
}

impl Made {
    /// Name of its directory, as records have it.
    pub(super) fn directory(&self) -> String {
        format!("{DIRECTORY}/{}", self.id)
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Offers it, if it is to be and is not yet.
    fn taken(self, state: &Path, offer: bool) -> Result<Taken> {
        if offer && !self.offered {
            let name = self.manifest.name.as_ref();
            let _names = name.map(|name| reserve(state, name)).transpose()?;
            let path = state.join(self.directory());
            sync(state, &path, self.manifest.how)
                .map_err(|error| storage_error(error, "the snapshot could not be written"))?;
            fs::rename(path.join(WITHDRAWN), path.join(OFFERED))
                .map_err(|error| storage_error(error, "the snapshot could not be written"))?;
        }
        let template = Template {
            name: self.manifest.template.clone(),
            directory: self.directory(),
            _held: self.held,
            trees: below(state, self.manifest.trees.clone()),
            shell: self.manifest.shell.clone(),
            env: self.manifest.env.clone(),
        };
        let (id, manifest) = (self.id, self.manifest);
        let info = offer.then(|| Offered { id, manifest }.info());
        Ok(Taken { info, template })
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        let state = self.path.parent().and_then(Path::parent);
        let shared = state.map_or(Ok(()), |state| disk::remove(state, &self.id));
        if let Err(error) = shared.and_then(|()| remove_tree(&self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "a snapshot that failed could not be removed");
        }
    }
}
