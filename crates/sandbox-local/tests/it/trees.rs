//! Makes small trees of this machine's programs, from which templates are imported.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// Programs of the small tree.
const PROGRAMS: [&str; 8] = ["cat", "env", "id", "ls", "rm", "sh", "sleep", "stat"];

/// Makes a tree at `root` in which a shell runs, and little else.
pub(crate) fn small_tree(root: &Path) {
    for path in ["usr/bin", "usr/lib", "etc", "tmp"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    set_mode(&root.join("tmp"), 0o1777);
    symlink("usr/bin", root.join("bin")).unwrap();
    for program in PROGRAMS {
        let found = Path::new("/bin").join(program).canonicalize().unwrap();
        fs::copy(&found, root.join("usr/bin").join(program)).unwrap();
        for library in libraries(&found) {
            let copy = root.join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(library, copy).unwrap();
        }
    }
    fs::write(root.join("etc/issue"), "small\n").unwrap();
}

/// The libraries that a program loads, by the names under which it looks for them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

/// Gives a file these permissions.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
