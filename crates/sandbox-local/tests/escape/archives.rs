//! Archives and images that were made to be imported by somebody trusting: none reaches a file outside of the template,
//! none takes more than is allowed, and nothing is left of any.
//!
//! The control of those that reach out is a program that unpacks what it is given, in a directory beside a planted one.

use crate::{
    alone,
    images::{Archive, Layout, gzip, saved, sha256},
    ordinary,
};
use sandbox_core::{ErrorKind, Result};
use sandbox_local::{ImportOptions, ImportedTemplate, LocalProvider};
use serde_json::json;
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};
use tar::EntryType;
use tempfile::TempDir;

/// Unpacks an archive as its maker wants it.
const TRUSTING: &str = r#"
import sys, tarfile
archive = tarfile.open(sys.argv[1])
trusting = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
archive.extractall(sys.argv[2], **trusting)
"#;

impl Drop for Trap {
    fn drop(&mut self) {
        self.tidy_up();
    }
}

/// A place for an archive, with a directory `outside` that it is after.
struct Trap {
    directory: TempDir,
    provider: LocalProvider,
}

impl Trap {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let provider = LocalProvider::builder().state_dir(state).build().unwrap();
        let trap = Self {
            directory,
            provider,
        };
        trap.plant();
        trap
    }

    /// Removes what belongs to subordinate ids, by a process that has them.
    fn tidy_up(&self) {
        if ordinary::is_ordinary() && !alone::is_alone() {
            let mut rm = Command::new("unshare");
            rm.args(["--map-root-user", "--map-auto", "rm", "-rf"]);
            let _ = rm.arg(self.path("state")).status();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn outside(&self) -> String {
        self.path("outside").to_str().unwrap().to_owned()
    }

    fn plant(&self) {
        let outside = self.path("outside");
        let _ = fs::remove_dir_all(&outside);
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
    }

    /// All that can be told of what is outside.
    fn look(&self) -> Vec<(String, u32, u64, u64, Vec<u8>)> {
        let entries = fs::read_dir(self.path("outside")).into_iter().flatten();
        let mut seen: Vec<_> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                let status = entry.metadata().unwrap();
                let name = entry.file_name().into_string().unwrap();
                let contents = fs::read(entry.path()).unwrap_or_default();
                (name, status.mode(), status.nlink(), status.ino(), contents)
            })
            .collect();
        let own = fs::metadata(self.path("outside")).unwrap();
        seen.push((".".into(), own.mode(), own.nlink(), own.ino(), Vec::new()));
        seen.sort();
        seen
    }

    async fn import(&self, path: &Path, options: ImportOptions) -> Result<ImportedTemplate> {
        self.provider.import_template(path, options).await
    }

    /// Imports an archive in vain.
    async fn refused(&self, bytes: &[u8], options: ImportOptions) -> (ErrorKind, String) {
        let archive = self.path("archive");
        fs::write(&archive, bytes).unwrap();
        self.refused_at(&archive, options).await
    }

    async fn refused_at(&self, path: &Path, options: ImportOptions) -> (ErrorKind, String) {
        let before = self.look();
        let error = self.import(path, options).await.unwrap_err();
        assert_eq!(self.look(), before, "{error}");
        let left = fs::read_dir(self.path("state/templates"));
        let left: Vec<_> = left.into_iter().flatten().collect();
        assert!(left.is_empty(), "{error}: {left:?}");
        (error.kind(), error.to_string())
    }

    /// Whether the trusting program reaches what is outside.
    fn trusting_reaches_out(&self, bytes: &[u8]) -> bool {
        self.plant();
        let (archive, root) = (self.path("archive"), self.path("control"));
        fs::write(&archive, bytes).unwrap();
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        let before = self.look();
        let mut python = Command::new("python3");
        python.args(["-c", TRUSTING]).args([&archive, &root]);
        let output = python.output().unwrap();
        let reached = self.look() != before;
        assert!(
            reached || output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.plant();
        reached
    }

    /// An archive that reaches out wherever it is trusted, and here is refused for the reason `why`.
    async fn reaches_nothing(&self, archive: Archive, why: &str) {
        let bytes = archive.bytes();
        assert!(
            self.trusting_reaches_out(&bytes),
            "the control does not work: {why}"
        );
        let (kind, text) = self.refused(&bytes, ImportOptions::new()).await;
        assert_eq!(kind, ErrorKind::InvalidArgument, "{text}");
        assert!(text.contains(why), "{text}");
    }
}

/// So many zeros, compressed, without ever having them in memory.
fn many_zeros(before: &[u8], count: u64) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(before).unwrap();
    io::copy(&mut io::repeat(0).take(count), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn small() -> ImportOptions {
    ImportOptions::new().max_bytes(1 << 20).max_entries(1000)
}

#[tokio::test]
async fn names_that_lead_up() {
    let trap = Trap::new();
    let name = "../outside/new";
    trap.reaches_nothing(Archive::new().file(name, "x"), "`..`")
        .await;
    let name = "a/../../outside/new";
    trap.reaches_nothing(Archive::new().directory("a").file(name, "x"), "`..`")
        .await;
}

#[tokio::test]
async fn absolute_names() {
    let trap = Trap::new();
    let name = format!("{}/new", trap.outside());
    trap.reaches_nothing(Archive::new().file(&name, "x"), "absolute")
        .await;
}

#[tokio::test]
async fn files_behind_links() {
    let trap = Trap::new();
    for target in [trap.outside(), "../outside".into()] {
        let archive = Archive::new().link("link", &target).file("link/new", "x");
        trap.reaches_nothing(archive, "leads out").await;
    }
    // Each link by itself looks harmless.
    let archive = Archive::new()
        .directory("a")
        .link("a/up", "..")
        .link("a/up/up", "..")
        .file("a/up/up/outside/new", "x");
    trap.reaches_nothing(archive, "leads out").await;
}

#[tokio::test]
async fn files_in_the_place_of_links() {
    let trap = Trap::new();
    let secret = format!("{}/secret", trap.outside());
    let archive = Archive::new()
        .link("x", &secret)
        .hard_link("y", "x")
        .file("y", "mine");
    let (kind, text) = trap.refused(&archive.bytes(), ImportOptions::new()).await;
    assert_eq!(
        (kind, text.contains("twice")),
        (ErrorKind::InvalidArgument, true),
        "{text}"
    );
    let archive = Archive::new().link("x", &trap.outside()).directory("x");
    let (kind, text) = trap.refused(&archive.bytes(), ImportOptions::new()).await;
    assert_eq!(
        (kind, text.contains("twice")),
        (ErrorKind::InvalidArgument, true),
        "{text}"
    );
}

#[tokio::test]
async fn hard_links_to_files_outside() {
    let trap = Trap::new();
    let secret = format!("{}/secret", trap.outside());
    let absolute = Archive::new().hard_link("mine", &secret).bytes();
    let (kind, text) = trap.refused(&absolute, ImportOptions::new()).await;
    assert_eq!(
        (kind, text.contains("absolute")),
        (ErrorKind::InvalidArgument, true),
        "{text}"
    );
    let up = Archive::new().hard_link("mine", "../outside/secret");
    trap.reaches_nothing(up, "`..`").await;
    let behind = Archive::new()
        .link("link", "../outside")
        .hard_link("mine", "link/secret");
    trap.reaches_nothing(behind, "no file of the tree").await;
    let to_itself = Archive::new()
        .file("a", "")
        .hard_link("mine", "mine")
        .bytes();
    assert_eq!(
        trap.refused(&to_itself, ImportOptions::new()).await.0,
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn devices_and_attributes_of_overlays() {
    let trap = Trap::new();
    let mut pax = Vec::new();
    for (key, value) in [
        ("trusted.overlay.opaque", "y"),
        ("security.capability", "x"),
    ] {
        let record = format!(" SCHILY.xattr.{key}={value}\n");
        let length = record.len() + 2;
        pax.extend(format!("{length}{record}").bytes());
    }
    let device = |archive: Archive, name: &str, kind, major, minor| {
        archive.entry_by(name, kind, "", b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    };
    let archive = Archive::new()
        .entry("pax", EntryType::XHeader, "", &pax)
        .directory("usr");
    let archive = device(archive, "whiteout", EntryType::Char, 0, 0);
    let archive = device(archive, "memory", EntryType::Char, 1, 1);
    let archive = device(archive, "disk", EntryType::Block, 8, 0);
    fs::write(trap.path("archive"), archive.bytes()).unwrap();
    let imported = trap
        .import(&trap.path("archive"), ImportOptions::new())
        .await
        .unwrap();
    let notices = imported.notices.join("; ");
    assert!(
        notices.contains("3 devices") && notices.contains("1 entries were taken without"),
        "{notices}"
    );
    let directory = imported.id.as_str().replace(':', "-");
    let root = trap.path("state/templates").join(directory).join("root");
    let names = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["usr"]);
    let mut buffer = [0; 256];
    let attributes = rustix::fs::listxattr(root.join("usr"), &mut buffer).unwrap();
    assert_eq!(attributes, 0, "{}", String::from_utf8_lossy(&buffer));
}

#[tokio::test]
async fn more_than_is_allowed() {
    let trap = Trap::new();
    let header = |size: u64| {
        let archive = Archive::new().entry_by("big", EntryType::Regular, "", b"", |header| {
            header.set_size(size);
        });
        archive.bytes()[..512].to_vec()
    };
    let many = (0..2000).fold(Archive::new(), |archive, number| {
        archive.file(&number.to_string(), "")
    });
    let descriptions = (0..2000).fold(Archive::new(), |archive, _| {
        archive.entry("pax", EntryType::XGlobalHeader, "", b"")
    });
    let files = (0..20).fold(Archive::new(), |archive, number| {
        archive.file(&number.to_string(), &"x".repeat(100_000))
    });
    let end = Archive::new().file("a", "").bytes();
    let attempts = [
        ("a file that is said to be larger", header(1 << 60)),
        (
            "a file that is larger",
            many_zeros(&header(1 << 25), 1 << 25),
        ),
        ("too many entries", many.bytes()),
        ("too many descriptions of entries", descriptions.bytes()),
        ("too many bytes in all", gzip(&files.bytes())),
        ("too much after the end", many_zeros(&end, 1 << 25)),
    ];
    for (what, bytes) in attempts {
        assert!(bytes.len() < 4 << 20, "{what}");
        let (kind, text) = trap.refused(&bytes, small()).await;
        assert_eq!(kind, ErrorKind::QuotaExceeded, "{what}: {text}");
    }
}

#[tokio::test]
async fn what_no_honest_program_makes() {
    let trap = Trap::new();
    let pax = |record: &str| {
        let length = record.len() + 4;
        let text = format!("{length} {record}\n");
        assert_eq!(text.len(), length);
        Archive::new().entry("pax", EntryType::XHeader, "", text.as_bytes())
    };
    let long = Archive::new().entry("././@LongLink", EntryType::GNULongName, "", &[b'x'; 300]);
    let huge = Archive::new().entry(
        "././@LongLink",
        EntryType::GNULongName,
        "",
        &vec![b'x'; 2 << 20],
    );
    let deep = Archive::new().entry(
        "././@LongLink",
        EntryType::GNULongName,
        "",
        "d/".repeat(300).as_bytes(),
    );
    let whole = Archive::new().file("a", &"x".repeat(2000)).bytes();
    let strange = |kind: u8| Archive::new().entry("x", EntryType::new(kind), "", b"");
    let attempts = [
        ("a name too long", long.file("x", "").bytes()),
        ("a description too long", huge.file("x", "").bytes()),
        ("a tree too deep", deep.file("x", "").bytes()),
        (
            "a zero byte",
            pax("path=a\0b/ccccccc").file("x", "").bytes(),
        ),
        (
            "an entry twice",
            Archive::new().file("a", "1").file("./a", "2").bytes(),
        ),
        (
            "a file below a file",
            Archive::new().file("a", "").file("a/b", "").bytes(),
        ),
        (
            "a name for all",
            Archive::new()
                .extended(EntryType::XGlobalHeader, &[("path", "x")])
                .file("a", "")
                .bytes(),
        ),
        ("two sizes", pax("size=99999999999").file("x", "1").bytes()),
        ("a sparse file", strange(b'S').bytes()),
        (
            "a sparse file of the other kind",
            pax("GNU.sparse.major=1").file("x", "").bytes(),
        ),
        ("an unknown kind", strange(b'?').bytes()),
        (
            "a root that is a file",
            Archive::new().file("./", "x").bytes(),
        ),
        ("a link to nowhere", Archive::new().link("x", "").bytes()),
        ("an end too early", whole[..1000].to_vec()),
        ("half a header", whole[..100].to_vec()),
        ("a damaged compression", gzip(&whole)[..60].to_vec()),
        ("no archive at all", b"hello".repeat(300)),
        (
            "an image",
            Archive::new()
                .file("oci-layout", "{}")
                .file("index.json", "{}")
                .bytes(),
        ),
    ];
    for (what, bytes) in attempts {
        let (kind, text) = trap.refused(&bytes, ImportOptions::new()).await;
        assert_eq!(kind, ErrorKind::InvalidArgument, "{what}: {text}");
    }
}

#[tokio::test]
async fn layers_that_reach_out_of_their_image() {
    let trap = Trap::new();
    let base = || {
        Archive::new()
            .link("link", &trap.outside())
            .link("up", "../../../../../../..")
    };
    let uppers = [
        Archive::new().file("link/.wh.secret", ""),
        Archive::new().file("link/.wh..wh..opq", ""),
        Archive::new().file("link/new", "x"),
        Archive::new().file(".wh...", ""),
        Archive::new().file(".wh..", ""),
        Archive::new().file(".wh.", ""),
        Archive::new().file("up/.wh.tmp", ""),
        Archive::new().hard_link("mine", "link/secret"),
    ];
    for (number, upper) in uppers.into_iter().enumerate() {
        let path = trap.path(&format!("image-{number}"));
        Layout::new(&path).image("x", &[base().bytes(), upper.bytes()]);
        let (kind, text) = trap.refused_at(&path, ImportOptions::new()).await;
        assert_eq!(kind, ErrorKind::InvalidArgument, "{number}: {text}");
    }
}

#[tokio::test]
async fn images_that_are_not_what_they_say() {
    let trap = Trap::new();
    let layer = || Archive::new().file("a", "a").bytes();
    let refused = async |name: &str, spoil: &dyn Fn(&Path, &mut Layout)| {
        let path = trap.path(name);
        let mut layout = Layout::new(&path);
        spoil(&path, &mut layout);
        trap.refused_at(&path, small()).await
    };
    let other = gzip(&Archive::new().file("a", "b").bytes());
    let config = |digest: &str| json!({"architecture": arch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}});
    type Spoil<'a> = &'a dyn Fn(&Path, &mut Layout);
    let attempts: [(&str, Spoil<'_>, ErrorKind); 7] = [
        (
            "a layer with other contents",
            &|_, layout| {
                let named = layout.image("x", &[layer()]);
                let digest = named[0]["digest"].as_str().unwrap();
                assert_eq!(
                    fs::read(layout.blob_path(digest)).unwrap().len(),
                    other.len()
                );
                fs::write(layout.blob_path(digest), &other).unwrap();
            },
            ErrorKind::InvalidArgument,
        ),
        (
            "contents that its description does not name",
            &|_, layout| {
                let blob = layout.blob("layer.v1.tar", &layer());
                layout.manifest(
                    "x",
                    &config(&format!("sha256:{}", sha256(b"other"))),
                    &[blob],
                );
            },
            ErrorKind::InvalidArgument,
        ),
        (
            "a wrong size",
            &|_, layout| {
                let mut blob = layout.blob("layer.v1.tar", &layer());
                blob["size"] = json!(10);
                layout.manifest(
                    "x",
                    &config(&format!("sha256:{}", sha256(&layer()))),
                    &[blob],
                );
            },
            ErrorKind::InvalidArgument,
        ),
        (
            "a digest that is a path",
            &|_, layout| {
                let mut blob = layout.blob("layer.v1.tar", &layer());
                blob["digest"] = json!("sha256:../../../outside/secret");
                layout.manifest(
                    "x",
                    &config(&format!("sha256:{}", sha256(&layer()))),
                    &[blob],
                );
            },
            ErrorKind::InvalidArgument,
        ),
        (
            "a blob that is a link",
            &|_, layout| {
                let named = layout.image("x", &[layer()]);
                let blob = layout.blob_path(named[0]["digest"].as_str().unwrap());
                fs::rename(&blob, trap.path("outside-blob")).unwrap();
                symlink(trap.path("outside-blob"), blob).unwrap();
            },
            ErrorKind::InvalidArgument,
        ),
        (
            "a layer of an image that is more than allowed",
            &|_, layout| {
                layout.image(
                    "x",
                    &[
                        Archive::new().file("a", &"x".repeat(700_000)).bytes(),
                        Archive::new().file("b", &"x".repeat(700_000)).bytes(),
                    ],
                );
            },
            ErrorKind::QuotaExceeded,
        ),
        (
            "a missing layer",
            &|_, layout| {
                let named = layout.image("x", &[layer()]);
                fs::remove_file(layout.blob_path(named[0]["digest"].as_str().unwrap())).unwrap();
            },
            ErrorKind::NotFound,
        ),
    ];
    for (what, spoil, expected) in attempts {
        let (kind, text) = refused(what, spoil).await;
        assert_eq!(kind, expected, "{what}: {text}");
    }
    let huge = |path: &Path, _: &mut Layout| {
        fs::write(path.join("index.json"), vec![b' '; 5 << 20]).unwrap();
    };
    assert_eq!(
        refused("a huge index", &huge).await.0,
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn archives_of_images_that_are_not_what_they_say() {
    let trap = Trap::new();
    let layer = Archive::new().file("a", "a").bytes();
    let config = json!({
        "architecture": arch(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    });
    let of = |config_path: &str, layers: &[&str]| {
        let list = json!([{"Config": config_path, "RepoTags": ["x"], "Layers": layers}]);
        let archive = Archive::new().file("manifest.json", &list.to_string());
        archive.file("config", &config.to_string())
    };
    let outside = format!("{}/secret", trap.outside());
    let attempts = [
        ("other contents", of("config", &["l"]).file("l", "other")),
        ("a missing layer", of("config", &["l"])),
        ("more layers", of("config", &["config", "config"])),
        (
            "a path that leads out",
            of("config", &["../outside/secret"]),
        ),
        ("an absolute path", of("config", &[&outside])),
        ("a path of nothing", of("", &["."])),
        (
            "a link that leads out",
            of("config", &["l"]).link("l", &outside),
        ),
        (
            "a link that leads up",
            of("config", &["l"]).link("l", "../outside/secret"),
        ),
        (
            "links in a circle",
            of("config", &["l"]).link("l", "m").link("m", "l"),
        ),
        (
            "a description that is a link",
            of("c", &["l"]).link("c", &outside),
        ),
    ];
    for (what, archive) in attempts {
        let (kind, text) = trap.refused(&archive.bytes(), small()).await;
        let fits = matches!(kind, ErrorKind::InvalidArgument | ErrorKind::NotFound);
        assert!(fits, "{what}: {kind:?} {text}");
    }
    // One that is what it says.
    let whole = saved(&[("x", &[layer])]);
    fs::write(trap.path("archive"), whole.bytes()).unwrap();
    let imported = trap.import(&trap.path("archive"), small()).await.unwrap();
    assert_eq!(imported.entries, 1);
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[tokio::test]
async fn directories_that_change_or_lead_elsewhere() {
    let trap = Trap::new();
    let tree = trap.path("tree");
    fs::create_dir_all(tree.join("usr")).unwrap();
    symlink(trap.outside(), tree.join("link")).unwrap();
    let imported = trap.import(&tree, ImportOptions::new()).await.unwrap();
    let directory = imported.id.as_str().replace(':', "-");
    let link = trap
        .path("state/templates")
        .join(directory)
        .join("root/link");
    assert_eq!(fs::read_link(link).unwrap(), Path::new(&trap.outside()));
    let archive = trap.path("archive");
    fs::write(&archive, Archive::tree(&tree).bytes()).unwrap();
    let imported = trap.import(&archive, ImportOptions::new()).await.unwrap();
    assert_eq!(imported.entries, 3);
    // It is another one when it is read for the second time.
    fs::write(tree.join("file"), "one").unwrap();
    let file = tree.join("file");
    let options = ImportOptions::new().progress(move |step| {
        if step.writing && step.read == 0 {
            fs::write(&file, "two").unwrap();
        }
    });
    let before = fs::read_dir(trap.path("state/templates")).unwrap().count();
    let error = trap.import(&tree, options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("changed"), "{error}");
    assert_eq!(
        fs::read_dir(trap.path("state/templates")).unwrap().count(),
        before
    );
}
