//! A program inside exchanges a directory for a link, again and again, while the file calls work on it.

use crate::lab::{DECOY, Lab, Planted, Who, decoy_in, in_time};
use futures_util::TryStreamExt;
use sandbox_core::{
    ListFilesOptions, MkdirOptions, PermissionOptions, ReadOptions, RemoveOptions, RenameOptions,
    WriteOptions, prelude::*,
};
use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Instant};

/// Exchanges the directory `real` and the link `link`, which leads to `TARGET`, as long as it lives.
const EXCHANGE: &str = r#"
    os.chdir(given("PLACE"))
    os.mkdir("swapped")
    os.symlink(given("TARGET"), "other")
    print("ready", flush=True)
    while True:
        call("renameat2", -100, b"swapped", -100, b"other", 2)
"#;

/// All that could have changed of a directory and its files.
fn look(directory: &Path) -> Vec<(String, u64, u32, i64, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let contents = fs::read(entry.path()).unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (
                name,
                metadata.ino(),
                metadata.mode(),
                metadata.ctime_nsec(),
                contents,
            )
        })
        .collect();
    found.sort();
    found
}

/// One round of all calls on what is being exchanged. Each may fail; none may hang, or show a decoy of the host.
async fn touch(files: &dyn Files, who: Who) -> sandbox_core::Result<()> {
    let user = who.name();
    let path = |name: &str| SandboxPath::new(format!("/home/user/swapped/{name}"));
    let (decoy, other) = (path("decoy")?, path("other")?);
    let _ = in_time(files.write(
        &decoy,
        "x".into(),
        WriteOptions::new().user(user).mode(0o600u32),
    ))
    .await;
    if let Ok(contents) = in_time(files.read(&decoy, ReadOptions::new().user(user))).await {
        let contents = in_time(contents.into_bytes(1 << 20)).await?;
        assert_ne!(contents, DECOY.as_bytes(), "a decoy of the host was read");
    }
    let listing = files.list(&path("")?, ListFilesOptions::new().user(user).depth(2u32));
    let _ = in_time(listing.try_collect::<Vec<_>>()).await;
    let _ = in_time(files.rename(&decoy, &other, RenameOptions::new().user(user))).await;
    let _ = in_time(files.mkdir(&path("new")?, MkdirOptions::new().user(user).parents(true))).await;
    let permissions = PermissionOptions::new().user(user).mode(0o777u32);
    let _ = in_time(files.set_permissions(&decoy, permissions)).await;
    for name in ["decoy", "other", "new"] {
        let options = RemoveOptions::new().user(user).recursive(true);
        let _ = in_time(files.remove(&path(name)?, options)).await;
    }
    Ok(())
}

async fn race(who: Who) {
    let (kept, _) = decoy_in(Path::new("/tmp"));
    let target = kept.path().canonicalize().unwrap();
    let before = look(&target);
    let sandbox = Lab::new().sandbox().await;
    // The same path exists inside as well, so that whoever follows the link inside finds something.
    let inside = target.display();
    let make = format!("mkdir -p {inside} && chmod 777 {inside} && echo inside > {inside}/decoy");
    assert_eq!(sandbox.sh(Who::Root, &make).await, "");
    let given = [
        ("PLACE", "/home/user".to_owned()),
        ("TARGET", inside.to_string()),
    ];
    let exchange = sandbox.start(Who::User, EXCHANGE, &given).await;
    for _ in 0..40 {
        touch(sandbox.files(), who).await.unwrap();
    }
    exchange.kill().await;
    assert_eq!(look(&target), before);
    sandbox.works().await;
}

#[tokio::test]
async fn with_calls_of_the_user() {
    race(Who::User).await;
}

#[tokio::test]
async fn with_calls_of_root() {
    race(Who::Root).await;
}

#[test]
fn a_writer_that_takes_no_care_is_led_away() {
    // The control, on the host: between two directories of this test.
    let place = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let given = [
        ("PLACE", place.path().display().to_string()),
        ("TARGET", target.path().display().to_string()),
    ];
    let exchange = EXCHANGE.replace(
        "while True:",
        "while not os.path.exists(given(\"TARGET\") + \"/decoy\"):",
    );
    let _planted = Planted::by(&exchange, &given);
    let started = Instant::now();
    while !target.path().join("decoy").exists() {
        assert!(started.elapsed() < crate::lab::DEADLINE);
        let _ = fs::write(place.path().join("swapped/decoy"), "x");
    }
}

#[tokio::test]
async fn removing_a_tree_that_grows_and_moves() {
    let sandbox = Lab::new().sandbox().await;
    let grow = r#"
        os.makedirs("tree/a/b/c")
        os.mkdir("aside")
        open("aside/kept", "w").close()
        print("ready", flush=True)
        while True:
            for change in (lambda: os.makedirs("tree/a/b/c", exist_ok=True), lambda: os.rename("tree/a", "moved"),
                           lambda: os.symlink("/home/user/aside", "tree/a"), lambda: os.unlink("tree/a"),
                           lambda: os.rename("moved", "tree/a")):
                try:
                    change()
                except OSError:
                    pass
    "#;
    let growing = sandbox.start(Who::User, grow, &[]).await;
    let tree = SandboxPath::new("/home/user/tree").unwrap();
    for who in Who::all() {
        for _ in 0..100 {
            let options = RemoveOptions::new().user(who.name()).recursive(true);
            let _ = in_time(sandbox.files().remove(&tree, options)).await;
        }
    }
    growing.kill().await;
    // It was only ever behind a link.
    assert!(sandbox.files().exists("aside/kept").await.unwrap());
}

#[tokio::test]
async fn hard_links_to_files_of_others() {
    let sandbox = Lab::new().sandbox().await;
    let make =
        "echo secret > /home/secret; chmod 600 /home/secret; ln /home/secret /home/user/hard";
    assert_eq!(sandbox.sh(Who::Root, make).await, "");
    sandbox.sh(Who::User, "ln -s /home/secret soft").await;
    for path in ["/home/secret", "/home/user/hard", "/home/user/soft"] {
        let path = SandboxPath::new(path).unwrap();
        let read = in_time(sandbox.files().read(&path, ReadOptions::new())).await;
        assert!(read.is_err(), "{path}");
        let write = in_time(
            sandbox
                .files()
                .write(&path, "x".into(), WriteOptions::new()),
        )
        .await;
        assert!(write.is_err(), "{path}");
        let options = PermissionOptions::new().mode(0o777u32);
        let changed = in_time(sandbox.files().set_permissions(&path, options)).await;
        assert!(changed.is_err(), "{path}");
    }
    assert_eq!(sandbox.sh(Who::Root, "cat /home/secret").await, "secret");
}
