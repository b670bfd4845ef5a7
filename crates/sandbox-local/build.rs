//! Builds the helper (`sandbox-agent`) as a static program, to be carried inside the library.
//!
//! The helper is built by a second run of cargo on a copy of its source: the library's own profile and flags do not fit
//! (it must be static and small), and the copy makes it work from a packaged crate too, whose directory is not ours
//! to write to. Only `libc` is needed, which the library depends on as well, so no network is needed either.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}/src", sandbox_agent::SOURCE);
    let out = PathBuf::from(variable("OUT_DIR"));
    let embedded = out.join("agent.bin");
    if variable("CARGO_CFG_TARGET_OS") != "linux" {
        // The library answers `Unsupported` there and never looks at it.
        fs::write(&embedded, b"").expect("write an empty helper");
        return;
    }
    let package = out.join("agent");
    lay_out(Path::new(sandbox_agent::SOURCE), &package).expect("copy the helper's source");
    build(&package);
    let built = package
        .join("target")
        .join(variable("TARGET"))
        .join("release/sandbox-agent");
    fs::copy(&built, &embedded).unwrap_or_else(|error| panic!("copy {}: {error}", built.display()));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo did not set {name}"))
}

/// Copies the source beside a manifest of its own, outside any workspace.
fn lay_out(source: &Path, package: &Path) -> io::Result<()> {
    let copy = package.join("src");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_tree(&source.join("src"), &copy)?;
    fs::write(
        package.join("Cargo.toml"),
        r#"[package]
name = "sandbox-agent"
version = "0.0.0"
edition = "2024"

[workspace]

[features]
weaken = []

[dependencies]
libc = "0.2"

[profile.release]
opt-level = 2
lto = true
codegen-units = 1
panic = "abort"
strip = true
"#,
    )
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn build(package: &Path) {
    let attempt = |offline: bool| {
        let mut cargo = Command::new(variable("CARGO"));
        cargo.current_dir(package).args([
            "build",
            "--release",
            "--quiet",
            "--target",
            &variable("TARGET"),
        ]);
        cargo.arg("--target-dir").arg(package.join("target"));
        if offline {
            cargo.arg("--offline");
        }
        if env::var_os("CARGO_FEATURE_WEAKEN").is_some() {
            cargo.args(["--features", "weaken"]);
        }
        // The outer run's wrappers and flags are not for the helper.
        for name in [
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
        ] {
            cargo.env_remove(name);
        }
        cargo.env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        );
        cargo
            .status()
            .unwrap_or_else(|error| panic!("start cargo for the helper: {error}"))
            .success()
    };
    // What the helper needs has been fetched for the library already; the registry is only asked if that is not so.
    assert!(
        attempt(true) || attempt(false),
        "the static helper could not be built: a static C library is needed (Debian: libc6-dev, Fedora: glibc-static)"
    );
}
