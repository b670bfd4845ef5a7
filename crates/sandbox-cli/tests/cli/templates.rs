//! `sandbox templates`: from a directory to a sandbox and away again.

use crate::support::Home;
use serde_json::Value;
use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// A tree in which `cat` runs and nothing else.
fn tree(root: &Path) {
    let output = Command::new("ldd").arg("/bin/cat").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/cat"]) {
        let copy = root.join(&file[1..]);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
    fs::write(root.join("hello"), "hello\n").unwrap();
}

#[test]
fn a_tree_is_imported_used_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("state"));
    let root = directory.path().join("tree");
    tree(&root);
    let root = root.to_str().unwrap();
    let json = |args: &[&str]| -> Value {
        let words = [&["templates"], args, &["--json"]].concat();
        serde_json::from_str(&home.sandbox(&words).ok()).unwrap()
    };
    let imported = json(&["import", root, "--name", "tiny"]);
    let id = imported["id"].as_str().unwrap();
    assert_eq!(imported["names"], serde_json::json!(["tiny"]));
    assert_eq!(
        home.sandbox(&["templates", "import", root, "--name", "also"])
            .ok()
            .trim(),
        id
    );
    let sandbox = home.sandbox(&["create", "--template", "tiny"]).ok();
    let cat = ["exec", sandbox.trim(), "/bin/cat", "/hello"];
    assert_eq!(home.sandbox(&cat).ok(), "hello\n");
    let listed = home.sandbox(&["templates"]).ok();
    assert!(
        listed.contains("host") && listed.contains("also, tiny"),
        "{listed}"
    );
    assert_eq!(json(&["ls"]), json(&[]));
    assert_eq!(json(&["inspect", &id[..20]])["in_use"], true);
    let shown = home.sandbox(&["templates", "inspect", "tiny"]).ok();
    assert!(
        shown.contains("a directory") && shown.contains(id),
        "{shown}"
    );
    home.sandbox(&["templates", "rm", id])
        .assert_refused("in use");
    home.sandbox(&["kill", sandbox.trim()]).ok();
    let removed = json(&["rm", "tiny", id]);
    assert_eq!(
        (&removed[0]["kept"], &removed[1]["kept"]),
        (&true.into(), &false.into())
    );
    home.sandbox(&["templates", "inspect", "tiny"])
        .assert_refused("no such template");
    home.sandbox(&["create", "--template", "tiny"])
        .assert_refused("no such template");
}

#[test]
fn what_cannot_be_imported_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("state"));
    let import = |path: &Path, more: &[&str]| {
        home.sandbox(&[&["templates", "import", path.to_str().unwrap()], more].concat())
    };
    import(&directory.path().join("none"), &[]).assert_refused("No such file");
    let file = directory.path().join("file");
    fs::write(&file, "no archive".repeat(100)).unwrap();
    import(&file, &[]).assert_refused("no archive of a known kind");
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("big"), vec![1; 5000]).unwrap();
    let large = import(&tree, &["--max-size", "4K"]);
    large.assert_refused("more than 4096 bytes");
    large.assert_refused("--max-entries let more be imported");
    import(&tree, &["--max-entries", "1"]).assert_refused("more than 1 entries");
    import(&tree, &["--name", "host"]).assert_refused("cannot have this name");
    import(&tree, &["--ref", "x"]).assert_refused("only an OCI layout");
}

#[test]
fn a_killed_import_leaves_nothing_after_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("state"));
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    // Zeros that take no space here, and long to write.
    let big = File::create(tree.join("big")).unwrap();
    big.set_len(512 << 20).unwrap();
    let templates = home.state().join("templates");
    let left = || {
        let entries = fs::read_dir(&templates).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".import-")).count()
    };
    for clean in [&["ls"][..], &["prune"]] {
        let words = ["templates", "import", tree.to_str().unwrap()];
        let mut import = home.command(&words).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(100);
        while left() == 0 {
            assert!(import.try_wait().unwrap().is_none(), "it ended too soon");
            assert!(Instant::now() < deadline, "it does not begin to write");
            std::thread::yield_now();
        }
        import.kill().unwrap();
        import.wait().unwrap();
        assert_eq!(left(), 1);
        let cleaned = home.sandbox(clean).ok();
        assert_eq!(
            cleaned.contains(".import-"),
            clean == ["prune"],
            "{cleaned}"
        );
        assert_eq!(left(), 0);
    }
}
