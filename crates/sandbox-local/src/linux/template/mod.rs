//! Templates: the file trees that sandboxes start from.
//!
//! So far there is one, `host` (alias `base`): the machine's own programs, from an allow-list of trees.

mod accounts;
mod copy;
mod host;
mod outdated;
mod secrets;

pub(crate) use accounts::USER;
pub(crate) use outdated::InUse;
use sandbox_core::{Error, ErrorKind, Result, TemplateId, TemplateInfo};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// A file tree that is ready to be overlaid. While this value lives, nobody removes it.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) name: &'static str,
    /// Name of its directory, for the record that keeps it from being removed later.
    pub(crate) directory: String,
    _held: File,
    /// What the sandbox sees, `/` first.
    pub(crate) trees: Vec<Tree>,
    /// For `Command::shell`.
    pub(crate) shell: String,
}

/// One mount of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Mount point inside.
    pub(crate) target: String,
    /// Top first.
    pub(crate) lowers: Vec<Layer>,
}

/// A directory on the host whose files a sandbox sees, unless a layer above hides them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) path: PathBuf,
    /// Whether its files belong to the storage range, like what sandboxes have written; else they show as they are.
    pub(crate) stored: bool,
}

impl Layer {
    /// One whose owners are those inside.
    pub(crate) fn plain(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            stored: false,
        }
    }
}

/// Whether files can be given to anybody. Else they all are this program's user's, who inside is the only one there is.
fn can_give_files() -> bool {
    rustix::process::geteuid().is_root()
}

/// Name of the default template.
pub(crate) const DEFAULT: &str = host::NAME;

/// What may be asked for, the default first.
pub(crate) fn all() -> impl Iterator<Item = TemplateInfo> + Send {
    let mut info = TemplateInfo::new(TemplateId::new(host::NAME));
    info.aliases = vec![TemplateId::new(host::ALIAS)];
    info.description = Some("the machine's own programs, copy-on-write".to_owned());
    std::iter::once(info)
}

/// Whether there is a template of this name. Touches nothing.
pub(crate) fn check(id: &TemplateId) -> Result<()> {
    match id.as_str() {
        host::NAME | host::ALIAS => Ok(()),
        _ => {
            let message = "there is no such template, use `host` (the machine's own programs)";
            Err(Error::new(ErrorKind::NotFound, message).with_context("template", id))
        }
    }
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
pub(crate) fn current(id: &TemplateId) -> io::Result<String> {
    match canonical(id).as_str() {
        host::NAME => host::current(),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The template, made first if this machine has changed since.
pub(crate) fn open(id: &TemplateId, state: &Path) -> Result<Template> {
    check(id)?;
    host::open(&state.join("templates"))
}

/// Names of templates that are out of date and that no sandbox uses.
pub(crate) fn outdated(state: &Path, used: &InUse) -> Vec<String> {
    host::outdated(&state.join("templates"), used)
}

/// Removes templates that are out of date and that no sandbox uses; returns their names.
pub(crate) fn prune(state: &Path, used: &dyn Fn() -> InUse) -> Vec<String> {
    host::prune(&state.join("templates"), used)
}

/// As [`prune`], for every start of a program: takes no time where nothing has piled up.
pub(crate) fn prune_at_start(state: &Path, used: &dyn Fn() -> InUse) {
    if host::has_several(&state.join("templates")) {
        prune(state, used);
    }
}
