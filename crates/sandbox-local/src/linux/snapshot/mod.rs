//! Snapshots: what a sandbox had changed at some moment, kept as layers for others.
//!
//! `<state>/snapshots/<id>/` holds a layer for each tree of the sandbox that had changed, and `manifest.json`, which names
//! these and all layers below them. While a snapshot is offered, the directories that its layers are in stay; so they do
//! while a sandbox lives whose record names them. To remove a snapshot is to offer it no longer, which is to give its
//! manifest another name. Whatever is not offered and not in use goes: with the last sandbox that uses it, with the next
//! start of a program, or with `prune`.

mod rotate;
mod take;

use super::{
    disk,
    record::{Record, Records, make_private, random, storage_error},
    remove::remove_tree,
    template::{self, ImportedTemplate, InUse, Origin, Template, Tree, hold},
};
use sandbox_core::{
    Error, ErrorKind, Result, SandboxId, SnapshotId, SnapshotInfo, TemplateId, TemplateInfo,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
pub(crate) use take::{Holder, Taken, prepare, take};

/// Name of the directory of all snapshots in the state directory.
pub(crate) const DIRECTORY: &str = "snapshots";
/// What the name of one begins with that is being made.
const NEW: &str = ".new-";
/// The manifest of a snapshot that is offered, and of one that is not.
const OFFERED: &str = "manifest.json";
const WITHDRAWN: &str = "withdrawn.json";

/// What the id of a snapshot begins with, and how many random letters and digits follow.
const PREFIX: &str = "snap-";
const RANDOM: usize = 12;

/// What a snapshot consists of, and where it is from. Paths are relative to the state directory, or absolute.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    name: Option<String>,
    /// Milliseconds since 1970.
    created_ms: u64,
    sandbox: SandboxId,
    /// What that sandbox was made from.
    template: String,
    shell: String,
    /// Variables that what it was made from sets for every command.
    #[serde(default)]
    env: BTreeMap<String, String>,
    trees: Vec<Tree>,
    #[serde(default)]
    how: How,
    /// Bytes of its own layers, and files, if they were counted.
    bytes: u64,
    files: u64,
}

/// How its own layers came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    /// Its files were copied, and shared with the originals where the file system can do that.
    #[default]
    Copied,
    /// They are in a snapshot of the file system that they were in.
    Shared,
    /// They are the originals, which nobody changes any more.
    Frozen,
}

impl How {
    /// For people.
    fn describe(self) -> &'static str {
        match self {
            Self::Copied => "its files were copied",
            Self::Shared => "its files are a snapshot of the sandbox's file system",
            Self::Frozen => "its files are the sandbox's own, which stands on them as well",
        }
    }
}

impl Manifest {
    fn created_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.created_ms)
    }

    fn read(directory: &Path, name: &str) -> io::Result<Self> {
        let text = fs::read(directory.join(name))?;
        serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// A snapshot that is offered.
#[derive(Debug)]
struct Offered {
    id: String,
    manifest: Manifest,
}

impl Offered {
    fn answers_to(&self, id: &str) -> bool {
        self.id == id || self.manifest.name.as_deref() == Some(id)
    }

    fn into_template(self, used: &InUse) -> ImportedTemplate {
        let directory = format!("{DIRECTORY}/{}", self.id);
        let Manifest { sandbox, .. } = &self.manifest;
        ImportedTemplate {
            id: TemplateId::new(self.id),
            names: self.manifest.name.iter().map(TemplateId::new).collect(),
            origin: Origin::Snapshot,
            created_at: self.manifest.created_at(),
            bytes: self.manifest.bytes,
            entries: self.manifest.files,
            notices: vec![
                format!("it has the files of the sandbox {sandbox}"),
                self.manifest.how.describe().to_owned(),
            ],
            in_use: used.as_ref().is_none_or(|used| used.contains(&directory)),
            env: self.manifest.env,
        }
    }

    fn info(&self) -> SnapshotInfo {
        let mut info = SnapshotInfo::new(SnapshotId::new(self.id.as_str()));
        info.name.clone_from(&self.manifest.name);
        info.created_at = Some(self.manifest.created_at());
        info.bytes = Some(self.manifest.bytes);
        info
    }
}

/// Whether a text could be the id of a snapshot.
fn is_id(text: &str) -> bool {
    let random = text.strip_prefix(PREFIX).unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    random.len() == RANDOM && random.bytes().all(fits)
}

/// Whether a text could be the id of a snapshot, now or later, so that it must not be a name.
pub(crate) fn looks_like_id(text: &str) -> bool {
    is_id(text)
}

/// Those that are offered, oldest first. What cannot be read is left out, and said so.
fn offered(state: &Path) -> io::Result<Vec<Offered>> {
    let directory = state.join(DIRECTORY);
    let mut offered = Vec::new();
    for id in names(&directory)?.filter(|name| is_id(name)) {
        match Manifest::read(&directory.join(&id), OFFERED) {
            Ok(manifest) => offered.push(Offered { id, manifest }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(snapshot = id, %error, "this snapshot cannot be read"),
        }
    }
    offered.sort_by_key(|one| (one.manifest.created_ms, one.id.clone()));
    Ok(offered)
}

fn names(directory: &Path) -> io::Result<impl Iterator<Item = String> + use<>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    let names = entries.into_iter().flatten().flatten();
    Ok(names.filter_map(|entry| entry.file_name().into_string().ok()))
}

fn find(state: &Path, id: &str) -> io::Result<Option<Offered>> {
    let all = offered(state)?;
    Ok(all.into_iter().find(|one| one.answers_to(id)))
}

/// Name of the directory of the snapshot of this id or name, as records have it.
pub(crate) fn directory(state: &Path, id: &str) -> io::Result<Option<String>> {
    let found = find(state, id)?;
    Ok(found.map(|one| format!("{DIRECTORY}/{}", one.id)))
}

/// Whether a snapshot of this id or name is offered.
pub(crate) fn exists(state: &Path, id: &str) -> bool {
    find(state, id).is_ok_and(|found| found.is_some())
}

/// Refuses a snapshot that is not there.
pub(crate) fn require(state: &Path, id: &SnapshotId) -> Result<()> {
    if exists(state, id.as_str()) {
        return Ok(());
    }
    let message = "there is no such snapshot";
    let id = id.as_str().escape_debug();
    Err(Error::new(ErrorKind::NotFound, message).with_context("snapshot", id))
}

/// The snapshots as templates.
pub(crate) fn list(state: &Path) -> Result<Vec<TemplateInfo>> {
    let all = offered(state).map_err(|error| storage_error(error, UNREADABLE))?;
    let info = |one: Offered| {
        let mut info = TemplateInfo::new(TemplateId::new(one.id.as_str()));
        info.aliases = one.manifest.name.iter().map(TemplateId::new).collect();
        let Manifest { sandbox, .. } = one.manifest;
        info.description = Some(format!("a snapshot of the sandbox {sandbox}"));
        info
    };
    Ok(all.into_iter().map(info).collect())
}

/// What is known of all of them.
pub(crate) fn infos(state: &Path, used: &InUse) -> Vec<ImportedTemplate> {
    let all = offered(state).unwrap_or_default().into_iter();
    all.map(|one| one.into_template(used)).collect()
}

/// What is known of one.
pub(crate) fn inspect(state: &Path, id: &str, used: &InUse) -> Option<ImportedTemplate> {
    let found = find(state, id).ok()?;
    found.map(|one| one.into_template(used))
}

const UNREADABLE: &str = "the snapshots could not be read";

/// The snapshot as a template. Until that is dropped nothing of it is removed.
pub(crate) fn open(state: &Path, id: &str) -> Result<Template> {
    let missing = || {
        let message = "there is no such snapshot";
        Error::new(ErrorKind::NotFound, message).with_context("snapshot", id.escape_debug())
    };
    let open = || -> io::Result<Option<Template>> {
        let Some(one) = find(state, id)? else {
            return Ok(None);
        };
        let own = state.join(DIRECTORY).join(&one.id);
        let layers = one.manifest.trees.iter().flat_map(|tree| &tree.lowers);
        if layers
            .map(|layer| &layer.path)
            .any(|path| path.starts_with(disk::DIRECTORY))
        {
            // The machine may have been started anew.
            disk::open(state)?;
        }
        let trees = below(state, one.manifest.trees);
        let Some(held) = hold_all(state, &trees, Some(&own))? else {
            return Ok(None);
        };
        Ok(Some(Template {
            name: one.manifest.name.unwrap_or_else(|| one.id.clone()),
            directory: format!("{DIRECTORY}/{}", one.id),
            _held: held,
            trees,
            shell: one.manifest.shell,
            env: one.manifest.env,
        }))
    };
    open()
        .map_err(|error| storage_error(error, "the snapshot could not be opened"))?
        .ok_or_else(missing)
}

/// Offers a snapshot no longer; false if it was not. What nobody uses of it is removed.
pub(crate) fn remove(state: &Path, id: &str, used: &dyn Fn() -> InUse) -> io::Result<bool> {
    let Some(one) = find(state, id)? else {
        return Ok(false);
    };
    let directory = state.join(DIRECTORY).join(one.id);
    match fs::rename(directory.join(OFFERED), directory.join(WITHDRAWN)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        withdrawn => withdrawn?,
    }
    collect(state, used);
    Ok(true)
}

/// What of the state directory's templates and snapshots those need that are offered; `None` if that cannot be told.
pub(crate) fn needed(state: &Path) -> InUse {
    let all = offered(state).ok()?;
    let others = all.into_iter().flat_map(|one| {
        let own = format!("{DIRECTORY}/{}", one.id);
        let mut names = directories(&one.manifest.trees);
        names.remove(&own);
        names
    });
    Some(others.collect())
}

/// Names of those that nobody needs, finished or not.
pub(crate) fn unneeded(state: &Path, used: &InUse) -> Vec<String> {
    let Some(used) = used else {
        return Vec::new();
    };
    let directory = state.join(DIRECTORY);
    let is_unneeded = |name: &String| {
        if !is_id(name) {
            return name.starts_with(NEW);
        }
        !directory.join(name).join(OFFERED).exists()
            && !used.contains(&format!("{DIRECTORY}/{name}"))
    };
    let names = names(&directory).into_iter().flatten();
    names.filter(is_unneeded).collect()
}

/// Removes what nobody needs; returns its names.
pub(crate) fn collect(state: &Path, used: &dyn Fn() -> InUse) -> Vec<String> {
    let directory = state.join(DIRECTORY);
    let is_candidate = |name: &String| {
        name.starts_with(NEW) || is_id(name) && !directory.join(name).join(OFFERED).exists()
    };
    // Most of the time there is none, and then nobody need look who uses what.
    if !names(&directory)
        .into_iter()
        .flatten()
        .any(|name| is_candidate(&name))
    {
        return Vec::new();
    }
    let mut names = unneeded(state, &used());
    names.retain(|name| {
        remove_one(state, name, used).unwrap_or_else(|error| {
            tracing::warn!(name, %error, "what is left of a snapshot could not be removed");
            false
        })
    });
    names
}

fn remove_one(state: &Path, name: &str, used: &dyn Fn() -> InUse) -> io::Result<bool> {
    let path = state.join(DIRECTORY).join(name);
    // Whoever makes it or starts from it holds it until there is a record or a manifest that names it.
    if File::open(&path)?.try_lock().is_err() {
        return Ok(false);
    }
    if !unneeded(state, &used()).iter().any(|other| other == name) {
        return Ok(false);
    }
    disk::remove(state, name.trim_start_matches(NEW))?;
    remove_tree(&path)?;
    Ok(true)
}

/// Removes from our own file system what no sandbox and no snapshot has, and the file system if nothing is left.
pub(crate) fn tidy_disk(records: &Records) {
    let state = records.state();
    let snapshots = state.join(DIRECTORY);
    let keep = |name: &str| {
        let being_made = format!("{NEW}{name}");
        records.path(&name.into()).exists()
            || [name, &being_made]
                .iter()
                .any(|name| snapshots.join(name).exists())
    };
    if let Err(error) = disk::tidy(&state, &keep) {
        tracing::warn!(%error, "the file system for disks could not be tidied up");
    }
}

/// The directories of templates and snapshots that these layers are in, by the names that records have for them.
pub(crate) fn directories(trees: &[Tree]) -> BTreeSet<String> {
    let layers = trees.iter().flat_map(|tree| &tree.lowers);
    let name = |path: &Path| {
        let mut parts = path.components().map(|part| part.as_os_str().to_str());
        match (parts.next()??, parts.next()??) {
            ("templates", name) => Some(name.to_owned()),
            (DIRECTORY | disk::DIRECTORY, name) => Some(format!("{DIRECTORY}/{name}")),
            _ => None,
        }
    };
    layers.filter_map(|layer| name(&layer.path)).collect()
}

/// Keeps all that these layers are in from being removed, and `own`; `None` if something was already.
fn hold_all(state: &Path, trees: &[Tree], own: Option<&Path>) -> io::Result<Option<Vec<File>>> {
    let path = |name: String| {
        if name.starts_with(DIRECTORY) {
            state.join(name)
        } else {
            state.join("templates").join(name)
        }
    };
    let needed = directories(&relative(state, trees)).into_iter().map(path);
    let needed: BTreeSet<PathBuf> = needed.chain(own.map(Path::to_owned)).collect();
    let held = needed.iter().map(|path| hold(path));
    held.collect()
}

/// These trees with paths that are relative where they lead below the state directory.
pub(crate) fn relative(state: &Path, trees: &[Tree]) -> Vec<Tree> {
    map_paths(trees, |path| {
        path.strip_prefix(state).unwrap_or(path).to_owned()
    })
}

/// These trees with absolute paths.
pub(crate) fn below(state: &Path, trees: Vec<Tree>) -> Vec<Tree> {
    map_paths(&trees, |path| state.join(path))
}

fn map_paths(trees: &[Tree], change: impl Fn(&Path) -> PathBuf) -> Vec<Tree> {
    let mut trees = trees.to_vec();
    for layer in trees.iter_mut().flat_map(|tree| &mut tree.lowers) {
        layer.path = change(&layer.path);
    }
    trees
}

/// An id that nobody has.
fn new_id() -> io::Result<String> {
    Ok(format!("{PREFIX}{}", random::<RANDOM>()?))
}

/// Refuses a name that a template or a snapshot has.
fn require_free(state: &Path, name: &str) -> Result<()> {
    let is_taken = template::check(&TemplateId::new(name), state).is_ok();
    if is_taken {
        let message = "a template or a snapshot of this name exists, remove it or choose another";
        return Err(Error::new(ErrorKind::AlreadyExists, message).with_context("name", name));
    }
    Ok(())
}

/// Removes, if nobody else uses them, the withdrawn snapshots among what an ended sandbox has used.
pub(crate) fn let_go(records: &Records, record: &Record) {
    let names = record.snapshots();
    if names.iter().any(|name| name.starts_with(DIRECTORY)) {
        collect(&records.state(), &|| records.templates_in_use());
    }
}

/// The directory of all snapshots, made if it is missing.
fn make_directory(state: &Path) -> io::Result<PathBuf> {
    let directory = state.join(DIRECTORY);
    make_private(&directory)?;
    Ok(directory)
}
