//! Makes what templates are imported from: archives and OCI layouts.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use tar::{EntryType, Header};

/// An archive that is being put together.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Everything below `root`.
    pub(crate) fn tree(root: &Path) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.follow_symlinks(false);
        // Root's files, whoever makes it.
        builder.mode(tar::HeaderMode::Deterministic);
        builder.append_dir_all(".", root).unwrap();
        Self(builder)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, "", b"")
    }

    pub(crate) fn file(self, name: &str, contents: &str) -> Self {
        self.entry(name, EntryType::Regular, "", contents.as_bytes())
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, target, b"")
    }

    /// Any entry, whatever its name is: no check of the library is in the way.
    pub(crate) fn entry(self, name: &str, kind: EntryType, target: &str, contents: &[u8]) -> Self {
        self.entry_by(name, kind, target, contents, |_| {})
    }

    /// As [`Archive::entry`], with its header changed.
    pub(crate) fn entry_by(
        mut self,
        name: &str,
        kind: EntryType,
        target: &str,
        contents: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(contents.len() as u64);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, contents).unwrap();
        self
    }

    /// An extended header of these records, for the next entry or, by its kind, for all.
    pub(crate) fn extended(self, kind: EntryType, records: &[(&str, &str)]) -> Self {
        let records = records.iter().map(|(key, value)| {
            let rest = format!(" {key}={value}\n");
            // The length counts its own digits.
            let with = |digits: usize| rest.len() + digits;
            let digits = (1..).find(|digits| with(*digits).to_string().len() == *digits);
            format!("{}{rest}", with(digits.unwrap()))
        });
        let text: String = records.collect();
        self.entry("extended", kind, "", text.as_bytes())
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// An OCI layout that is being put together.
pub(crate) struct Layout {
    path: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    /// An empty one at `path`, which is made.
    pub(crate) fn new(path: &Path) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        let version = json!({"imageLayoutVersion": "1.0.0"});
        fs::write(path.join("oci-layout"), version.to_string()).unwrap();
        Self {
            path: path.to_owned(),
            manifests: Vec::new(),
        }
    }

    /// Adds a blob and returns what names it.
    pub(crate) fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"),
            "size": bytes.len(),
        })
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.path.join("blobs/sha256").join(digest)
    }

    /// Adds an image of these layers, each compressed, for this machine. Returns what names each layer.
    pub(crate) fn image(&mut self, reference: &str, layers: &[Vec<u8>]) -> Vec<Value> {
        self.image_for(reference, layers, architecture())
    }

    pub(crate) fn image_for(
        &mut self,
        reference: &str,
        layers: &[Vec<u8>],
        architecture: &str,
    ) -> Vec<Value> {
        let compressed = layers.iter().enumerate().map(|(number, layer)| {
            if number % 2 == 0 {
                self.blob("layer.v1.tar+gzip", &gzip(layer))
            } else {
                self.blob("layer.v1.tar+zstd", &zstd(layer))
            }
        });
        let compressed: Vec<Value> = compressed.collect();
        let digests = layers
            .iter()
            .map(|layer| format!("sha256:{}", sha256(layer)));
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/opt/bin:/usr/bin:/bin", "COLOR=blue", "no value"], "User": "nobody"},
            "rootfs": {"type": "layers", "diff_ids": digests.collect::<Vec<_>>()},
        });
        self.manifest(reference, &config, &compressed);
        compressed
    }

    /// Adds an image with a description of its own.
    pub(crate) fn manifest(&mut self, reference: &str, config: &Value, layers: &[Value]) {
        let config = self.blob("config.v1+json", config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut manifest = self.blob("manifest.v1+json", manifest.to_string().as_bytes());
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": reference});
        self.manifests.push(manifest);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.path.join("index.json"), index.to_string()).unwrap();
    }
}

/// What `docker save` has written for long: these images, by their names and layers. Layers that came before are links.
pub(crate) fn saved(images: &[(&str, &[Vec<u8>])]) -> Archive {
    let mut archive = Archive::new();
    let (mut list, mut seen) = (Vec::new(), BTreeMap::new());
    for (name, layers) in images {
        let digests: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Env": ["COLOR=blue"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": digests.iter().map(|digest| format!("sha256:{digest}")).collect::<Vec<_>>(),
            },
        })
        .to_string();
        let config_name = format!("{}.json", sha256(config.as_bytes()));
        archive = archive.file(&config_name, &config);
        let mut paths = Vec::new();
        for (layer, digest) in layers.iter().zip(digests) {
            let path = format!(
                "{}/layer.tar",
                &sha256(format!("{name} {digest}").as_bytes())[..32]
            );
            archive = match seen.get(&digest) {
                Some(first) => archive.link(&path, &format!("../{first}")),
                None => archive.entry(&path, EntryType::Regular, "", layer),
            };
            seen.entry(digest).or_insert_with(|| path.clone());
            paths.push(path);
        }
        list.push(json!({"Config": config_name, "RepoTags": [name], "Layers": paths}));
    }
    archive
        .file("manifest.json", &json!(list).to_string())
        .file("repositories", "{}")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// This machine's architecture, as images call it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
