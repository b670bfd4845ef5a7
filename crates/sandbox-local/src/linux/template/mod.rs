//! Templates: the file trees that sandboxes start from.
//!
//! `host` (alias `base`) is the machine's own programs, from an allow-list of trees. The others were imported: each is kept
//! under its digest, and has names.

mod accounts;
mod added;
mod copy;
mod host;
mod import;
mod imported;
mod manifest;
mod names;
mod outdated;
mod owners;
mod secrets;

use super::snapshot;
pub(crate) use accounts::USER;
pub(crate) use import::{Import, Step, scan::Bounds};
pub use imported::ImportedTemplate;
pub(crate) use manifest::Layer;
pub use manifest::Origin;
pub(crate) use outdated::{InUse, hold};
pub(crate) use owners::give;
use sandbox_core::{Error, ErrorKind, Result, TemplateId, TemplateInfo};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// A file tree that is ready to be overlaid. While this value lives, nobody removes it.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) name: String,
    /// Name of its directory, for the record that keeps it from being removed later.
    pub(crate) directory: String,
    /// Locks on all directories that its layers are in.
    pub(crate) _held: Vec<File>,
    /// What the sandbox sees, `/` first.
    pub(crate) trees: Vec<Tree>,
    /// For `Command::shell`.
    pub(crate) shell: String,
    /// Variables of every command, unless the sandbox has others of these names.
    pub(crate) env: BTreeMap<String, String>,
}

/// One mount of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tree {
    /// Mount point inside.
    pub(crate) target: String,
    /// Top first.
    pub(crate) lowers: Vec<Layer>,
}

/// Whether files can be given to anybody. Else they all are this program's user's, who inside is the only one there is.
fn can_give_files() -> bool {
    rustix::process::geteuid().is_root()
}

/// Name of the default template.
pub(crate) const DEFAULT: &str = host::NAME;

/// Where all templates of a state directory are.
fn directory(state: &Path) -> PathBuf {
    state.join("templates")
}

/// What may be asked for, the default first.
pub(crate) fn all(state: &Path) -> Result<Vec<TemplateInfo>> {
    let mut info = TemplateInfo::new(TemplateId::new(host::NAME));
    info.aliases = vec![TemplateId::new(host::ALIAS)];
    info.description = Some("the machine's own programs, copy-on-write".to_owned());
    let imported = imported::list(&directory(state), &None).into_iter();
    let imported = imported.map(|template| {
        let mut info = TemplateInfo::new(template.id);
        info.aliases = template.names;
        info.description = Some(format!("imported from {}", template.origin));
        info
    });
    let mut all: Vec<_> = std::iter::once(info).chain(imported).collect();
    all.extend(snapshot::list(state)?);
    Ok(all)
}

/// Whether it is the provider's own.
pub(crate) fn is_own(id: &TemplateId) -> bool {
    matches!(id.as_str(), host::NAME | host::ALIAS)
}

/// Whether there is a template of this name. Changes nothing.
pub(crate) fn check(id: &TemplateId, state: &Path) -> Result<()> {
    let is_imported = || imported::find(&directory(state), id.as_str()).is_some();
    if is_own(id) || is_imported() || snapshot::exists(state, id.as_str()) {
        return Ok(());
    }
    Err(no_such(id))
}

fn no_such(id: &TemplateId) -> Error {
    let message =
        "there is no such template, use `host` (the machine's own programs) or import one";
    Error::new(ErrorKind::NotFound, message).with_context("template", id.as_str().escape_debug())
}

/// The one name of a template that may have others.
pub(crate) fn canonical(id: &TemplateId) -> TemplateId {
    if id.as_str() == host::ALIAS {
        TemplateId::new(host::NAME)
    } else {
        id.clone()
    }
}

/// Name of the directory of the template as it would be opened now.
pub(crate) fn current(id: &TemplateId, state: &Path) -> io::Result<String> {
    if is_own(id) {
        return host::current();
    }
    if let Some(directory) = imported::find(&directory(state), id.as_str()) {
        return Ok(directory);
    }
    let directory = snapshot::directory(state, id.as_str())?;
    directory.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The template; `host` is made first if this machine has changed since.
pub(crate) fn open(id: &TemplateId, state: &Path) -> Result<Template> {
    let (id, templates) = (canonical(id), directory(state));
    if id.as_str() == host::NAME {
        return host::open(&templates);
    }
    while let Some(directory) = imported::find(&templates, id.as_str()) {
        if let Some(template) = imported::open(&templates, &directory, &id)? {
            return Ok(template);
        }
    }
    if snapshot::exists(state, id.as_str()) {
        return snapshot::open(state, id.as_str());
    }
    Err(no_such(&id))
}

/// Imports a template; returns its id.
pub(crate) fn import(state: &Path, import: &Import<'_>) -> Result<TemplateId> {
    import::import(&directory(state), import)
}

/// Those that were imported, and snapshots.
pub(crate) fn list(state: &Path, used: &InUse) -> Vec<ImportedTemplate> {
    let mut all = imported::list(&directory(state), used);
    all.extend(snapshot::infos(state, used));
    all
}

/// What is known of one of these.
pub(crate) fn inspect(state: &Path, id: &TemplateId, used: &InUse) -> Result<ImportedTemplate> {
    match imported::inspect(&directory(state), id, used) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            snapshot::inspect(state, id.as_str(), used).ok_or(error)
        }
        found => found,
    }
}

/// Takes the name of a template away, and with the last one the template. Returns whether that has gone.
pub(crate) fn remove(state: &Path, id: &TemplateId, used: &dyn Fn() -> InUse) -> Result<bool> {
    imported::remove(&directory(state), id, used)
}

/// Those of `records` and those that other templates stand on; `None` if that cannot be told.
pub(crate) fn in_use(state: &Path, records: InUse) -> InUse {
    let mut used = records?;
    match imported::stood_on(&directory(state)) {
        Ok(others) => used.extend(others),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    Some(used)
}

/// Names of templates that are out of date or have no name, and that nothing uses, and of what was left half-made.
pub(crate) fn outdated(state: &Path, used: &InUse) -> Vec<String> {
    let templates = directory(state);
    let mut names = host::outdated(&templates, used);
    names.extend(imported::unused(&templates, used));
    names.extend(sweep(&templates, true));
    names
}

/// Removes what [`outdated`] names; returns the names.
pub(crate) fn prune(state: &Path, used: &dyn Fn() -> InUse) -> Vec<String> {
    let templates = directory(state);
    let mut names = host::prune(&templates, used);
    names.extend(imported::prune(&templates, used));
    names.extend(sweep(&templates, false));
    names
}

/// As [`prune`], for every start of a program: takes no time where nothing has piled up, and leaves templates alone that
/// somebody has imported, with or without a name.
pub(crate) fn prune_at_start(state: &Path, used: &dyn Fn() -> InUse) {
    let templates = directory(state);
    if host::has_several(&templates) {
        host::prune(&templates, used);
    }
    sweep(&templates, false);
}

/// What ended imports and removals have left; with `only_look` it is but found.
fn sweep(templates: &Path, only_look: bool) -> Vec<String> {
    let mut names = imported::sweep(templates, only_look);
    names.extend(outdated::sweep(templates, only_look));
    names.extend(host::sweep(templates, only_look));
    names
}
