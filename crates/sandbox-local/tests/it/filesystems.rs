//! Where the state directory lies on a file system whose files can share their blocks, copies do.

use crate::support::State;
use sandbox_core::{Limits, prelude::*};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command as Program,
    sync::Arc,
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A file system in a file, mounted for as long as the test runs.
struct Mounted {
    _directory: TempDir,
    place: PathBuf,
}

impl Mounted {
    /// `make` is the program that makes it, with its options.
    fn new(make: &[&str]) -> Self {
        let directory = TempDir::with_prefix("sandbox-it-").unwrap();
        let (image, place) = (directory.path().join("image"), directory.path().join("fs"));
        File::create(&image).unwrap().set_len(2048 * MIB).unwrap();
        std::fs::create_dir(&place).unwrap();
        run(Program::new(make[0]).args(&make[1..]).arg(&image));
        run(Program::new("mount")
            .args(["-o", "loop"])
            .args([&image, &place]));
        Self {
            _directory: directory,
            place,
        }
    }

    /// Bytes in use.
    fn used(&self) -> u64 {
        let directory = File::open(&self.place).unwrap();
        rustix::fs::syncfs(&directory).unwrap();
        let stat = rustix::fs::fstatvfs(&directory).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Also after a panic, when something may still be open there.
        let _ = Program::new("umount")
            .arg("--lazy")
            .arg(&self.place)
            .status();
    }
}

fn run(program: &mut Program) {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{program:?}: {output:?}");
}

async fn sh(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let output = sandbox.exec(Command::shell(script)).await.unwrap();
    output.check().unwrap().stdout_text().trim_end().to_owned()
}

async fn forks_share_blocks(state: &Path, used: impl Fn() -> u64) {
    let state = State::on(state);
    let (provider, parent) = state.sandbox().await;
    // Somebody lives there, so that the files must be copied.
    let busy = parent
        .spawn(Command::shell("exec sleep 600"))
        .await
        .unwrap();
    sh(&parent, "head -c 200000000 /dev/urandom > data && sync").await;
    let before = used();
    let forks = provider
        .fork(parent.id(), 2, CreateOptions::new())
        .await
        .unwrap();
    assert!(used() < before + 50 * MIB, "{before} {}", used());
    let sum = sh(&parent, "sha256sum data").await;
    assert_eq!(sh(&forks[0], "sha256sum data").await, sum);
    sh(&forks[0], "echo more >> data").await;
    assert_eq!(sh(&forks[1], "sha256sum data").await, sum);
    assert_eq!(sh(&parent, "sha256sum data").await, sum);
    drop(busy);
}

async fn disks_are_limited(state: &Path) {
    let state = State::on(state);
    let provider = state.provider();
    let limits = Limits::new().disk(64 * MIB);
    let sandbox = provider
        .create(CreateOptions::new().limits(limits))
        .await
        .unwrap();
    let full = sandbox
        .exec(Command::shell("head -c 100000000 /dev/urandom > data"))
        .await
        .unwrap();
    assert!(full.stderr_text().contains("No space left"), "{full:?}");
    assert!(sandbox.kill().await.unwrap());
}

#[tokio::test]
async fn on_btrfs() {
    let mounted = Mounted::new(&["mkfs.btrfs", "--quiet"]);
    forks_share_blocks(&mounted.place, || mounted.used()).await;
    disks_are_limited(&mounted.place).await;
}

#[tokio::test]
async fn on_xfs() {
    let mounted = Mounted::new(&["mkfs.xfs", "-q"]);
    forks_share_blocks(&mounted.place, || mounted.used()).await;
    disks_are_limited(&mounted.place).await;
}
