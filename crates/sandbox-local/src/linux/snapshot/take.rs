//! Takes a snapshot by copying what a sandbox has changed, while none of its commands runs.

use super::{
    DIRECTORY, Manifest, NEW, OFFERED, Offered, WITHDRAWN, below, copy, copy::Budget, hold_all,
    make_directory, new_id, relative, require_free,
};
use crate::linux::{
    create::{check_name, now_ms},
    disk,
    record::{Record, STORE, storage_error},
    remove::remove_tree,
    site::Site,
    store::Store,
    template::{Layer, Template, Tree, hold},
};
use sandbox_core::{Error, ErrorKind, Result, SnapshotInfo};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Most bytes and files that are copied while the commands of a sandbox wait.
pub(crate) const MOST_BYTES: u64 = 4 << 30;
const MOST_FILES: u64 = 500_000;

/// Most layers of snapshots on each other. One more, and they are merged.
const DEEPEST: usize = 8;

/// A snapshot that was just taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// If it is offered.
    pub(crate) info: Option<SnapshotInfo>,
    /// It, ready to start from.
    pub(crate) template: Template,
}

/// Copies what the sandbox of this record has changed, of which nothing must run meanwhile. `still_there` says afterwards
/// whether nobody has begun to remove it. A snapshot without `offer` is for the template that comes with it alone.
///
/// # Errors
/// `AlreadyExists` for the name, `QuotaExceeded` if there is too much to copy, `StorageFull`.
pub(crate) fn take(
    site: &Site,
    record: &Record,
    name: Option<String>,
    offer: bool,
    still_there: impl FnOnce() -> Result<()>,
) -> Result<Taken> {
    let failed = |error| storage_error(error, "the snapshot could not be written");
    if let Some(name) = &name {
        check_name(name)?;
        require_free(&site.state, name)?;
    }
    if record.trees.is_empty() {
        let message = "the sandbox was made by a version that takes no snapshots";
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    let lowers = below(&site.state, record.trees.clone());
    let upper = site.records.path(&record.id).join(STORE);
    if !offer && !has_changes(&upper, lowers.len()).map_err(not_copied)? {
        return unchanged(site, record, lowers);
    }
    let new = New::make(&site.state, &lowers).map_err(failed)?;
    let copied = match record.store {
        Store::Subvolume if !new.is_deep(&lowers) => new.share(site, record, &upper, lowers),
        _ => new.copy(&upper, lowers),
    };
    // What somebody removes meanwhile cannot be copied either, and that is the better reason.
    still_there()?;
    let (trees, copied) = copied.map_err(not_copied)?;
    let manifest = Manifest {
        name,
        created_ms: now_ms(),
        sandbox: record.id.clone(),
        template: record.template.clone(),
        shell: record.shell.clone(),
        env: record.template_env.clone(),
        trees: relative(&site.state, &trees),
        bytes: copied.bytes,
        files: copied.files,
    };
    new.finish(&site.state, manifest, offer)
}

/// Whether anything is in the upper directories of a store.
fn has_changes(store: &Path, trees: usize) -> io::Result<bool> {
    for index in 0..trees {
        if !is_empty(&store.join(upper_of(index)))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Name of the upper directory of a tree.
fn upper_of(index: usize) -> String {
    format!("u{index}")
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none())
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

fn not_copied(error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::FileTooLarge {
        return storage_error(error, "the sandbox's changed files could not be copied");
    }
    let message = format!(
        "the sandbox has changed too much to be copied while its commands wait: at most {} MiB and {MOST_FILES} files",
        MOST_BYTES >> 20
    );
    Error::new(ErrorKind::QuotaExceeded, message)
}

/// A snapshot that is being made. Dropping it removes what there is of it.
struct New {
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

    /// How many layers of a tree are of snapshots.
    fn count_ours(&self, tree: &Tree) -> usize {
        let snapshots = self.path.parent();
        let disk = snapshots
            .and_then(Path::parent)
            .map(|state| state.join(disk::DIRECTORY));
        let is_ours = |layer: &&Layer| {
            let place = layer.path.parent().and_then(Path::parent);
            place == snapshots || place == disk.as_deref()
        };
        tree.lowers.iter().take_while(is_ours).count()
    }

    /// Whether one more layer would be one too many.
    fn is_deep(&self, trees: &[Tree]) -> bool {
        trees.iter().any(|tree| self.count_ours(tree) >= DEEPEST)
    }

    /// As [`Self::copy`], in no time: the store is part of a file system that can do that.
    fn share(
        &self,
        site: &Site,
        record: &Record,
        store: &Path,
        mut trees: Vec<Tree>,
    ) -> io::Result<(Vec<Tree>, Budget)> {
        let shared = disk::copy(&site.state, record.id.as_str(), &self.id)?;
        for (index, tree) in trees.iter_mut().enumerate() {
            let upper = upper_of(index);
            if !is_empty(&store.join(&upper))? {
                let path = shared.join(upper);
                tree.lowers.insert(0, Layer { path, stored: true });
            }
        }
        Ok((trees, Budget { bytes: 0, files: 0 }))
    }

    /// Copies the upper directories in `store`; returns the trees with them, and what was copied.
    fn copy(&self, store: &Path, mut trees: Vec<Tree>) -> io::Result<(Vec<Tree>, Budget)> {
        let links = self.path.join("links");
        let mut budget = Budget {
            bytes: MOST_BYTES,
            files: MOST_FILES,
        };
        for (index, tree) in trees.iter_mut().enumerate() {
            let upper = store.join(upper_of(index));
            if is_empty(&upper)? {
                continue;
            }
            let copied = self.path.join(index.to_string());
            let mut merged = vec![upper];
            let ours = self.count_ours(tree);
            if ours >= DEEPEST {
                merged.extend(tree.lowers.drain(..ours).map(|layer| layer.path));
            }
            for layer in merged {
                // Files of different layers have nothing in common.
                fs::create_dir(&links)?;
                copy::copy_tree(&layer, &copied, &links, &mut budget)?;
                remove_tree(&links)?;
            }
            tree.lowers.insert(
                0,
                Layer {
                    path: copied,
                    stored: true,
                },
            );
        }
        let copied = Budget {
            bytes: MOST_BYTES - budget.bytes,
            files: MOST_FILES - budget.files,
        };
        Ok((trees, copied))
    }

    /// Gives it its name, from which on it is there, whole.
    fn finish(mut self, state: &Path, mut manifest: Manifest, offer: bool) -> Result<Taken> {
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
        let file = if offer { OFFERED } else { WITHDRAWN };
        fs::write(self.path.join(file), text).map_err(failed)?;
        let names = File::create(directory.join(".lock")).map_err(failed)?;
        names.lock().map_err(failed)?;
        if let Some(name) = &manifest.name {
            require_free(state, name)?;
        }
        fs::rename(&self.path, &path).map_err(failed)?;
        self.path = PathBuf::new();
        let id = std::mem::take(&mut self.id);
        let template = Template {
            name: manifest.template.clone(),
            directory: format!("{DIRECTORY}/{id}"),
            _held: std::mem::take(&mut self.held),
            trees: below(state, manifest.trees.clone()),
            shell: manifest.shell.clone(),
            env: manifest.env.clone(),
        };
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
