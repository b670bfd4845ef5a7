//! Makes a template of a directory, an archive or an image.
//!
//! What comes in may be hostile. It is read twice: the first time only to find out what it is, how much, and whether it
//! makes sense; then it is written, beside its place, and digested again. It takes its place when it is complete, under its
//! digest, so that the same contents are kept once.

pub(crate) mod archive;
pub(crate) mod directory;
pub(crate) mod entry;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod scan;
pub(crate) mod source;
mod tree;

use super::{
    added,
    manifest::{Layer, Manifest, Origin, StoredTree},
    names, outdated,
    owners::Owners,
};
use crate::linux::{
    record::{self, storage_error},
    remove::remove_tree,
};
use archive::{Found, damaged};
use entry::{Sink, hostile};
use image::Image;
use rustix::fs::syncfs;
use sandbox_core::{Error, ErrorKind, Result, TemplateId};
use scan::{Bounds, Removed, Scan, Totals};
use source::{Digest, Hashing};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};
use tree::Tree;

/// What the name of a directory begins with in which something is being imported.
pub(super) const UNDER_WAY: &str = ".import-";

/// What is to be imported, and how.
pub(crate) struct Import<'a> {
    pub(crate) path: &'a Path,
    pub(crate) name: Option<&'a str>,
    pub(crate) reference: Option<&'a str>,
    pub(crate) bounds: Bounds,
    /// Told of each step, by the bytes done and those there are. False ends the import.
    pub(crate) report: Rc<dyn Fn(Step) -> bool>,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Whether it is being written already.
    pub(crate) writing: bool,
    /// Bytes that were read since the step before.
    pub(crate) read: u64,
    /// Bytes to be read in all, if that is known.
    pub(crate) total: Option<u64>,
}

/// Where a tree comes from.
enum Origins {
    Directory,
    Archive(Arc<File>),
    Image(Image),
}

/// What the first look has found.
struct Scanned {
    digest: Digest,
    /// What each layer takes away from those before.
    removed: Vec<Removed>,
    found: Found,
    totals: Totals,
}

/// Imports it, unless the same is there. Returns its id.
pub(crate) fn import(templates: &Path, import: &Import<'_>) -> Result<TemplateId> {
    if let Some(name) = import.name {
        names::check(name)?;
    }
    let written = |error| storage_error(error, "the template could not be written");
    record::make_private(templates).map_err(written)?;
    let mut origin = identify(import)?;
    let mut scanned = scan(import, &origin)?;
    if let Origins::Archive(file) = &origin {
        if scanned.found.is_image() {
            origin = decompress_image(import, templates, file)?;
            scanned = scan(import, &origin)?;
        } else if import.reference.is_some() {
            return Err(no_references());
        }
    }
    let directory = super::imported::directory_of(&scanned.digest);
    let place = templates.join(&directory);
    let _held = loop {
        if let Some(held) = outdated::hold(&place).map_err(written)? {
            break held;
        }
        let workshop = templates.join(format!("{UNDER_WAY}{}", scanned.digest.hex()));
        let Some(_lock) = lock(&workshop).map_err(written)? else {
            continue;
        };
        if place.exists() {
            // Somebody else was faster.
            remove_tree(&workshop).map_err(written)?;
            continue;
        }
        let made = make(import, &origin, &scanned, &workshop, &place);
        let removed = remove_tree(&workshop).map_err(written);
        made.and(removed)?;
    };
    if let Some(name) = import.name {
        names::set(templates, name, &directory).map_err(written)?;
    }
    Ok(super::imported::id_of(&scanned.digest))
}

/// Tells what is at the path by what is in it.
fn identify(import: &Import<'_>) -> Result<Origins> {
    let path = import.path;
    let unreadable = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidArgument,
        };
        Error::new(kind, "what is to be imported could not be opened")
            .with_context("path", path.display())
            .with_source(error)
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_file() {
        let file = Arc::new(File::open(path).map_err(unreadable)?);
        if let Some(image) = Image::in_archive(&file, import.reference)? {
            return Ok(Origins::Image(image));
        }
        return Ok(Origins::Archive(file));
    } else if !metadata.is_dir() {
        return Err(Error::invalid(
            "only a directory, an archive or an OCI layout can be imported",
        ));
    }
    if path.join("oci-layout").is_file() && path.join("index.json").is_file() {
        return Image::open(path, import.reference).map(Origins::Image);
    }
    if import.reference.is_some() {
        return Err(no_references());
    }
    Ok(Origins::Directory)
}

fn no_references() -> Error {
    Error::invalid("only an OCI layout or an archive of images has references")
}

/// The image in a compressed archive, whose parts can be read in any order only without the compression.
fn decompress_image(import: &Import<'_>, templates: &Path, file: &File) -> Result<Origins> {
    io::Seek::rewind(&mut &*file).map_err(damaged)?;
    let compressed = Hashing::new(file).reporting(reporting(import, false, file_length(file)));
    let plain = source::decompress_into(templates, compressed, import.bounds.archive())?;
    let image = Image::in_archive(&Arc::new(plain), import.reference)?;
    let unknown = || Error::invalid("the archive has an image of an unknown form");
    image.map(Origins::Image).ok_or_else(unknown)
}

fn file_length(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// What tells of each piece of a source.
fn reporting(import: &Import<'_>, writing: bool, total: Option<u64>) -> Rc<dyn Fn(u64) -> bool> {
    let report = Rc::clone(&import.report);
    Rc::new(move |read| {
        report(Step {
            writing,
            read,
            total,
        })
    })
}

fn scan(import: &Import<'_>, origin: &Origins) -> Result<Scanned> {
    let mut totals = Totals::new(import.bounds);
    let (mut removed, mut found, mut digest) = (Vec::new(), Found::default(), None);
    for layer in 0..origin.layers() {
        let mut scan = Scan::new(&mut totals);
        let (of, found_here) = read(import, origin, layer, false, &mut scan)?;
        removed.push(scan.finish());
        found.add(found_here);
        digest = Some(of);
    }
    let digest = digest.ok_or_else(|| hostile("the image has no layers"))?;
    Ok(Scanned {
        digest,
        removed,
        found,
        totals,
    })
}

/// Gives the entries of one layer to `sink`. Returns the digest by which all is known.
fn read(
    import: &Import<'_>,
    origin: &Origins,
    layer: usize,
    writing: bool,
    sink: &mut dyn Sink,
) -> Result<(Digest, Found)> {
    let report = reporting(import, writing, origin.size());
    if !report(0) {
        return Err(directory::cancelled());
    }
    match origin {
        Origins::Directory => directory::read(import.path, sink, &*report),
        Origins::Archive(file) => {
            io::Seek::rewind(&mut &**file).map_err(damaged)?;
            let compressed = Hashing::new(&**file).reporting(report);
            let read = image::read_archive(compressed, false, import.bounds, sink)?;
            Ok((read.1, read.0))
        }
        Origins::Image(image) => {
            let found = image.read_layer(&image.layers[layer], import.bounds, sink, &report)?;
            Ok((image.digest.clone(), found))
        }
    }
}

impl Origins {
    fn layers(&self) -> usize {
        match self {
            Self::Directory | Self::Archive(_) => 1,
            Self::Image(image) => image.layers.len(),
        }
    }

    /// Bytes to be read, if that is known beforehand.
    fn size(&self) -> Option<u64> {
        match self {
            Self::Directory => None,
            Self::Archive(file) => file_length(file),
            Self::Image(image) => Some(image.size()),
        }
    }
}

/// Writes the template into the workshop and moves it to its place.
fn make(
    import: &Import<'_>,
    origin: &Origins,
    scanned: &Scanned,
    workshop: &Path,
    place: &Path,
) -> Result<()> {
    let written = |error| storage_error(error, "the template could not be written");
    let new = workshop.join("new");
    let root = new.join("root");
    fs::create_dir_all(&root).map_err(written)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).map_err(written)?;
    let owners = Owners::new();
    std::os::unix::fs::chown(&root, owners.stored(0), owners.stored(0)).map_err(written)?;
    let mut tree = Tree::new(&root, owners)?;
    for (layer, removed) in scanned.removed.iter().enumerate() {
        tree.remove(removed)?;
        let (digest, _) = read(import, origin, layer, true, &mut tree)?;
        if digest != scanned.digest {
            return Err(directory::changed());
        }
    }
    let manifest = describe(origin, scanned, place, &root)?;
    tree.finish(&root)?;
    added::make(&new, &manifest)?;
    manifest.write(&new).map_err(written)?;
    // Else a power cut could leave the name and lose the files.
    let sync = || -> io::Result<()> {
        syncfs(File::open(&new)?)?;
        fs::rename(&new, place)
    };
    sync().map_err(written)
}

fn describe(origin: &Origins, scanned: &Scanned, place: &Path, root: &Path) -> Result<Manifest> {
    let directory = place.file_name().map(PathBuf::from).unwrap_or_default();
    let (kind, env) = match origin {
        Origins::Directory => (Origin::Directory, &[][..]),
        Origins::Archive(_) => (Origin::Archive, &[][..]),
        Origins::Image(image) => (Origin::Image, &*image.env),
    };
    let layer = Layer::stored(directory.join("root"));
    Ok(Manifest {
        version: Manifest::VERSION,
        origin: kind,
        created_ms: crate::linux::create::now_ms(),
        entries: scanned.totals.entries,
        bytes: scanned.totals.bytes,
        trees: vec![StoredTree {
            target: "/".to_owned(),
            layers: vec![layer],
        }],
        env: super::imported::environment(env)?,
        shell: added::shell(root)?,
        notices: scanned.notices(),
    })
}

impl Scanned {
    /// What was not taken as it is, for people.
    fn notices(&self) -> Vec<String> {
        let alone = matches!(Owners::new(), Owners::One);
        let counts = [
            (
                if alone { self.totals.of_others } else { 0 },
                "entries have become `user`'s, since sandboxes of this user have no other users",
            ),
            (
                self.totals.specials,
                "devices, pipes and sockets were left out",
            ),
            (
                self.found.mounts,
                "directories were left empty, on which something is mounted",
            ),
            (
                self.found.strangers,
                "entries have become nobody's, whose owners no sandbox can have",
            ),
            (
                self.found.attributes,
                "entries were taken without their extended attributes",
            ),
        ];
        let some = counts.iter().filter(|(count, _)| *count > 0);
        some.map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

/// Takes the lock of a workshop, which is made; `None` if it was removed meanwhile.
fn lock(workshop: &Path) -> io::Result<Option<File>> {
    let mut builder = fs::DirBuilder::new();
    match builder.mode(0o700).create(workshop) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let lock = match File::open(workshop) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock?,
    };
    lock.lock()?;
    let is_it = fs::symlink_metadata(workshop)
        .is_ok_and(|found| lock.metadata().is_ok_and(|own| own.ino() == found.ino()));
    if !is_it {
        return Ok(None);
    }
    // What somebody has left who was ended.
    remove_tree(&workshop.join("new"))?;
    Ok(Some(lock))
}

/// Removes what ended imports have left; with `only_look` it is but found. Returns the names.
pub(super) fn sweep(templates: &Path, only_look: bool) -> Vec<String> {
    let entries = fs::read_dir(templates).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let left = names.filter(|name| name.starts_with(UNDER_WAY));
    let mut swept = Vec::new();
    for name in left {
        let workshop = templates.join(&name);
        let Ok(lock) = File::open(&workshop) else {
            continue;
        };
        // Who held it may have taken it away by now.
        if lock.try_lock().is_err() || !workshop.exists() {
            continue;
        }
        if only_look || remove_tree(&workshop).is_ok() {
            swept.push(name);
        }
    }
    swept
}
