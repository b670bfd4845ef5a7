//! Imports of what looks odd, and what honest programs make all the same; and of what is wrong in ways that must be told.

use crate::{
    alone,
    images::{Archive, Layout, architecture, gzip, saved, zstd},
    support::{State, sh},
    trees::small_tree,
};
use sandbox_core::prelude::*;
use sandbox_local::{ImportOptions, ImportedTemplate, LocalProvider, Origin};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::PathBuf,
};
use tar::EntryType;
use tempfile::TempDir;

/// A state without the template `host`, and a small tree to add odd things to.
struct Place {
    provider: LocalProvider,
    directory: TempDir,
    // After the provider, whose sandboxes are in it.
    state: State,
}

impl Place {
    fn new() -> Self {
        let (state, directory) = (State::without_template(), tempfile::tempdir().unwrap());
        small_tree(&directory.path().join("tree"));
        Self {
            provider: state.provider(),
            state,
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn import(&self, archive: Archive) -> Result<ImportedTemplate> {
        fs::write(self.path("archive"), archive.bytes()).unwrap();
        self.import_path("archive").await
    }

    async fn import_path(&self, name: &str) -> Result<ImportedTemplate> {
        let options = ImportOptions::new();
        self.provider
            .import_template(self.path(name), options)
            .await
    }

    async fn print(&self, template: &ImportedTemplate, script: &str) -> String {
        let options = CreateOptions::new().template(template.id.clone());
        sh(&self.provider.create(options).await.unwrap(), script).await
    }
}

#[tokio::test]
async fn names_and_attributes_may_have_line_feeds() {
    let place = Place::new();
    let long = format!("odd/{}\nend", "x".repeat(150));
    let records = [
        ("SCHILY.xattr.user.note", "one\n12 path=two\n"),
        ("path", &*long),
        ("mtime", "1000000000.25"),
    ];
    let archive = Archive::tree(&place.path("tree"));
    let archive = archive
        .extended(EntryType::XHeader, &records)
        .file("short", "contents\n");
    let template = place.import(archive).await.unwrap();
    let notices: Vec<_> = (template.notices.iter())
        .filter(|notice| !notice.contains("no other users"))
        .collect();
    assert_eq!(
        notices,
        ["1 entries were taken without their extended attributes"]
    );
    let look = r#"cd /odd; for name in *; do echo "$name"; cat "$name"; done"#;
    let expected = format!("{}\ncontents\n", &long[4..]);
    assert_eq!(place.print(&template, look).await, expected);
}

#[tokio::test]
async fn what_is_said_of_all_entries_holds_unless_one_says_otherwise() {
    let place = Place::new();
    let archive = Archive::tree(&place.path("tree"))
        .extended(EntryType::XGlobalHeader, &[("comment", "made by hand")])
        .extended(EntryType::XGlobalHeader, &[("uid", "7"), ("gid", "8")])
        .file("of-all", "")
        .extended(EntryType::XHeader, &[("uid", "9")])
        .file("own", "");
    let template = place.import(archive).await.unwrap();
    let look = "stat -c '%u %g' /of-all /own /bin/sh";
    let expected = if alone::is_alone() {
        "1000 1000\n1000 1000\n1000 1000\n"
    } else {
        "7 8\n9 8\n0 0\n"
    };
    assert_eq!(place.print(&template, look).await, expected);
}

#[tokio::test]
async fn the_server_for_names_is_never_that_of_the_tree() {
    let make: [fn(PathBuf); 4] = [
        |_| (),
        |path| fs::write(path, "nameserver 127.0.0.53\n").unwrap(),
        |path| symlink("../run/systemd/resolve/stub-resolv.conf", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
    ];
    for make in make {
        let place = Place::new();
        fs::create_dir_all(place.path("tree/etc")).unwrap();
        make(place.path("tree/etc/resolv.conf"));
        let template = place.import_path("tree").await.unwrap();
        let server = place.print(&template, "cat /etc/resolv.conf").await;
        assert_eq!(server, "nameserver 192.0.0.1\n");
    }
}

#[tokio::test]
async fn directories_of_programs_may_be_one() {
    let links = [
        ("usr/bin", "usr/local/bin", "../bin"),
        ("usr/local/bin", "usr/bin", "local/bin"),
    ];
    for (directory, link, target) in links {
        let place = Place::new();
        let programs = place.path("tree/usr/bin");
        let (real, other) = (
            place.path("tree").join(directory),
            place.path("tree").join(link),
        );
        fs::create_dir_all(place.path("tree/usr/local")).unwrap();
        if programs != real {
            fs::rename(&programs, &real).unwrap();
        }
        symlink(target, other).unwrap();
        let template = place.import_path("tree").await.unwrap();
        let (look, expected) = if alone::is_alone() {
            ("command -v sudo", "/usr/local/bin/sudo\n")
        } else {
            ("sudo id -u", "0\n")
        };
        assert_eq!(
            place.print(&template, look).await,
            expected,
            "{link} leads to {target}"
        );
    }
}

#[tokio::test]
async fn a_tree_that_no_sandbox_can_start_from_is_refused_as_such() {
    let place = Place::new();
    for name in ["etc", "usr", "home"] {
        let error = place.import(Archive::new().file(name, "")).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}: {error}");
    }
    let loops = Archive::new().link("etc", "etc");
    let error = place.import(loops).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn layers_that_are_said_to_be_endless_are_refused() {
    let place = Place::new();
    let layer = Archive::new().file("a", "").bytes();
    let mut layout = Layout::new(&place.path("image"));
    let mut said = layout.blob("layer.v1.tar", &layer);
    said["size"] = json!(u64::MAX / 2 + 1);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [said["digest"], said["digest"]]},
    });
    layout.manifest("huge", &config, &[said.clone(), said]);
    let error = place.import_path("image").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn archives_of_images_are_images() {
    let place = Place::new();
    let base = Archive::tree(&place.path("tree"))
        .file("opt/gone", "")
        .bytes();
    let upper = Archive::new()
        .file("opt/.wh.gone", "")
        .file("opt/new", "new\n")
        .bytes();
    let mut layout = Layout::new(&place.path("image"));
    layout.image("one", &[base.clone(), upper.clone()]);
    let direct = place.import_path("image").await.unwrap();
    let look = "ls /opt; cat /opt/new; echo $COLOR";
    let packed = Archive::tree(&place.path("image")).bytes();
    let docker = saved(&[("one:latest", &[base.clone(), upper.clone()])]).bytes();
    let mut ids = Vec::new();
    for bytes in [&packed, &gzip(&packed), &docker, &zstd(&docker)] {
        fs::write(place.path("archive"), bytes).unwrap();
        let template = place.import_path("archive").await.unwrap();
        assert_eq!(template.origin, Origin::Image);
        assert_eq!(place.print(&template, look).await, "new\nnew\nblue\n");
        ids.push(template.id);
    }
    // However it is packed, the image is the same; Docker's own description of it is another one.
    assert_eq!((&ids[0], &ids[1]), (&direct.id, &direct.id));
    assert_eq!(ids[2], ids[3]);

    let two = saved(&[
        ("one:latest", &[base.clone(), upper.clone()]),
        ("two:latest", &[base, upper.clone(), upper]),
    ]);
    let error = place.import(two).await.unwrap_err();
    assert!(
        error.to_string().contains("one:latest, two:latest"),
        "{error}"
    );
    let import = async |reference: &str| {
        let options = ImportOptions::new().reference(reference);
        place
            .provider
            .import_template(place.path("archive"), options)
            .await
    };
    // Its layers are links to those of the first one.
    let template = import("two:latest").await.unwrap();
    assert_eq!(place.print(&template, look).await, "new\nnew\nblue\n");
    let error = import("three").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_tree_that_has_a_file_as_archives_of_images_have_is_a_tree() {
    let place = Place::new();
    for text in ["{}", "[]", "[1]", r#"[{"name": "x"}]"#, "nonsense"] {
        let archive = Archive::tree(&place.path("tree")).file("manifest.json", text);
        let template = place.import(archive).await.unwrap();
        assert_eq!(template.origin, Origin::Archive);
        assert_eq!(place.print(&template, "cat /manifest.json").await, text);
    }
}

#[tokio::test]
async fn zeros_take_no_room() {
    let place = Place::new();
    let middle = 40 << 20;
    let file = fs::File::create(place.path("tree/zeros")).unwrap();
    file.write_all_at(b"first", 0).unwrap();
    file.write_all_at(b"middle", middle).unwrap();
    file.set_len(2 * middle).unwrap();
    let template = place.import_path("tree").await.unwrap();
    assert!(template.bytes > 2 * middle);
    let look = "stat -c %s /zeros; cat /zeros";
    let expected = [
        format!("{}\nfirst", 2 * middle).into_bytes(),
        vec![0; middle as usize - 5],
        b"middle".to_vec(),
        vec![0; middle as usize - 6],
    ];
    let options = CreateOptions::new().template(template.id.clone());
    let sandbox = place.provider.create(options).await.unwrap();
    let running = sandbox.spawn(Command::shell(look)).await.unwrap();
    let output = running.output_within(100 << 20).await.unwrap();
    assert!(output.stdout == expected.concat(), "it is another file");
    let directory = template.id.as_str().replace(':', "-");
    let stored = place.state.path().join("templates").join(directory);
    let stored = fs::metadata(stored.join("root/zeros")).unwrap();
    assert!(stored.blocks() * 512 < 1 << 20, "{}", stored.blocks());
}
