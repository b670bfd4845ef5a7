//! Templates that are imported: what a sandbox from one is like, and how long it is kept.

use crate::{
    alone, ids,
    images::{Archive, Layout, gzip, zstd},
    ordinary,
    support::{State, sh, until},
    trees::{set_mode, small_tree},
};
use sandbox_core::{TemplateId, prelude::*};
use sandbox_local::{ImportOptions, ImportedTemplate, LocalProvider, Origin};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

/// A state without the template `host`, and a place for what is imported.
struct Place {
    state: State,
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            state: State::without_template(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A small tree with some more in it.
    fn tree(&self) -> PathBuf {
        let root = self.path("tree");
        small_tree(&root);
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nann:x:1234:1234::/:/bin/sh",
        )
        .unwrap();
        fs::write(root.join("usr/bin/as-root"), "").unwrap();
        set_mode(&root.join("usr/bin/as-root"), 0o4755);
        fs::write(root.join("etc/hers"), "").unwrap();
        if !ordinary::is_ordinary() {
            chown(root.join("etc/hers"), Some(1234), Some(1234)).unwrap();
        }
        symlink("/etc/issue", root.join("etc/link")).unwrap();
        fs::hard_link(root.join("etc/issue"), root.join("etc/same")).unwrap();
        root
    }

    /// That tree as an archive, with the same owners whoever makes it.
    fn archive(&self) -> Archive {
        let root = self.tree();
        fs::remove_file(root.join("etc/hers")).unwrap();
        Archive::tree(&root).entry_by("etc/hers", tar::EntryType::Regular, "", b"", |header| {
            header.set_uid(1234);
            header.set_gid(1234);
        })
    }

    /// Names of all that is kept of templates.
    fn kept(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.state.path().join("templates"));
        let names = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names.filter(|name| !name.starts_with(".names")).collect()
    }
}

async fn import(provider: &LocalProvider, path: &Path, name: &str) -> ImportedTemplate {
    let options = ImportOptions::new().name(name);
    provider.import_template(path, options).await.unwrap()
}

async fn sandbox(provider: &LocalProvider, template: &str) -> Arc<dyn Sandbox> {
    let options = CreateOptions::new().template(template);
    provider.create(options).await.unwrap()
}

/// What is at `path` below the root of the only imported template, on disk.
fn stored(place: &Place, path: &str) -> fs::Metadata {
    let kept = place.kept();
    let directory = kept
        .iter()
        .find(|name| name.starts_with("sha256-"))
        .unwrap();
    let root = place
        .state
        .path()
        .join("templates")
        .join(directory)
        .join("root");
    fs::symlink_metadata(root.join(path)).unwrap()
}

#[tokio::test]
async fn a_directory_becomes_the_root() {
    let place = Place::new();
    let provider = place.state.provider();
    let imported = import(&provider, &place.tree(), "small").await;
    assert_eq!(imported.origin, Origin::Directory);
    assert_eq!(imported.names, [TemplateId::new("small")]);
    assert_eq!(imported.notices, Vec::<String>::new());
    assert!(
        imported.bytes > 100_000 && imported.entries > 15,
        "{imported:?}"
    );
    for template in ["small", imported.id.as_str(), &imported.id.as_str()[..20]] {
        let sandbox = sandbox(&provider, template).await;
        assert_eq!(
            sh(&sandbox, "cat /etc/link /etc/same").await,
            "small\nsmall\n"
        );
        assert_eq!(
            sh(&sandbox, "id -un; echo $HOME; cd; ls -ld .")
                .await
                .lines()
                .count(),
            3
        );
        let owners = "stat -c '%U %a' /etc/hers /usr/bin/as-root /home/user /tmp /root /etc/issue";
        let mut expected =
            "ann 644\nroot 755\nuser 755\nroot 1777\nroot 700\nroot 644\n".to_owned();
        if ordinary::is_ordinary() {
            // Her file could not be made, so it is of the user who has made the others.
            expected = expected.replace("ann", "root");
        }
        if alone::is_alone() {
            expected = expected.replace("root", "user");
        }
        assert_eq!(sh(&sandbox, owners).await, expected);
        // The host's own programs are not there.
        assert_eq!(
            sh(&sandbox, "ls /usr/bin").await,
            "as-root\ncat\nenv\nid\nls\nrm\nsh\nsleep\nstat\nsudo\n"
        );
        assert_eq!(sh(&sandbox, "cat /etc/hostname").await, "sandbox\n");
        if !alone::is_alone() {
            assert_eq!(sh(&sandbox, "sudo id -u").await, "0\n");
        }
    }
    // On disk everything belongs to nobody of this machine but its user, and runs as nobody else.
    let hers = stored(&place, "etc/hers");
    let owner = match (ordinary::is_ordinary(), alone::is_alone()) {
        (false, _) => 0x7000_0000 + 1234,
        (true, false) => ids::first(),
        (true, true) => ordinary::UID,
    };
    assert_eq!((hers.uid(), hers.gid()), (owner, owner));
    assert_eq!(stored(&place, "usr/bin/as-root").mode() & 0o7777, 0o755);
    assert_eq!(stored(&place, "etc/issue").nlink(), 2);
}

#[tokio::test]
async fn it_is_shared_and_stays_as_it_was() {
    let place = Place::new();
    let provider = place.state.provider();
    import(&provider, &place.tree(), "small").await;
    let (one, other) = (
        sandbox(&provider, "small").await,
        sandbox(&provider, "small").await,
    );
    let change = "echo mine > /etc/issue && rm /etc/hers && cat /etc/issue";
    let mut change = Command::shell(change);
    if !alone::is_alone() {
        change = change.user("root");
    }
    let output = one.exec(change).await.unwrap();
    assert_eq!(output.stdout_text(), "mine\n", "{}", output.stderr_text());
    assert_eq!(
        sh(&other, "cat /etc/issue; ls /etc/hers").await,
        "small\n/etc/hers\n"
    );
    assert_eq!(
        sh(&sandbox(&provider, "small").await, "cat /etc/same").await,
        "small\n"
    );
}

#[tokio::test]
async fn the_same_contents_are_kept_once_however_they_are_packed() {
    let place = Place::new();
    let provider = place.state.provider();
    let archive = place.archive().bytes();
    let mut ids = BTreeSet::new();
    for (name, bytes) in [
        ("a.tar", archive.clone()),
        ("b.tar.gz", gzip(&archive)),
        ("c", zstd(&archive)),
    ] {
        fs::write(place.path(name), bytes).unwrap();
        let imported = import(&provider, &place.path(name), name).await;
        assert_eq!(imported.origin, Origin::Archive);
        ids.insert(imported.id);
    }
    assert_eq!(ids.len(), 1);
    let kept = place.kept();
    assert_eq!(
        kept.iter()
            .filter(|name| name.starts_with("sha256-"))
            .count(),
        1,
        "{kept:?}"
    );
    let sandbox = sandbox(&provider, "b.tar.gz").await;
    assert_eq!(
        sh(&sandbox, "cat /etc/issue; stat -c %U /etc/hers").await,
        if alone::is_alone() {
            "small\nuser\n"
        } else {
            "small\nann\n"
        }
    );
}

#[tokio::test]
async fn an_image_is_the_sum_of_its_layers() {
    let place = Place::new();
    let provider = place.state.provider();
    let base = place.archive();
    let base = base
        .directory("opt/bin")
        .file("opt/old", "old")
        .file("opt/dir/below", "below")
        .file("opt/dir/deep/below", "below")
        .file("opt/gone/file", "")
        .file("opt/becomes-link", "file")
        .directory("opt/becomes-file")
        .file("opt/becomes-file/below", "")
        .link("lib-link", "usr/lib");
    let second = Archive::new()
        .file("opt/dir/new", "new")
        .file("opt/dir/.wh..wh..opq", "")
        .file("opt/.wh.gone", "")
        .file("opt/.wh.was-never-there", "")
        .link("opt/becomes-link", "old")
        .file("opt/becomes-file", "now a file")
        .file("lib-link/through", "through a link");
    let third = Archive::new()
        .file("opt/old", "replaced")
        .hard_link("opt/second", "opt/old")
        .entry_by(
            "opt/bin/hello",
            tar::EntryType::Regular,
            "",
            b"#!/bin/sh\necho $COLOR\n",
            |header| {
                header.set_mode(0o755);
            },
        );
    let mut layout = Layout::new(&place.path("image"));
    layout.image("one", &[base.bytes(), second.bytes(), third.bytes()]);
    let imported = import(&provider, &place.path("image"), "image").await;
    assert_eq!(imported.origin, Origin::Image);
    let sandbox = sandbox(&provider, "image").await;
    let look = "cd /opt; ls; cat old becomes-link becomes-file dir/new /usr/lib/through; ls -A dir";
    let expected = "becomes-file\nbecomes-link\nbin\ndir\nold\nsecond\nreplacedreplacednow a filenewthrough a linknew\n";
    assert_eq!(sh(&sandbox, look).await, expected);
    // Its variables are there, and its user is not: commands run as the default one.
    assert_eq!(
        sh(&sandbox, "hello; id -u; echo $PATH").await,
        "blue\n1000\n/opt/bin:/usr/bin:/bin\n"
    );
    let own = Command::shell("hello").env("COLOR", "red");
    assert_eq!(sandbox.exec(own).await.unwrap().stdout_text(), "red\n");
}

#[tokio::test]
async fn one_of_several_images_is_chosen_by_its_reference() {
    let place = Place::new();
    let provider = place.state.provider();
    let mut layout = Layout::new(&place.path("image"));
    layout.image_for("strange", &[Archive::new().file("a", "").bytes()], "s390x");
    let import = async |reference: Option<&str>| {
        let mut options = ImportOptions::new();
        options.reference = reference.map(str::to_owned);
        provider.import_template(place.path("image"), options).await
    };
    assert_eq!(
        import(None).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let layer = |name: &str| Archive::new().file(name, "").bytes();
    layout.image("one", &[layer("one")]);
    layout.image("two", &[layer("two")]);
    let error = import(None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("one, two"), "{error}");
    assert_ne!(
        import(Some("one")).await.unwrap().id,
        import(Some("two")).await.unwrap().id
    );
    assert_eq!(
        import(Some("three")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn what_is_in_use_stays_and_what_has_no_name_is_pruned() {
    let place = Place::new();
    let provider = place.state.provider();
    let imported = import(&provider, &place.tree(), "small").await;
    import(&provider, &place.path("tree"), "other").await;
    let used = sandbox(&provider, "small").await;
    assert!(
        provider
            .imported_template(&imported.id)
            .await
            .unwrap()
            .in_use
    );
    // One of two names goes, and nothing else.
    assert!(!provider.remove_template(&"small".into()).await.unwrap());
    for id in [TemplateId::new("other"), imported.id.clone()] {
        let error = provider.remove_template(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidState, "{id}");
    }
    assert_eq!(sh(&used, "cat /etc/issue").await, "small\n");
    used.kill().await.unwrap();
    // A newer tree gets the name. The older one has none then, and stays until somebody prunes.
    fs::write(place.path("tree/etc/issue"), "newer\n").unwrap();
    let newer = import(&provider, &place.path("tree"), "other").await;
    assert_ne!(newer.id, imported.id);
    drop(place.state.provider());
    let used = sandbox(&provider, imported.id.as_str()).await;
    assert_eq!(provider.prune().unwrap().templates, Vec::<String>::new());
    used.kill().await.unwrap();
    let directory = imported.id.as_str().replace(':', "-");
    assert_eq!(
        provider.leftovers().unwrap().templates,
        std::slice::from_ref(&directory)
    );
    assert_eq!(provider.prune().unwrap().templates, [directory]);
    let error = provider.imported_template(&imported.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(provider.remove_template(&"other".into()).await.unwrap());
    assert_eq!(provider.imported_templates().await.unwrap(), []);
    let options = CreateOptions::new().template("other");
    assert_eq!(
        provider.create(options).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(place.kept(), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn imports_of_the_same_at_the_same_time_meet() {
    let place = Place::new();
    let tree = place.tree();
    let tasks = (0..8).map(|number| {
        // Some from another program's point of view.
        let (provider, tree) = (place.state.provider(), tree.clone());
        tokio::spawn(async move { import(&provider, &tree, &format!("name-{number}")).await })
    });
    let mut ids = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        ids.insert(task.await.unwrap().id);
    }
    assert_eq!(ids.len(), 1);
    let provider = place.state.provider();
    let imported = provider
        .imported_template(ids.first().unwrap())
        .await
        .unwrap();
    assert_eq!(imported.names.len(), 8);
    assert_eq!(place.kept().len(), 1, "{:?}", place.kept());
    let sandbox = sandbox(&provider, "name-7").await;
    assert_eq!(sh(&sandbox, "cat /etc/issue").await, "small\n");
}

#[tokio::test]
async fn progress_is_told_and_dropping_the_future_ends_the_import() {
    let place = Place::new();
    let provider = place.state.provider();
    let archive = place.path("archive.tar");
    fs::write(&archive, place.archive().bytes()).unwrap();
    let length = fs::metadata(&archive).unwrap().len();
    let told = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::clone(&told);
    let options = ImportOptions::new().progress(move |step| progress.lock().unwrap().push(step));
    provider.import_template(&archive, options).await.unwrap();
    for half in [false, true] {
        let told = told.lock().unwrap();
        let steps: Vec<_> = told.iter().filter(|step| step.writing == half).collect();
        assert!(steps.is_sorted_by_key(|step| step.read));
        let last = steps.last().unwrap();
        assert_eq!((last.read, last.total), (length, Some(length)));
    }
    let id = provider.imported_templates().await.unwrap()[0].id.clone();
    assert!(provider.remove_template(&id).await.unwrap());

    let (began, begun) = std::sync::mpsc::channel();
    let (go_on, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let options = ImportOptions::new().progress(move |step| {
        if step.writing && began.send(()).is_ok() {
            let _ = gate.lock().unwrap().recv();
        }
    });
    let import = {
        let (provider, archive) = (provider.clone(), archive.clone());
        tokio::spawn(async move { provider.import_template(archive, options).await })
    };
    tokio::task::spawn_blocking(move || begun.recv().unwrap())
        .await
        .unwrap();
    assert!(place.kept().iter().any(|name| name.starts_with(".import-")));
    import.abort();
    assert!(import.await.unwrap_err().is_cancelled());
    drop(go_on);
    until("the import has ended", || place.kept().is_empty()).await;
}

#[tokio::test]
async fn a_pool_keeps_sandboxes_of_the_templates_that_were_asked_for_last() {
    let place = Place::new();
    let provider = place.state.pooled(1).await;
    let tree = place.tree();
    for number in 0..6 {
        fs::write(tree.join("etc/issue"), number.to_string()).unwrap();
        import(&provider, &tree, &format!("t{number}")).await;
    }
    let take = async |name: &str| {
        let sandbox = sandbox(&provider, name).await;
        assert_eq!(format!("t{}", sh(&sandbox, "cat /etc/issue").await), name);
        sandbox.kill().await.unwrap();
    };
    for number in 0..6 {
        take(&format!("t{number}")).await;
    }
    let four = || provider.pool_status().ready == 4;
    until("the default template and three more have one", four).await;
    let before = provider.pool_status().taken;
    take("t5").await;
    assert_eq!(provider.pool_status().taken, before + 1);
    until("there is another one", four).await;
    // A name that means another template now.
    import(&provider, &tree, "t4").await;
    let sandbox = sandbox(&provider, "t4").await;
    assert_eq!(sh(&sandbox, "cat /etc/issue").await, "5");
    sandbox.kill().await.unwrap();
    // Those that wait do not keep a template from being removed.
    assert!(!provider.remove_template(&"t4".into()).await.unwrap());
    assert!(provider.remove_template(&"t5".into()).await.unwrap());
    let environment = CreateOptions::new().template("t3").env_var("X", "1");
    let sandbox = provider.create(environment).await.unwrap();
    assert_eq!(sh(&sandbox, "echo $X").await, "1\n");
}
