//! Permission bits, owners, and whose rights a call has.

use crate::{
    case::{Case, path},
    failure::{Result, Stop, refused, same, same_bytes},
    process::sh,
    spec::cases,
};
use futures_util::TryStreamExt;
use sandbox_core::{
    Body, ErrorKind, Files, FilesExt, ListFilesOptions, MkdirOptions, PermissionOptions,
    ReadOptions, RemoveOptions, StatOptions, WriteOptions,
};

cases! { "permissions":
    a_new_file_has_the_mode_asked_for,
    a_write_keeps_the_mode,
    a_new_directory_has_the_mode_asked_for,
    bits_are_set,
    bits_beyond_the_last_are_invalid,
    permissions_of_what_is_missing_are_not_found,
    a_script_can_be_made_executable [Shell],
    new_files_belong_to_the_calls_user [Shell, Users],
    an_owner_is_set [Shell, Users],
    a_missing_owner_is_not_found [Users],
    a_call_has_its_users_rights [Shell, Users],
}

/// The bits, where the provider tells them.
async fn mode(files: &dyn Files, name: &str) -> Result<u32> {
    let info = files.stat(&path(name)?, StatOptions::new()).await?;
    info.mode
        .ok_or_else(|| Stop::Ignored("the provider tells no permission bits".into()))
}

async fn write(files: &dyn Files, name: &str, options: WriteOptions) -> Result {
    Ok(files
        .write(&path(name)?, Body::from("text"), options)
        .await?)
}

async fn a_new_file_has_the_mode_asked_for(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    write(files, "default", WriteOptions::new()).await?;
    same(mode(files, "default").await?, 0o644, "bits of a new file")?;
    for bits in [0o600u32, 0o755, 0o666, 0o777, 0o400] {
        let name = format!("file{bits:o}");
        write(files, &name, WriteOptions::new().mode(bits)).await?;
        same(
            mode(files, &name).await?,
            bits,
            format_args!("bits of {name}"),
        )?;
    }
    Ok(())
}

async fn a_write_keeps_the_mode(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    write(files, "file", WriteOptions::new().mode(0o755u32)).await?;
    write(files, "file", WriteOptions::new()).await?;
    same(
        mode(files, "file").await?,
        0o755,
        "bits after another write",
    )?;
    write(files, "file", WriteOptions::new().mode(0o600u32)).await?;
    same(
        mode(files, "file").await?,
        0o600,
        "bits after a write with other bits",
    )
}

async fn a_new_directory_has_the_mode_asked_for(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.mkdir(&path("default")?, MkdirOptions::new()).await?;
    same(
        mode(files, "default").await?,
        0o755,
        "bits of a new directory",
    )?;
    files
        .mkdir(&path("private")?, MkdirOptions::new().mode(0o700u32))
        .await?;
    same(
        mode(files, "private").await?,
        0o700,
        "bits of a private one",
    )?;
    files
        .mkdir(&path("open")?, MkdirOptions::new().mode(0o777u32))
        .await?;
    same(mode(files, "open").await?, 0o777, "bits of an open one")
}

async fn bits_are_set(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("file", "text").await?;
    files
        .mkdir(&path("directory")?, MkdirOptions::new())
        .await?;
    for name in ["file", "directory"] {
        for bits in [0o700u32, 0o751, 0o600, 0o777] {
            let options = PermissionOptions::new().mode(bits);
            files.set_permissions(&path(name)?, options).await?;
            same(
                mode(files, name).await?,
                bits,
                format_args!("bits of {name}"),
            )?;
        }
    }
    let options = PermissionOptions::new().mode(0o1777u32);
    files.set_permissions(&path("directory")?, options).await?;
    same(
        mode(files, "directory").await?,
        0o1777,
        "bits with the sticky one",
    )
}

async fn bits_beyond_the_last_are_invalid(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("file", "text").await?;
    for bits in [0o10_000u32, 0o100_644, u32::MAX] {
        let set = files
            .set_permissions(&path("file")?, PermissionOptions::new().mode(bits))
            .await;
        refused(
            set,
            ErrorKind::InvalidArgument,
            format_args!("setting bits {bits:o}"),
        )?;
        let written = files
            .write(&path("file")?, "new".into(), WriteOptions::new().mode(bits))
            .await;
        refused(
            written,
            ErrorKind::InvalidArgument,
            format_args!("writing with bits {bits:o}"),
        )?;
        let made = files
            .mkdir(&path("directory")?, MkdirOptions::new().mode(bits))
            .await;
        refused(
            made,
            ErrorKind::InvalidArgument,
            format_args!("a directory with bits {bits:o}"),
        )?;
    }
    same_bytes(files.read_bytes("file").await?, "text", "the file, still")
}

async fn permissions_of_what_is_missing_are_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let options = PermissionOptions::new().mode(0o600u32);
    let set = sandbox
        .files()
        .set_permissions(&path("missing")?, options)
        .await;
    refused(set, ErrorKind::NotFound, "bits of a missing file")
}

async fn a_script_can_be_made_executable(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let body = Body::from("#!/bin/sh\necho ran\n");
    sandbox
        .files()
        .write(&path("script")?, body, WriteOptions::new().mode(0o755u32))
        .await?;
    same(
        sh(&*sandbox, "./script").await?,
        "ran",
        "a file written with x",
    )?;
    sandbox
        .files()
        .write_bytes("other", "#!/bin/sh\necho other\n")
        .await?;
    let options = PermissionOptions::new().mode(0o700u32);
    sandbox
        .files()
        .set_permissions(&path("other")?, options)
        .await?;
    same(sh(&*sandbox, "./other").await?, "other", "a file given x")
}

async fn new_files_belong_to_the_calls_user(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("/tmp/mine/file", "text").await?;
    let found = sh(
        &*sandbox,
        "test \"$(stat -c %u /tmp/mine /tmp/mine/file | uniq)\" = $(id -u); echo $?",
    )
    .await?;
    same(found, "0", "whether a file belongs to the default user")?;
    write(files, "/tmp/roots/file", WriteOptions::new().user("root")).await?;
    let found = sh(&*sandbox, "stat -c %u:%g /tmp/roots /tmp/roots/file").await?;
    same(
        found,
        "0:0\n0:0",
        "owner of a file written as root, and of its directory",
    )?;
    let info = files
        .stat(&path("/tmp/roots/file")?, StatOptions::new())
        .await?;
    same(
        info.owner.as_deref().unwrap_or("root"),
        "root",
        "owner by stat",
    )?;
    write(files, "/tmp/mine/file", WriteOptions::new().user("root")).await?;
    let found = sh(
        &*sandbox,
        "test $(stat -c %u /tmp/mine/file) = $(id -u); echo $?",
    )
    .await?;
    same(
        found,
        "0",
        "whether a file that root writes again changes its owner",
    )
}

async fn an_owner_is_set(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("/tmp/file", "text").await?;
    for (owner, expected) in [
        ("root", "0"),
        ("12345", "12345"),
        ("0:23456", "0:23456"),
        ("root:root", "0:0"),
    ] {
        let options = PermissionOptions::new().user("root").owner(owner);
        files.set_permissions(&path("/tmp/file")?, options).await?;
        let found = sh(&*sandbox, "stat -c %u:%g /tmp/file").await?;
        let same_owner = found == expected || found.split(':').next() == Some(expected);
        crate::failure::ensure(same_owner, format_args!("{owner} gave {found}"))?;
    }
    Ok(())
}

async fn a_missing_owner_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("/tmp/file", "text").await?;
    let options = PermissionOptions::new()
        .user("root")
        .owner("conformance-nobody");
    let set = sandbox
        .files()
        .set_permissions(&path("/tmp/file")?, options)
        .await;
    refused(set, ErrorKind::NotFound, "a missing owner")
}

async fn a_call_has_its_users_rights(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    if sh(&*sandbox, "id -u").await? == "0" {
        return Err(Stop::Ignored("the default user is root".into()));
    }
    let root = "root";
    files
        .mkdir(
            &path("/tmp/roots")?,
            MkdirOptions::new().user(root).mode(0o700u32),
        )
        .await?;
    write(files, "/tmp/roots/file", WriteOptions::new().user(root)).await?;
    write(
        files,
        "/tmp/secret",
        WriteOptions::new().user(root).mode(0o600u32),
    )
    .await?;
    const DENIED: ErrorKind = ErrorKind::PermissionDenied;
    refused(files.read_bytes("/tmp/secret").await, DENIED, "reading")?;
    refused(
        files.read_bytes("/tmp/roots/file").await,
        DENIED,
        "reading below a closed directory",
    )?;
    refused(
        files.write_bytes("/tmp/secret", "x").await,
        DENIED,
        "writing",
    )?;
    refused(
        files.write_bytes("/tmp/roots/new", "x").await,
        DENIED,
        "making a file",
    )?;
    let listed: sandbox_core::Result<Vec<_>> = files
        .list(&path("/tmp/roots")?, ListFilesOptions::new())
        .try_collect()
        .await;
    refused(listed, DENIED, "listing")?;
    let removed = files
        .remove(&path("/tmp/roots/file")?, RemoveOptions::new())
        .await;
    refused(removed, DENIED, "removing")?;
    let set = files
        .set_permissions(
            &path("/tmp/secret")?,
            PermissionOptions::new().mode(0o666u32),
        )
        .await;
    refused(set, DENIED, "setting bits")?;
    let read = files
        .read(&path("/tmp/secret")?, ReadOptions::new().user(root))
        .await?;
    same_bytes(read.into_bytes(100).await?, "text", "as root")
}
