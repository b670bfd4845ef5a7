//! Symbolic links lead where the sandbox's own programs would go, and no farther.

use crate::{
    case::{Case, path},
    failure::{Result, Stop, ensure, refused, same, same_bytes},
    process::sh,
    spec::cases,
};
use futures_util::TryStreamExt;
use sandbox_core::{
    ErrorKind, FileKind, Files, FilesExt, GlobOptions, ListFilesOptions, MkdirOptions,
    RemoveOptions, RenameOptions, SandboxPath, StatOptions, SymlinkOptions,
};

cases! { "links":
    a_link_is_followed_to_its_file [Shell],
    a_link_of_ours_is_a_link_to_programs [Shell, Symlinks],
    stat_tells_link_and_target [Symlinks],
    a_dangling_link_is_there_and_is_not_found [Symlinks],
    a_loop_is_an_error [Symlinks],
    list_and_glob_do_not_follow_links [Symlinks],
    remove_takes_the_link [Symlinks],
    rename_takes_the_link [Symlinks],
    symlink_replaces_nothing [Symlinks],
    symlink_makes_no_directories [Symlinks],
    a_link_belongs_to_the_calls_user [Symlinks, Users],
    a_link_out_of_the_tree_stays_in_the_sandbox [Shell],
    a_link_to_the_callers_files_leads_nowhere [Shell],
}

async fn a_link_is_followed_to_its_file(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    sh(
        &*sandbox,
        "mkdir d; echo text > d/file; ln -s d/file link; ln -s d dir; ln -s \"$HOME/d/file\" far",
    )
    .await?;
    for name in ["link", "dir/file", "far"] {
        same_bytes(files.read_bytes(name).await?, "text\n", name)?;
    }
    files.write_bytes("link", "new").await?;
    same(
        sh(&*sandbox, "cat d/file; test -L link && echo link").await?,
        "newlink",
        "written through a link",
    )?;
    same(
        files.list_all("dir").await?.len(),
        1,
        "entries of a linked directory",
    )
}

/// Makes a link.
async fn link(files: &dyn Files, target: &str, name: &str) -> sandbox_core::Result<()> {
    let (name, target) = (SandboxPath::new(name)?, SandboxPath::new(target)?);
    files.symlink(&name, &target, SymlinkOptions::new()).await
}

async fn a_link_of_ours_is_a_link_to_programs(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("d/file", "text").await?;
    link(files, "d/file", "link").await?;
    link(files, "-n o\nname", "d/-odd").await?;
    let seen = sh(&*sandbox, "cat link; readlink link; readlink d/-odd").await?;
    same(seen, "textd/file\n-n o\nname", "what programs see")
}

async fn symlink_replaces_nothing(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("d/file", "kept").await?;
    link(files, "nowhere", "dangling").await?;
    link(files, "d", "dir").await?;
    for name in ["d/file", "d", "dangling", "dir"] {
        let made = link(files, "else", name).await;
        refused(made, ErrorKind::AlreadyExists, name)?;
    }
    same_bytes(files.read_bytes("dir/file").await?, "kept", "the file")
}

async fn symlink_makes_no_directories(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let made = link(files, "x", "no/link").await;
    refused(made, ErrorKind::NotFound, "below what is missing")?;
    files.write_bytes("file", "").await?;
    let made = link(files, "x", "file/link").await;
    refused(made, ErrorKind::InvalidArgument, "below a file")
}

async fn a_link_belongs_to_the_calls_user(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let (link, target) = (path("/root/link")?, path("x")?);
    let made = files.symlink(&link, &target, SymlinkOptions::new()).await;
    refused(made, ErrorKind::PermissionDenied, "in root's home")?;
    let options = SymlinkOptions::new().user("root");
    files.symlink(&link, &target, options).await?;
    let options = StatOptions::new().user("root").follow(false);
    let info = files.stat(&link, options).await?;
    same(info.owner.as_deref(), Some("root"), "its owner")
}

async fn stat_tells_link_and_target(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("file", "text\n").await?;
    link(sandbox.files(), "./file", "link").await?;
    let link = path("link")?;
    let info = sandbox.files().stat(&link, StatOptions::new()).await?;
    same(
        (info.kind, info.size),
        (FileKind::File, 5),
        "what it points to",
    )?;
    let info = sandbox
        .files()
        .stat(&link, StatOptions::new().follow(true))
        .await?;
    same(info.kind, FileKind::File, "what it points to, asked for")?;
    let info = sandbox
        .files()
        .stat(&link, StatOptions::new().follow(false))
        .await?;
    same(
        (info.kind, info.size),
        (FileKind::Symlink, 6),
        "the link itself",
    )?;
    same(info.target.as_deref(), Some(&b"./file"[..]), "its target")?;
    let listed = sandbox.files().list_all(".").await?;
    let found = listed
        .iter()
        .find(|info| info.path.file_name() == Some(b"link"));
    same(
        found.map(|info| info.kind),
        Some(FileKind::Symlink),
        "its kind in a listing",
    )
}

async fn a_dangling_link_is_there_and_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    link(files, "nowhere", "link").await?;
    refused(
        files.read_bytes("link").await,
        ErrorKind::NotFound,
        "reading",
    )?;
    let stat = files.stat(&path("link")?, StatOptions::new()).await;
    refused(stat, ErrorKind::NotFound, "stat")?;
    same(files.exists("link").await?, true, "whether the link exists")
}

async fn a_loop_is_an_error(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for (target, name) in [("b", "a"), ("a", "b"), (".", "here")] {
        link(sandbox.files(), target, name).await?;
    }
    let read = sandbox.files().read_bytes("a").await;
    refused(read, ErrorKind::InvalidArgument, "reading a loop")?;
    let written = sandbox.files().write_bytes("b", "text").await;
    refused(written, ErrorKind::InvalidArgument, "writing to a loop")?;
    let options = ListFilesOptions::new().depth(1000u32);
    let listed: Vec<_> = sandbox
        .files()
        .list(&path(".")?, options)
        .try_collect()
        .await?;
    ensure(
        listed.len() < 100,
        format_args!("a link to itself gave {} entries", listed.len()),
    )
}

async fn list_and_glob_do_not_follow_links(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("real/sub/file", "").await?;
    files.mkdir(&path("tree")?, MkdirOptions::new()).await?;
    link(files, "../real/sub", "tree/link").await?;
    let options = ListFilesOptions::new().depth(9u32);
    let listed: Vec<_> = sandbox
        .files()
        .list(&path("tree")?, options)
        .try_collect()
        .await?;
    let names: Vec<_> = listed.iter().map(|info| info.path.to_string()).collect();
    same(names, ["tree/link"], "listing")?;
    let found: Vec<_> = sandbox
        .files()
        .glob(&path("tree")?, "**/file", GlobOptions::new())
        .try_collect()
        .await?;
    same(found, [], "matches below a link")
}

async fn remove_takes_the_link(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("real/file", "kept\n").await?;
    files.mkdir(&path("tree")?, MkdirOptions::new()).await?;
    for (target, name) in [
        ("real", "dir"),
        ("real/file", "link"),
        ("nowhere", "dangling"),
        ("../real", "tree/dir"),
    ] {
        link(files, target, name).await?;
    }
    for name in ["link", "dangling"] {
        files.remove(&path(name)?, RemoveOptions::new()).await?;
        same(
            files.exists(name).await?,
            false,
            format_args!("whether {name} is there"),
        )?;
    }
    for name in ["dir", "tree"] {
        files
            .remove(&path(name)?, RemoveOptions::new().recursive(true))
            .await?;
        same(
            files.exists(name).await?,
            false,
            format_args!("whether {name} is there"),
        )?;
    }
    same_bytes(
        files.read_bytes("real/file").await?,
        "kept\n",
        "what they pointed to",
    )
}

async fn rename_takes_the_link(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("file", "text").await?;
    link(files, "file", "link").await?;
    files
        .rename(&path("link")?, &path("moved")?, RenameOptions::new())
        .await?;
    let moved = path("moved")?;
    let info = files.stat(&moved, StatOptions::new().follow(false)).await?;
    same(info.target.as_deref(), Some(&b"file"[..]), "where it leads")?;
    same(files.exists("link").await?, false, "whether it is there")?;
    same_bytes(files.read_bytes("file").await?, "text", "the file")
}

async fn a_link_out_of_the_tree_stays_in_the_sandbox(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let up = "../".repeat(40);
    sh(
        &*sandbox,
        &format!("ln -s /etc/passwd one; ln -s {up}etc/passwd two; ln -s / root; ln -s {up} up"),
    )
    .await?;
    let inside = sh(&*sandbox, "cat /etc/passwd").await?;
    for name in [
        "one",
        "two",
        "root/etc/passwd",
        "up/etc/passwd",
        "root/../../etc/passwd",
    ] {
        let read = sandbox.files().read_text(name).await?;
        same(
            read.trim_end(),
            inside.as_str(),
            format_args!("/etc/passwd through {name}"),
        )?;
    }
    Ok(())
}

async fn a_link_to_the_callers_files_leads_nowhere(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let decoy = std::env::temp_dir().join(case.label());
    std::fs::write(&decoy, "the caller's").map_err(Stop::failed)?;
    let outcome = reach(&*sandbox, &decoy.to_string_lossy()).await;
    let kept = std::fs::read_to_string(&decoy);
    std::fs::remove_file(&decoy).map_err(Stop::failed)?;
    outcome?;
    same(
        kept.map_err(Stop::failed)?,
        "the caller's",
        "the caller's file",
    )
}

async fn reach(sandbox: &dyn sandbox_core::Sandbox, decoy: &str) -> Result {
    sh(sandbox, &format!("ln -s '{decoy}' link")).await?;
    for name in ["link", decoy] {
        let read = sandbox.files().read_bytes(name).await;
        refused(read, ErrorKind::NotFound, format_args!("reading {name}"))?;
    }
    // What it may do is write a file of that name in its own tree.
    if let Err(error) = sandbox.files().write_bytes("link", "written").await {
        let fine = [ErrorKind::NotFound, ErrorKind::PermissionDenied].contains(&error.kind());
        ensure(fine, format_args!("writing through the link: {error}"))?;
    }
    Ok(())
}
