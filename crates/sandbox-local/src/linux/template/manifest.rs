//! What is known of a template that was imported or kept: `<templates>/<directory>/manifest.json`.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

const FILE: &str = "manifest.json";

/// Longest manifest that is read, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Where a template comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// A directory of this machine.
    Directory,
    /// A tar archive.
    Archive,
    /// An image, in an OCI layout or as Docker saves it.
    Image,
    /// A sandbox of this machine.
    Snapshot,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Directory => "a directory",
            Self::Archive => "an archive",
            Self::Image => "an image",
            Self::Snapshot => "a sandbox",
        })
    }
}

/// A template as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`Manifest::VERSION`].
    pub(crate) version: u32,
    pub(crate) origin: Origin,
    /// Milliseconds since 1970.
    pub(crate) created_ms: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// What a sandbox sees, `/` first.
    pub(crate) trees: Vec<StoredTree>,
    /// Variables of every command, unless the sandbox has others of these names.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// For `Command::shell`.
    pub(crate) shell: String,
    /// What was not taken as it was, for people.
    #[serde(default)]
    pub(crate) notices: Vec<String>,
}

/// One mount of a template.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredTree {
    /// Mount point inside.
    pub(crate) target: String,
    /// Top first.
    pub(crate) layers: Vec<Layer>,
}

/// A directory on the host whose files a sandbox sees, unless a layer above hides them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Below the directory of all templates unless it is absolute.
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

    /// One that is owned by the storage range.
    pub(crate) fn stored(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            stored: true,
        }
    }

    /// Name of the template in whose directory it is, if it is in one.
    pub(crate) fn template(&self) -> Option<&str> {
        match self.path.components().next()? {
            Component::Normal(name) => name.to_str(),
            _ => None,
        }
    }
}

impl Manifest {
    pub(crate) const VERSION: u32 = 1;

    /// Reads the manifest of the template in `directory`; `None` if there is none.
    ///
    /// # Errors
    /// `InvalidData` if it is not one that this version can read.
    pub(crate) fn read(directory: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(directory.join(FILE)) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        let manifest: Self = serde_json::from_slice(&bytes)?;
        if manifest.version != Self::VERSION {
            let message = format!("a template of version {}", manifest.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest of the template in `directory`, which nobody uses yet.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let mut file = fs::File::create(directory.join(FILE))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)
    }
}
