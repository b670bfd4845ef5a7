//! Images in an OCI layout, or in an archive of `docker save`: which one is meant, and its layers, each checked against the
//! digest by which it is named.

use super::{
    archive::{self, Found, damaged},
    entry::{Sink, hostile},
    layout::{Layout, Part},
    scan::Bounds,
    source::{Bounded, Digest, Hashing, decompress},
};
use oci_spec::image::{
    Arch, Descriptor, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os,
};
use sandbox_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use std::{fs::File, io::Read, path::Path, rc::Rc, sync::Arc};

/// Longest description, in bytes.
const LONGEST_JSON: u64 = 4 * 1024 * 1024;
/// Most lists of images in each other.
const DEEPEST: u32 = 4;
/// Most images that one layout may offer.
const MOST_IMAGES: usize = 1024;
/// Most layers of an image.
const MOST_LAYERS: usize = 512;
/// Where the names of an image are found: as Docker and containerd write it whole, and as the specification says.
const REFERENCES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];
/// How Docker calls a list of images.
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Where Docker lists what it has saved.
const SAVED: &str = "manifest.json";

/// An image that was chosen from a layout.
#[derive(Debug)]
pub(crate) struct Image {
    layout: Layout,
    pub(crate) digest: Digest,
    /// Lowest first.
    pub(crate) layers: Vec<Layer>,
    /// `NAME=VALUE`.
    pub(crate) env: Vec<String>,
}

/// One layer, as it is kept.
#[derive(Debug)]
pub(crate) struct Layer {
    path: String,
    size: u64,
    /// Of what is kept, if the image says it.
    digest: Option<Digest>,
    /// Of what it is without compression.
    content: Digest,
}

/// An image as Docker lists it.
#[derive(Debug, Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

impl Image {
    /// Finds the image named `reference` in the layout at `path`, or the only one for this machine.
    pub(crate) fn open(path: &Path, reference: Option<&str>) -> Result<Self> {
        Self::of_index(Layout::of_directory(path)?, reference)
    }

    /// As [`Self::open`], in an archive; `None` if that is not one of images.
    pub(crate) fn in_archive(file: &Arc<File>, reference: Option<&str>) -> Result<Option<Self>> {
        let Some(layout) = Layout::of_archive(file) else {
            return Ok(None);
        };
        if layout.has("oci-layout") && layout.has("index.json") {
            return Self::of_index(layout, reference).map(Some);
        }
        let Ok(list) = layout.open(SAVED) else {
            return Ok(None);
        };
        // Any tree may have a file of this name.
        match serde_json::from_slice::<Vec<Saved>>(&read_small(list)?) {
            Ok(saved) if !saved.is_empty() => Self::of_saved(layout, saved, reference).map(Some),
            _ => Ok(None),
        }
    }

    fn of_index(layout: Layout, reference: Option<&str>) -> Result<Self> {
        let index = read_small(layout.open("index.json")?)?;
        let index = ImageIndex::from_reader(&*index).map_err(senseless)?;
        let mut images = Vec::new();
        collect(&layout, &index, reference, 0, &mut images)?;
        let chosen = choose(images, reference)?;
        let digest = sha256(&chosen)?;
        let manifest = read_blob(&layout, &chosen)?;
        let manifest = ImageManifest::from_reader(&*manifest).map_err(senseless)?;
        let config = read_config(&read_blob(&layout, manifest.config())?)?;
        let layers = manifest.layers().iter().map(|layer| {
            let kind = layer.media_type().to_string();
            if !kind.contains(".tar") && !kind.contains("image.rootfs.diff") {
                return Err(Error::unsupported(format!("a layer of the type {kind}")));
            }
            let digest = sha256(layer)?;
            Ok((blob_path(&digest), layer.size(), Some(digest)))
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        Self::assemble(layout, digest, &config, layers)
    }

    fn of_saved(layout: Layout, saved: Vec<Saved>, reference: Option<&str>) -> Result<Self> {
        let is_meant = |image: &Saved| {
            let mut tags = image.tags.iter().flatten();
            reference.is_none_or(|reference| tags.any(|tag| tag == reference))
        };
        let mut meant: Vec<Saved> = saved.into_iter().filter(is_meant).collect();
        let Some(image) = meant.pop() else {
            return Err(no_such_image(reference));
        };
        if !meant.is_empty() {
            meant.push(image);
            let tags = meant.iter().flat_map(|image| image.tags.iter().flatten());
            return Err(several(tags.map(String::as_str)));
        }
        let config = read_small(layout.open(&image.config)?)?;
        let (digest, _) = Hashing::new(&*config).finish().map_err(damaged)?;
        let layers = image.layers.into_iter().map(|path| {
            let size = layout.open(&path)?.len();
            Ok((path, size, None))
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        Self::assemble(layout, digest, &read_config(&config)?, layers)
    }

    /// Puts an image together from its layers: where each is, how large, and its digest.
    fn assemble(
        layout: Layout,
        digest: Digest,
        config: &ImageConfiguration,
        layers: Vec<(String, u64, Option<Digest>)>,
    ) -> Result<Self> {
        if !fits(config.os(), config.architecture()) {
            let (os, arch) = (config.os(), config.architecture());
            let what = format!("an image for {os} on {arch}");
            return Err(Error::unsupported(what));
        }
        let contents = config.rootfs().diff_ids();
        if layers.len() != contents.len() || contents.len() > MOST_LAYERS {
            return Err(hostile("the image has layers that its description lacks"));
        }
        let layers = layers
            .into_iter()
            .zip(contents)
            .map(|((path, size, digest), content)| {
                let content = content.strip_prefix("sha256:").and_then(Digest::parse);
                Ok(Layer {
                    path,
                    size,
                    digest,
                    content: content
                        .ok_or_else(|| hostile("a layer has no digest that is known"))?,
                })
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

    /// Size of all layers as they are kept, as the image says.
    pub(crate) fn size(&self) -> u64 {
        let sizes = self.layers.iter().map(|layer| layer.size);
        sizes.fold(0, u64::saturating_add)
    }

    /// Gives the entries of a layer to `sink`, and checks it against its digests.
    pub(crate) fn read_layer(
        &self,
        layer: &Layer,
        bounds: Bounds,
        sink: &mut dyn Sink,
        report: &Rc<dyn Fn(u64) -> bool>,
    ) -> Result<Found> {
        let part = open_sized(&self.layout, &layer.path, layer.size)?;
        let mut compressed = Hashing::new(part).reporting(Rc::clone(report));
        let (found, plain) = read_archive(&mut compressed, true, bounds, sink)?;
        let (digest, _) = compressed.finish().map_err(damaged)?;
        let is_kept = layer.digest.as_ref().is_none_or(|kept| *kept == digest);
        if is_kept && plain == layer.content {
            Ok(found)
        } else {
            Err(wrong_digest(&layer.path))
        }
    }
}

fn read_config(bytes: &[u8]) -> Result<ImageConfiguration> {
    ImageConfiguration::from_reader(bytes).map_err(senseless)
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
    layout: &Layout,
    index: &ImageIndex,
    reference: Option<&str>,
    depth: u32,
    images: &mut Vec<Descriptor>,
) -> Result<()> {
    for image in index.manifests() {
        let mut names = names_of(image).peekable();
        let is_named = names.peek().is_some();
        if is_named && reference.is_some_and(|reference| names.all(|name| name != reference)) {
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
            let inner = reference.filter(|_| !is_named);
            let list = read_blob(layout, image)?;
            let list = ImageIndex::from_reader(&*list).map_err(senseless)?;
            collect(layout, &list, inner, depth + 1, images)?;
        } else if (reference.is_none() || is_named)
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
    let image = images.pop().ok_or_else(|| no_such_image(reference))?;
    if images.is_empty() {
        return Ok(image);
    }
    images.push(image);
    Err(several(
        images.iter().filter_map(|image| names_of(image).next()),
    ))
}

fn no_such_image(reference: Option<&str>) -> Error {
    let message = "the layout has no such image for this machine";
    let error = Error::new(ErrorKind::NotFound, message);
    match reference {
        Some(reference) => error.with_context("reference", reference.escape_debug()),
        None => error,
    }
}

fn several<'a>(names: impl Iterator<Item = &'a str>) -> Error {
    let names: Vec<&str> = names.collect();
    let message = "the layout has several images, say which by its reference";
    Error::invalid(message).with_context("references", names.join(", ").escape_debug())
}

fn names_of(image: &Descriptor) -> impl Iterator<Item = &str> {
    let names = image.annotations().iter().flat_map(|annotations| {
        let named = REFERENCES.iter().filter_map(|key| annotations.get(*key));
        named.map(String::as_str)
    });
    names.into_iter()
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

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Opens a part of this size. It is not checked yet.
fn open_sized(layout: &Layout, path: &str, size: u64) -> Result<Part> {
    let part = layout.open(path)?;
    if part.len() == size {
        Ok(part)
    } else {
        Err(wrong_digest(path))
    }
}

/// Reads a description and checks it.
fn read_blob(layout: &Layout, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let expected = sha256(descriptor)?;
    let path = blob_path(&expected);
    let bytes = read_small(open_sized(layout, &path, descriptor.size())?)?;
    let (digest, _) = Hashing::new(&*bytes).finish().map_err(damaged)?;
    if digest == expected {
        Ok(bytes)
    } else {
        Err(wrong_digest(&path))
    }
}

fn read_small(part: Part) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = part.take(LONGEST_JSON + 1).read_to_end(&mut bytes);
    if read.map_err(damaged)? as u64 > LONGEST_JSON {
        return Err(hostile("a description in the layout has more than 4 MiB"));
    }
    Ok(bytes)
}

fn wrong_digest(path: &str) -> Error {
    let error = hostile("a part of the layout is not what its digest says");
    error.with_context("path", path.escape_debug())
}

fn senseless(error: oci_spec::OciSpecError) -> Error {
    let cause = error.to_string();
    let error = hostile("the layout has a description that makes no sense").with_source(error);
    error.with_context("cause", cause.escape_debug())
}
