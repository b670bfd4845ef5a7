//! What a provider offers for templates of its own: import, list, inspect, remove.

use super::{
    provider::{LocalProvider, NAME, Shared, blocking},
    record::storage_error,
    snapshot,
    template::{self, Bounds, Import, ImportedTemplate, Step},
};
use sandbox_core::{Error, ErrorKind, Result, TemplateId};
use std::{
    fmt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportProgress {
    /// Whether it is being written already. Before, it is only looked at.
    pub writing: bool,
    /// Bytes of the source that were read, in this half of the work.
    pub read: u64,
    /// How many these will be, if that is known.
    pub total: Option<u64>,
}

/// How to import a template.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImportOptions {
    /// A name for it. It may have been another template's until now.
    pub name: Option<String>,
    /// Which of several images, by its reference; without it there must be only one for this machine.
    pub reference: Option<String>,
    /// Most bytes that its files may have: 16 GiB if this is not set.
    pub max_bytes: u64,
    /// Most files, directories and links: a million if this is not set.
    pub max_entries: u64,
    progress: Option<Arc<dyn Fn(ImportProgress) + Send + Sync>>,
}

impl fmt::Debug for ImportOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ImportOptions")
            .field("name", &self.name)
            .field("reference", &self.reference)
            .field("max_bytes", &self.max_bytes)
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            name: None,
            reference: None,
            max_bytes: 16 * 1024 * 1024 * 1024,
            max_entries: 1_000_000,
            progress: None,
        }
    }
}

impl ImportOptions {
    /// No name, the usual bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Self::name`].
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets [`Self::reference`].
    #[must_use]
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// Sets [`Self::max_bytes`].
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets [`Self::max_entries`].
    #[must_use]
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    /// Has `progress` told how far it has come, from another thread.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(ImportProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }
}

impl LocalProvider {
    /// Makes a template of the file tree at `path`: a directory, a tar archive (also compressed by gzip or zstd), or an image
    /// in an OCI layout, in an archive of one, or in one of `docker save`. Sandboxes then start from its id or its name.
    ///
    /// # Behavior
    /// - It is kept under a digest of its contents. What was imported before is not kept twice, and two imports of the same
    ///   contents at the same time end with the same template.
    /// - Devices, pipes and sockets, extended attributes, setuid and setgid bits of files, and what is mounted below a
    ///   directory are left out; [`ImportedTemplate::notices`] says so.
    /// - Owners are kept; what an ordinary user finds in a directory of its own becomes root's. Where sandboxes have one user
    ///   only, all files are that user's, and directories can be written by it.
    /// - Of an image, only the files and the environment are used.
    /// - The user `user`, its home and the files that name the machine are added where they are missing.
    ///
    /// # Errors
    /// `NotFound` for the path or the image; `InvalidArgument` for what is no such thing or that no honest program has made;
    /// `QuotaExceeded` for more than the options allow; `Unsupported` for images of other machines; `StorageFull`. Nothing is
    /// left of it then.
    ///
    /// # Cancel safety
    /// Dropping the future ends the import soon, and nothing is left of it unless it was complete.
    pub async fn import_template(
        &self,
        path: impl AsRef<Path>,
        options: ImportOptions,
    ) -> Result<ImportedTemplate> {
        let (shared, path) = (Arc::clone(&self.shared), path.as_ref().to_owned());
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&cancelled));
        blocking(move || import(&shared, &path, &options, &cancelled))
            .await
            .map_err(|error| error.with_provider(NAME).with_operation("import"))
    }

    /// The templates that were imported, by their names, and snapshots, oldest first.
    ///
    /// # Errors
    /// `Internal` if the state directory cannot be read.
    pub async fn imported_templates(&self) -> Result<Vec<ImportedTemplate>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let site = &shared.site;
            Ok(template::list(&site.state, &site.templates_in_use()))
        })
        .await
    }

    /// One that was imported, by its name, its id, or twelve or more digits of that; or a snapshot, by its name or id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn imported_template(&self, id: &TemplateId) -> Result<ImportedTemplate> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        blocking(move || {
            let site = &shared.site;
            template::inspect(&site.state, &id, &site.templates_in_use())
        })
        .await
        .map_err(|error| error.with_provider(NAME))
    }

    /// Takes a template's name away, and with the last one the template; by its id, the template with all its names. Returns
    /// whether the template itself has gone.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` if it would go and a living sandbox, or another template, stands on it.
    pub async fn remove_template(&self, id: &TemplateId) -> Result<bool> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        blocking(move || remove(&shared, &id))
            .await
            .map_err(|error| error.with_provider(NAME).with_operation("remove"))
    }
}

/// Tells an import that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn import(
    shared: &Shared,
    path: &PathBuf,
    options: &ImportOptions,
    cancelled: &Arc<AtomicBool>,
) -> Result<ImportedTemplate> {
    if options.max_bytes == 0 || options.max_entries == 0 {
        return Err(Error::invalid("the bounds of an import must not be zero"));
    }
    let (progress, cancelled) = (options.progress.clone(), Arc::clone(cancelled));
    let done = std::cell::Cell::new((false, 0));
    let report = move |step: Step| {
        let (writing, read) = done.get();
        let read = if writing == step.writing { read } else { 0 } + step.read;
        done.set((step.writing, read));
        if let Some(progress) = &progress {
            progress(ImportProgress {
                writing: step.writing,
                read,
                total: step.total,
            });
        }
        !cancelled.load(Ordering::Relaxed)
    };
    let import = Import {
        path,
        name: options.name.as_deref(),
        reference: options.reference.as_deref(),
        bounds: Bounds {
            bytes: options.max_bytes,
            entries: options.max_entries,
        },
        report: Rc::new(report),
    };
    let site = &shared.site;
    if let Some(name) = options
        .name
        .as_deref()
        .filter(|name| snapshot::exists(&site.state, name))
    {
        let message = "a snapshot of this name exists, remove it or choose another";
        return Err(Error::new(ErrorKind::AlreadyExists, message).with_context("name", name));
    }
    let id = template::import(&site.state, &import)?;
    template::inspect(&site.state, &id, &site.templates_in_use())
}

fn remove(shared: &Shared, id: &TemplateId) -> Result<bool> {
    let site = &shared.site;
    let used = || site.templates_in_use();
    if snapshot::exists(&site.state, id.as_str()) {
        let removed = snapshot::remove(&site.state, id.as_str(), &used);
        if let Some(pool) = &shared.pool {
            pool.discard_unfit(site);
        }
        return removed.map_err(|error| storage_error(error, "the snapshot could not be removed"));
    }
    if let Some(pool) = &shared.pool
        && let Ok(directory) = template::current(id, &site.state)
    {
        pool.let_go_of(site, &directory);
    }
    template::remove(&site.state, id, &used)
}
