//! The guest's disk, and the small file system in memory that its kernel starts with.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    debian::{Kernel, empty},
    programs::Programs,
};
use crate::context::Context;

/// Size of the disk; what is not used takes no space.
const SIZE: &str = "8G";

/// What the guest runs.
const SCRIPTS: [(&str, &str); 3] = [
    ("init.sh", include_str!("guest/init.sh")),
    ("checks.sh", include_str!("guest/checks.sh")),
    ("container.sh", include_str!("guest/container.sh")),
];

const BOOT: &str = include_str!("guest/boot.sh");

/// Makes a disk of the Debian in `base` and the programs, which lie where they do on this machine.
pub(super) fn make(
    context: &Context,
    directory: &Path,
    base: &Path,
    programs: &Programs,
) -> Result<PathBuf> {
    let tree = directory.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    context
        .command("cp")
        .args(["--archive", "--link"])
        .args([base, &tree])
        .run()?;
    for path in programs.paths() {
        let copy = below(&tree, path)?;
        fs::create_dir_all(copy.parent().context("a program lies in no directory")?)?;
        if !copy.exists() {
            fs::copy(path, copy)?;
        }
    }
    // Where Cargo tells tests to put temporary files.
    let temporary = context.metadata()?.target_directory.join("tmp");
    fs::create_dir_all(below(&tree, &temporary)?)?;
    let scripts = tree.join("vm");
    fs::create_dir(&scripts)?;
    for (name, text) in SCRIPTS {
        script(&scripts.join(name), text)?;
    }
    script(&scripts.join("programs.sh"), &programs.names()?)?;
    let disk = directory.join("disk.img");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    let command = context.command("mke2fs").args(["-q", "-t", "ext4", "-d"]);
    command.args([&tree, &disk]).arg(SIZE).run()?;
    fs::remove_dir_all(tree)?;
    Ok(disk)
}

/// Makes the file system in memory: the modules without which the disk could not be read, and a shell.
pub(super) fn make_initial(
    context: &Context,
    directory: &Path,
    kernel: &Kernel,
) -> Result<PathBuf> {
    let tree = empty(directory.join("initial"))?;
    for folder in ["bin", "dev", "root"] {
        fs::create_dir(tree.join(folder))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    script(&tree.join("init"), BOOT)?;
    for name in modules() {
        let Some(file) = kernel.module(context, name)? else {
            continue;
        };
        let copy = tree.join(format!("{name}.ko"));
        if file.extension().is_some_and(|extension| extension == "xz") {
            let file = file.to_string_lossy().into_owned();
            let unpack = format!("xz --decompress --stdout '{file}' >'{}'", copy.display());
            context.command("sh").args(["-c", &unpack]).run()?;
        } else {
            fs::copy(file, copy)?;
        }
    }
    let archive = directory.join("initial.cpio");
    let pack = format!(
        "find . | cpio --quiet --create --format=newc >'{}'",
        archive.display()
    );
    context
        .command("sh")
        .within(&tree)
        .args(["-c", &pack])
        .run()?;
    fs::remove_dir_all(tree)?;
    Ok(archive)
}

/// The modules that the boot script loads.
fn modules() -> impl Iterator<Item = &'static str> {
    let list = BOOT
        .split_once("for module in ")
        .map_or("", |(_, rest)| rest);
    let list = list.split_once(';').map_or("", |(list, _)| list);
    list.split_whitespace().filter(|word| *word != "\\")
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// An absolute path of this machine, in the tree.
fn below(tree: &Path, path: &Path) -> Result<PathBuf> {
    Ok(tree.join(path.strip_prefix("/").context("the path is not absolute")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_script_names_its_modules() {
        let modules: Vec<_> = modules().collect();
        assert!(modules.contains(&"virtio_blk") && modules.contains(&"overlay"));
        assert_eq!(modules.last(), Some(&"nft_tproxy"));
        assert!(modules.iter().all(|name| !name.contains(['\\', '$', '\n'])));
    }
}
