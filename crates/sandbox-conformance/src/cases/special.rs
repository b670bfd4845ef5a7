//! Files that are no regular files: they are shown, and never waited for.

use crate::{
    case::{Case, path},
    failure::{Result, refused, same},
    process::sh,
    spec::cases,
};
use sandbox_core::{ErrorKind, FileKind, FilesExt, RemoveOptions, RenameOptions, StatOptions};

cases! { "special":
    a_fifo_has_no_contents [Shell],
    a_device_has_no_contents [Shell],
    a_link_to_a_device_has_no_contents [Shell],
    a_fifo_is_shown_renamed_and_removed [Shell],
}

async fn a_fifo_has_no_contents(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sh(&*sandbox, "mkfifo fifo").await?;
    let read = sandbox.files().read_bytes("fifo").await;
    refused(read, ErrorKind::InvalidArgument, "reading")?;
    let written = sandbox.files().write_bytes("fifo", "text").await;
    refused(written, ErrorKind::InvalidArgument, "writing")?;
    let listed = sandbox.files().list_all("fifo").await;
    refused(listed, ErrorKind::InvalidArgument, "listing")
}

async fn a_device_has_no_contents(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for device in ["/dev/null", "/dev/zero", "/dev/urandom"] {
        let read = sandbox.files().read_bytes(device).await;
        refused(
            read,
            ErrorKind::InvalidArgument,
            format_args!("reading {device}"),
        )?;
        let written = sandbox.files().write_bytes(device, "text").await;
        refused(
            written,
            ErrorKind::InvalidArgument,
            format_args!("writing {device}"),
        )?;
    }
    same(
        sh(&*sandbox, "test -c /dev/null && echo device").await?,
        "device",
        "/dev/null afterwards",
    )
}

async fn a_link_to_a_device_has_no_contents(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sh(
        &*sandbox,
        "mkfifo fifo; ln -s /dev/zero zero; ln -s fifo link",
    )
    .await?;
    for name in ["zero", "link"] {
        let read = sandbox.files().read_bytes(name).await;
        refused(
            read,
            ErrorKind::InvalidArgument,
            format_args!("reading {name}"),
        )?;
        let written = sandbox.files().write_bytes(name, "text").await;
        refused(
            written,
            ErrorKind::InvalidArgument,
            format_args!("writing {name}"),
        )?;
    }
    Ok(())
}

async fn a_fifo_is_shown_renamed_and_removed(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    sh(&*sandbox, "mkdir d; mkfifo d/fifo").await?;
    let listed = files.list_all("d").await?;
    same(
        listed.first().map(|info| info.kind),
        Some(FileKind::Other),
        "kind in a listing",
    )?;
    files
        .rename(&path("d/fifo")?, &path("d/moved")?, RenameOptions::new())
        .await?;
    let info = files.stat(&path("d/moved")?, StatOptions::new()).await?;
    same(info.kind, FileKind::Other, "kind by stat")?;
    files
        .remove(&path("d/moved")?, RemoveOptions::new())
        .await?;
    same(files.list_all("d").await?.len(), 0, "entries afterwards")
}
