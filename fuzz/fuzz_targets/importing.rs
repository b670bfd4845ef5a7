//! What imports are made of, from the local provider's own source, which is no library.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process,
};

use import::{
    entry::Sink,
    scan::{Bounds, Scan, Totals},
    tree::Tree,
};
use sandbox_core::Result;

#[path = "../../crates/sandbox-local/src/linux/template/import"]
#[allow(
    dead_code,
    unused_imports,
    reason = "only reading and writing are fuzzed"
)]
pub(crate) mod import {
    pub(crate) mod archive;
    pub(crate) mod directory;
    pub(crate) mod entry;
    pub(crate) mod image;
    pub(crate) mod layout;
    pub(crate) mod scan;
    pub(crate) mod source;
    pub(crate) mod tree;
}

/// As much as an import may be here.
pub(crate) const BOUNDS: Bounds = Bounds {
    bytes: 1 << 20,
    entries: 200,
};

/// A directory for one input: `place/root` is what is written, `place` has nothing else but a file that must stay.
pub(crate) fn place() -> PathBuf {
    let place = env::temp_dir().join(format!("sandbox-fuzz-import-{}", process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.join("root")).expect("make a directory for temporary files");
    fs::write(place.join("canary"), "here").expect("write a file");
    place
}

/// Reads layers for the first time, then writes those that make sense; nothing of it may get out of the tree.
pub(crate) fn read_twice(layers: usize, read: &dyn Fn(usize, &mut dyn Sink) -> Result<()>) {
    let mut totals = Totals::new(BOUNDS);
    let mut removed = Vec::new();
    for layer in 0..layers {
        let mut scan = Scan::new(&mut totals);
        if read(layer, &mut scan).is_err() {
            return;
        }
        removed.push(scan.finish());
    }
    let place = place();
    let mut tree = Tree::new(&place.join("root"), None).expect("open an empty directory");
    for (layer, removed) in removed.iter().enumerate() {
        if tree
            .remove(removed)
            .and_then(|()| read(layer, &mut tree))
            .is_err()
        {
            break;
        }
    }
    check(&place);
}

fn check(place: &Path) {
    let names = fs::read_dir(place).expect("read a directory");
    let names: BTreeSet<_> = names
        .map(|entry| entry.expect("read").file_name())
        .collect();
    assert_eq!(names, ["canary".into(), "root".into()].into());
    assert_eq!(
        fs::read(place.join("canary")).expect("read a file"),
        b"here"
    );
}
