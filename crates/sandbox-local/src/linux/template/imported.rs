//! Templates that were imported: found by name or digest, opened, listed and removed.

use super::{
    InUse, Template, Tree, added,
    import::{self, source::Digest},
    manifest::{Manifest, Origin},
    names, outdated,
};
use crate::linux::record::storage_error;
use sandbox_core::{CreateOptions, Error, ErrorKind, Result, TemplateId};
use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

/// What the names of their directories begin with.
const DIRECTORY: &str = "sha256-";
/// What their ids begin with.
const ID: &str = "sha256:";
/// Fewest digits of a digest that stand for it.
const SHORTEST: usize = 12;

/// A template that was imported, or kept as a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportedTemplate {
    /// Its digest, which names its contents for ever; of a snapshot another id that is used once.
    pub id: TemplateId,
    /// Names that people gave it.
    pub names: Vec<TemplateId>,
    /// What it was imported from.
    pub origin: Origin,
    /// When it was imported.
    pub created_at: SystemTime,
    /// Bytes of its files.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// What was not taken as it was, for people.
    pub notices: Vec<String>,
    /// Whether a living sandbox, or another template, stands on it.
    pub in_use: bool,
}

pub(super) fn directory_of(digest: &Digest) -> String {
    format!("{DIRECTORY}{}", digest.hex())
}

pub(super) fn id_of(digest: &Digest) -> TemplateId {
    TemplateId::new(format!("{ID}{}", digest.hex()))
}

/// Whether a directory of this name may be an imported template.
pub(super) fn is_directory(name: &str) -> bool {
    name.strip_prefix(DIRECTORY)
        .and_then(Digest::parse)
        .is_some()
}

/// The directory of the template that has this id, begins with this much of it, or has this name.
pub(super) fn find(templates: &Path, id: &str) -> Option<String> {
    let Some(digits) = id.strip_prefix(ID) else {
        return names::find(templates, id).filter(|name| templates.join(name).is_dir());
    };
    if let Some(digest) = Digest::parse(digits) {
        let name = directory_of(&digest);
        return templates.join(&name).is_dir().then_some(name);
    }
    let start = format!("{DIRECTORY}{digits}");
    let mut fitting = all(templates)
        .into_iter()
        .filter(|name| name.starts_with(&start));
    let first = fitting.next().filter(|_| digits.len() >= SHORTEST)?;
    fitting.next().is_none().then_some(first)
}

/// Directories of all imported templates.
pub(super) fn all(templates: &Path) -> Vec<String> {
    let entries = fs::read_dir(templates).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_directory(name)).collect()
}

/// Opens the template in this directory; `None` if it is gone.
pub(super) fn open(templates: &Path, directory: &str, id: &TemplateId) -> Result<Option<Template>> {
    let failed = |error| storage_error(error, "the template could not be opened");
    let path = templates.join(directory);
    let Some(held) = outdated::hold(&path).map_err(failed)? else {
        return Ok(None);
    };
    let Some(manifest) = Manifest::read(&path).map_err(failed)? else {
        return Ok(None);
    };
    let added = added::make(&path, &manifest)?;
    let trees = manifest.trees.into_iter().enumerate().map(|(index, tree)| {
        let mut lowers = tree.layers;
        for layer in &mut lowers {
            layer.path = templates.join(&layer.path);
        }
        if index == 0 {
            lowers.insert(0, added.clone());
        }
        Tree {
            target: tree.target,
            lowers,
        }
    });
    Ok(Some(Template {
        name: id.to_string(),
        directory: directory.to_owned(),
        _held: vec![held],
        trees: trees.collect(),
        shell: manifest.shell,
        env: manifest.env,
    }))
}

/// All that were imported, by their names.
pub(super) fn list(templates: &Path, used: &InUse) -> Vec<ImportedTemplate> {
    let names = names::all(templates);
    let mut found: Vec<_> = all(templates)
        .into_iter()
        .filter_map(|directory| info(templates, &directory, &names, used))
        .collect();
    found.sort_by(|one, other| (&one.names, &one.id).cmp(&(&other.names, &other.id)));
    found
}

fn info(
    templates: &Path,
    directory: &str,
    names: &BTreeMap<String, String>,
    used: &InUse,
) -> Option<ImportedTemplate> {
    let manifest = Manifest::read(&templates.join(directory)).ok()??;
    let digest = directory.strip_prefix(DIRECTORY)?;
    let named = names.iter().filter(|(_, of)| *of == directory);
    Some(ImportedTemplate {
        id: TemplateId::new(format!("{ID}{digest}")),
        names: named.map(|(name, _)| TemplateId::new(name)).collect(),
        origin: manifest.origin,
        created_at: SystemTime::UNIX_EPOCH + Duration::from_millis(manifest.created_ms),
        bytes: manifest.bytes,
        entries: manifest.entries,
        env: manifest.env,
        notices: manifest.notices,
        in_use: used.as_ref().is_none_or(|used| used.contains(directory)),
    })
}

/// What is known of the template that `id` stands for.
pub(super) fn inspect(templates: &Path, id: &TemplateId, used: &InUse) -> Result<ImportedTemplate> {
    let directory = find(templates, id.as_str());
    let found = directory.and_then(|name| info(templates, &name, &names::all(templates), used));
    found.ok_or_else(|| super::no_such(id))
}

/// Directories that templates other than these themselves stand on.
pub(super) fn stood_on(templates: &Path) -> io::Result<HashSet<String>> {
    let mut found = HashSet::new();
    for entry in fs::read_dir(templates)? {
        let entry = entry?;
        let own = entry.file_name();
        let Some(manifest) = Manifest::read(&entry.path())? else {
            continue;
        };
        let layers = manifest.trees.iter().flat_map(|tree| &tree.layers);
        let others = layers.filter_map(|layer| layer.template());
        found.extend(others.filter(|name| *name != own).map(str::to_owned));
    }
    Ok(found)
}

/// Takes the name `id` away, and with the last one the template; by its digest, with all its names. Returns whether the
/// template itself has gone.
///
/// # Errors
/// `NotFound`; `InvalidState` if the template would go and something stands on it.
pub(super) fn remove(templates: &Path, id: &TemplateId, used: &dyn Fn() -> InUse) -> Result<bool> {
    let failed = |error| storage_error(error, "the template could not be removed");
    let directory = find(templates, id.as_str()).ok_or_else(|| super::no_such(id))?;
    let names = names::all(templates);
    let mut names: Vec<_> = names
        .into_iter()
        .filter(|(_, of)| *of == directory)
        .map(|(name, _)| name)
        .collect();
    if names.len() > 1 && names.iter().any(|name| name == id.as_str()) {
        return names::remove(templates, id.as_str())
            .map(|_| false)
            .map_err(failed);
    }
    let removed = outdated::remove_one(templates, &directory, used, &mut || {
        names
            .drain(..)
            .try_for_each(|name| names::remove(templates, &name).map(drop))
    });
    if removed.map_err(failed)? {
        return Ok(true);
    }
    let message =
        "the template is in use: kill the sandboxes and remove the snapshots made from it first";
    Err(Error::new(ErrorKind::InvalidState, message).with_context("template", id))
}

/// Those that nobody can ask for by a name, and that nothing stands on.
pub(super) fn unused(templates: &Path, used: &InUse) -> Vec<String> {
    // Those of a shared directory may be in use by sandboxes that we do not know.
    let (Some(used), false) = (used, templates.is_symlink()) else {
        return Vec::new();
    };
    let named: HashSet<String> = names::all(templates).into_values().collect();
    let mut unused = all(templates);
    unused.retain(|name| !named.contains(name) && !used.contains(name));
    unused
}

/// Removes those of [`unused`]; returns their names.
pub(super) fn prune(templates: &Path, used: &dyn Fn() -> InUse) -> Vec<String> {
    let mut names = unused(templates, &used());
    names.retain(|name| {
        outdated::remove_one(templates, name, used, &mut || Ok(())).unwrap_or_else(|error| {
            tracing::warn!(name, %error, "a template that is not used could not be removed");
            false
        })
    });
    names
}

/// What an import has left that was ended.
pub(super) fn sweep(templates: &Path, only_look: bool) -> Vec<String> {
    import::sweep(templates, only_look)
}

/// The variables of an image, those that no program could be given left out.
///
/// # Errors
/// `InvalidArgument` if there are more than a sandbox may be given.
pub(super) fn environment(variables: &[String]) -> Result<BTreeMap<String, String>> {
    let pairs = variables.iter().filter_map(|text| text.split_once('='));
    let env = pairs
        .filter(|(name, value)| {
            let options = CreateOptions::new().env_var(*name, *value);
            options.validate().is_ok()
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    CreateOptions::new().env(BTreeMap::clone(&env)).validate()?;
    Ok(env)
}
