//! `cargo xtask vm`: the provider on kernels of Debian's with cgroup version 2 and its controllers, which many a machine
//! that builds this does not have.
//!
//! Boots an emulated machine, without hardware virtualisation and without a network, on a disk made of a fresh Debian
//! and of the workspace's tests. All that is made lies below the target directory.

mod debian;
mod disk;
mod machine;
mod programs;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{context::Context, prerequisites, report::Outcome};

/// Debian packages that this needs.
const TOOLS: [&str; 6] = [
    "busybox-static",
    "cpio",
    "debootstrap",
    "e2fsprogs",
    "qemu-system-x86",
    "xz-utils",
];

/// Options of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Boots the kernel of Debian's backports instead of the release's own.
    #[arg(long)]
    backports: bool,
    /// Ends the guest after so many minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

/// Boots the guest and runs its checks.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let why = "the guest is a Linux on x86-64, for which the tests would have to be built";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    let Some(codename) = debian::codename() else {
        return Ok(Outcome::Skipped("needs a Debian system".to_owned()));
    };
    if !prerequisites::is_root(context) {
        bail!("run it as root: the guest's disk holds files of many users");
    }
    prerequisites::install(context, &TOOLS)?;
    let directory = context.metadata()?.target_directory.join("vm");
    std::fs::create_dir_all(&directory)?;
    let release = debian::Release::new(context, codename)?;
    let kernel = release.kernel(context, &directory, args.backports)?;
    let base = release.base(context, &directory)?;
    let programs = programs::build(context)?;
    let disk = disk::make(context, &directory, &base, &programs)?;
    let initial = disk::make_initial(context, &directory, &kernel)?;
    let parts = machine::Parts {
        kernel: &kernel.image()?,
        initial: &initial,
        disk: &disk,
        console: &directory.join("console.log"),
    };
    let within = Duration::from_secs(60 * args.minutes);
    let count = machine::run(context, &parts, within)?;
    std::fs::remove_file(disk)?;
    Ok(Outcome::PassedOn(format!(
        "{count} checks on Linux {}",
        kernel.version()?
    )))
}
