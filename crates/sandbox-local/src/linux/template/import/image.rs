//! Images in an OCI layout: which one is meant, and its layers, each checked against the digest by which it is named.

use super::{
    archive::{self, Found, damaged},
    entry::{Sink, hostile},
    scan::Bounds,
    source::{Bounded, Digest, Hashing, decompress},
};
use oci_spec::image::{
    Arch, Descriptor, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os,
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    rc::Rc,
};

/// Longest description, in bytes.
const LONGEST_JSON: u64 = 4 * 1024 * 1024;
/// Most lists of images in each other.
const DEEPEST: u32 = 4;
/// Most images that one layout may offer.
const MOST_IMAGES: usize = 1024;
/// Most layers of an image.
const MOST_LAYERS: usize = 512;
/// Where the name of an image is found.
const REFERENCE: &str = "org.opencontainers.image.ref.name";
/// How Docker calls a list of images.
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// An image that was chosen from a layout.
#[derive(Debug)]
pub(crate) struct Image {
    layout: OwnedFd,
    pub(crate) digest: Digest,
    /// Lowest first, with the digest of each without compression.
    pub(crate) layers: Vec<(Descriptor, Digest)>,
    /// `NAME=VALUE`.
    pub(crate) env: Vec<String>,
}

impl Image {
    /// Finds the image named `reference` in the layout at `path`, or the only one for this machine.
    pub(crate) fn open(path: &Path, reference: Option<&str>) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layout = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| missing(errno, "the layout"))?;
        let index = read_small(open(&layout, "index.json")?)?;
        let index = ImageIndex::from_reader(&*index).map_err(senseless)?;
        let mut images = Vec::new();
        collect(&layout, &index, reference, 0, &mut images)?;
        let chosen = choose(images, reference)?;
        let digest = sha256(&chosen)?;
        let manifest = read_blob(&layout, &chosen)?;
        let manifest = ImageManifest::from_reader(&*manifest).map_err(senseless)?;
        let config = read_blob(&layout, manifest.config())?;
        let config = ImageConfiguration::from_reader(&*config).map_err(senseless)?;
        if !fits(config.os(), config.architecture()) {
            let (os, arch) = (config.os(), config.architecture());
            let what = format!("an image for {os} on {arch}");
            return Err(Error::unsupported(what));
        }
        let contents = config.rootfs().diff_ids();
        if manifest.layers().len() != contents.len() || contents.len() > MOST_LAYERS {
            return Err(hostile("the image has layers that its description lacks"));
        }
        let layers = manifest.layers().iter().zip(contents);
        let layers = layers.map(|(layer, content)| {
            let content = content.strip_prefix("sha256:").and_then(Digest::parse);
            let content = content.ok_or_else(|| hostile("a layer has no digest that is known"))?;
            Ok((layer.clone(), content))
        });
        let env = config
            .config()
            .as_ref()
            .and_then(|config| config.env().clone());
        Ok(Self {
            digest,
            layers: layers.collect::<Result<_>>()?,
            env: env.unwrap_or_default(),
            layout,
        })
    }

    /// Compressed size of all layers, as the image says.
    pub(crate) fn size(&self) -> u64 {
        let sizes = self.layers.iter().map(|(layer, _)| layer.size());
        sizes.fold(0, u64::saturating_add)
    }

    /// Gives the entries of a layer to `sink`, and checks it against its digests.
    pub(crate) fn read_layer(
        &self,
        (layer, content): &(Descriptor, Digest),
        bounds: Bounds,
        sink: &mut dyn Sink,
        report: &Rc<dyn Fn(u64) -> bool>,
    ) -> Result<Found> {
        let kind = layer.media_type().to_string();
        if !kind.contains(".tar") && !kind.contains("image.rootfs.diff") {
            return Err(Error::unsupported(format!("a layer of the type {kind}")));
        }
        let file = open_blob(&self.layout, layer)?;
        let mut compressed = Hashing::new(file).reporting(Rc::clone(report));
        let (found, plain) = read_archive(&mut compressed, true, bounds, sink)?;
        let (digest, _) = compressed.finish().map_err(damaged)?;
        if digest != sha256(layer)? || plain != *content {
            return Err(wrong_digest(layer));
        }
        Ok(found)
    }
}

/// Reads an archive that may be compressed. Returns the digest of what it is without.
pub(crate) fn read_archive(
    compressed: impl Read,
    is_layer: bool,
    bounds: Bounds,
    sink: &mut dyn Sink,
) -> Result<(Found, Digest)> {
    let plain = decompress(compressed).map_err(damaged)?;
    let (bounded, exceeded) = Bounded::new(plain, bounds.archive());
    let mut plain = Hashing::new(bounded);
    let read = archive::read(&mut plain, is_layer, sink);
    let found = read.map_err(|error| exceeded.or(error))?;
    let (digest, _) = plain
        .finish()
        .map_err(|error| exceeded.or(damaged(error)))?;
    Ok((found, digest))
}

/// Adds all images of `index` that are for this machine and, if one is asked for, have the name `reference`.
fn collect(
    layout: &OwnedFd,
    index: &ImageIndex,
    reference: Option<&str>,
    depth: u32,
    images: &mut Vec<Descriptor>,
) -> Result<()> {
    for image in index.manifests() {
        let name = name_of(image);
        if reference.is_some() && name.is_some() && name != reference {
            continue;
        }
        if *image.media_type() == MediaType::ImageIndex
            || image.media_type().to_string() == DOCKER_INDEX
        {
            if depth == DEEPEST {
                return Err(hostile(
                    "the layout has too many lists of images in each other",
                ));
            }
            // Those of a list that was asked for are meant whatever they are called.
            let inner = reference.filter(|_| name.is_none());
            let list = read_blob(layout, image)?;
            let list = ImageIndex::from_reader(&*list).map_err(senseless)?;
            collect(layout, &list, inner, depth + 1, images)?;
        } else if (reference.is_none() || name.is_some())
            && image
                .platform()
                .as_ref()
                .is_none_or(|platform| fits(platform.os(), platform.architecture()))
        {
            images.push(image.clone());
        }
        if images.len() > MOST_IMAGES {
            return Err(hostile("the layout has too many images"));
        }
    }
    Ok(())
}

fn choose(mut images: Vec<Descriptor>, reference: Option<&str>) -> Result<Descriptor> {
    images.dedup_by(|one, other| one.digest() == other.digest());
    let last = images.pop();
    match (last, images.is_empty()) {
        (Some(image), true) => Ok(image),
        (Some(image), false) => {
            images.push(image);
            let names: Vec<&str> = images.iter().filter_map(name_of).collect();
            let message = "the layout has several images, say which by its reference";
            Err(Error::invalid(message).with_context("references", names.join(", ").escape_debug()))
        }
        (None, _) => {
            let message = "the layout has no such image for this machine";
            let error = Error::new(ErrorKind::NotFound, message);
            Err(match reference {
                Some(reference) => error.with_context("reference", reference.escape_debug()),
                None => error,
            })
        }
    }
}

fn name_of(image: &Descriptor) -> Option<&str> {
    let annotations = image.annotations().as_ref()?;
    annotations.get(REFERENCE).map(String::as_str)
}

fn fits(os: &Os, arch: &Arch) -> bool {
    let here = match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::from(other),
    };
    *os == Os::Linux && *arch == here
}

fn sha256(descriptor: &Descriptor) -> Result<Digest> {
    let digest = descriptor.digest();
    let known = *digest.algorithm() == DigestAlgorithm::Sha256;
    let parsed = known.then(|| Digest::parse(digest.digest())).flatten();
    parsed.ok_or_else(|| Error::unsupported("a digest other than SHA-256"))
}

/// Opens the contents that `descriptor` names. They have its size, and are not checked yet.
fn open_blob(layout: &OwnedFd, descriptor: &Descriptor) -> Result<File> {
    let file = open(
        layout,
        &format!("blobs/sha256/{}", sha256(descriptor)?.hex()),
    )?;
    let length = file.metadata().map_err(damaged)?.len();
    if length == descriptor.size() {
        Ok(file)
    } else {
        Err(wrong_digest(descriptor))
    }
}

/// Reads a description and checks it.
fn read_blob(layout: &OwnedFd, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let bytes = read_small(open_blob(layout, descriptor)?)?;
    let (digest, _) = Hashing::new(&*bytes).finish().map_err(damaged)?;
    if digest == sha256(descriptor)? {
        Ok(bytes)
    } else {
        Err(wrong_digest(descriptor))
    }
}

fn read_small(file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = file.take(LONGEST_JSON + 1).read_to_end(&mut bytes);
    if read.map_err(damaged)? as u64 > LONGEST_JSON {
        return Err(hostile("a description in the layout has more than 4 MiB"));
    }
    Ok(bytes)
}

/// Opens a file of the layout, which no link leads out of.
fn open(layout: &OwnedFd, path: &str) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(layout, path, flags, Mode::empty(), resolve)
        .map_err(|errno| missing(errno, path))?;
    let file = File::from(file);
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        Ok(file)
    } else {
        Err(hostile("something in the layout is no file").with_context("path", path))
    }
}

fn missing(errno: Errno, what: &str) -> Error {
    let kind = match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::ACCESS => ErrorKind::PermissionDenied,
        _ => ErrorKind::InvalidArgument,
    };
    let error = Error::new(kind, "a part of the layout could not be opened");
    error
        .with_context("path", what)
        .with_source(io::Error::from(errno))
}

fn wrong_digest(descriptor: &Descriptor) -> Error {
    let error = hostile("a part of the layout is not what its digest says");
    error.with_context("digest", descriptor.digest().to_string().escape_debug())
}

fn senseless(error: oci_spec::OciSpecError) -> Error {
    let cause = error.to_string();
    let error = hostile("the layout has a description that makes no sense").with_source(error);
    error.with_context("cause", cause.escape_debug())
}
