//! Odd names: whatever Linux takes as a name is a name.

use crate::{
    case::{Case, path},
    failure::{Result, refused, refused_as, same, same_bytes},
    process::sh,
    spec::cases,
};
use futures_util::TryStreamExt;
use sandbox_core::{
    Command, ErrorKind, FilesExt, ListFilesOptions, MkdirOptions, RemoveOptions, RenameOptions,
    SandboxExt, StatOptions, WriteOptions,
};

cases! { "names":
    odd_names_are_names,
    odd_names_are_the_same_for_commands [Shell],
    names_that_are_not_utf8_work_or_are_invalid,
    a_name_may_have_255_bytes,
    dots_are_resolved,
    dots_lead_no_higher_than_the_root,
    case_and_composition_matter,
    a_relative_path_starts_at_the_home_of_the_calls_user [Shell, Users],
}

const ODD: &[&str] = &[
    " ",
    " lead",
    "trail ",
    "a b",
    "new\nline",
    "\n",
    "tab\t",
    "-rf",
    "--",
    "-",
    "'",
    "\"",
    "`id`",
    "$HOME",
    "$(id)",
    "*",
    "?",
    "[a]",
    "{a,b}",
    "\\",
    "\\n",
    "a\\b",
    "#",
    "~",
    "!",
    "&",
    ";",
    "|",
    "<",
    ">",
    "%41",
    "%00",
    ":",
    "=",
    "...",
    ".hidden",
    "ü漢🦀",
    "\u{7f}",
    "\u{1b}[31m",
    "e\u{301}",
];

async fn a_relative_path_starts_at_the_home_of_the_calls_user(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let make = "mkdir -p /srv/home && chown 4321:4321 /srv/home && \
                echo 'someone:x:4321:4321::/srv/home:/bin/sh' >> /etc/passwd";
    let made = sandbox.exec(Command::shell(make).user("root")).await?;
    made.check()?;
    for user in ["root", "someone", "4321"] {
        let options = WriteOptions::new().user(user);
        files
            .write(&path("sub/note")?, user.into(), options)
            .await?;
        let cat = Command::shell("cat ~/sub/note; cat sub/note; rm -r sub");
        let output = sandbox.exec(cat.user(user)).await?;
        let told = output.stdout_text();
        same(told, user.repeat(2), format_args!("a note of {user}"))?;
    }
    Ok(())
}

async fn odd_names_are_names(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let base = path("odd")?;
    files.mkdir(&base, MkdirOptions::new()).await?;
    for name in ODD {
        let file = base.join(name)?;
        files
            .write(&file, (*name).into(), Default::default())
            .await?;
        same_bytes(
            files.read_bytes(&file).await?,
            name,
            format_args!("contents of {name:?}"),
        )?;
        let info = files.stat(&file, StatOptions::new()).await?;
        same(info.path, file, "path by stat")?;
    }
    let listed: Vec<_> = files
        .list(&base, ListFilesOptions::new())
        .try_collect()
        .await?;
    let listed: Vec<_> = listed.into_iter().map(|info| info.path).collect();
    let mut expected = ODD
        .iter()
        .map(|name| base.join(name))
        .collect::<Result<Vec<_>, _>>()?;
    expected.sort();
    same(listed, expected, "listing")?;
    for name in ODD {
        let (old, new) = (base.join(name)?, base.join(format!("{name}2"))?);
        files.rename(&old, &new, RenameOptions::new()).await?;
        same_bytes(
            files.read_bytes(&new).await?,
            name,
            format_args!("{name:?}, renamed"),
        )?;
        files.remove(&new, RemoveOptions::new()).await?;
    }
    same(files.list_all("odd").await?.len(), 0, "names that are left")
}

async fn odd_names_are_the_same_for_commands(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for name in ODD {
        sandbox
            .files()
            .write_bytes(path("odd")?.join(name)?.as_bytes(), "x")
            .await?;
    }
    let script = "for name in odd/* odd/.[!.]* odd/..?*; do printf '%s\\0' \"$name\"; done";
    let output = crate::process::succeed(&*sandbox, sandbox_core::Command::shell(script)).await?;
    let mut found: Vec<_> = output
        .stdout_text()
        .split_terminator('\0')
        .map(str::to_owned)
        .collect();
    let mut expected: Vec<_> = ODD.iter().map(|name| format!("odd/{name}")).collect();
    found.sort();
    expected.sort();
    same(found, expected, "names that a command sees")
}

async fn names_that_are_not_utf8_work_or_are_invalid(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.mkdir(&path("bytes")?, MkdirOptions::new()).await?;
    let name = path(b"bytes/\xff\xfe")?;
    if let error @ Err(_) = files.write(&name, "text".into(), Default::default()).await {
        refused_as(
            error,
            &[ErrorKind::InvalidArgument],
            "a name that is not UTF-8",
        )?;
        return same(
            files.list_all("bytes").await?.len(),
            0,
            "files made by a refused write",
        );
    }
    same_bytes(files.read_bytes(&name).await?, "text", "contents")?;
    let listed = files.list_all("bytes").await?;
    same(
        listed.first().map(|info| &info.path),
        Some(&name),
        "listing",
    )?;
    files.remove(&name, RemoveOptions::new()).await?;
    same(
        files.list_all("bytes").await?.len(),
        0,
        "files after the removal",
    )
}

async fn a_name_may_have_255_bytes(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let longest = "n".repeat(255);
    files.write_bytes(longest.clone(), "text").await?;
    same_bytes(
        files.read_bytes(longest).await?,
        "text",
        "a name of 255 bytes",
    )?;
    let longer = "n".repeat(256);
    let written = files.write_bytes(longer.clone(), "text").await;
    refused(
        written,
        ErrorKind::InvalidArgument,
        "writing to a name of 256 bytes",
    )?;
    let made = files.mkdir(&path(&longer)?, MkdirOptions::new()).await;
    refused(made, ErrorKind::InvalidArgument, "a directory of that name")
}

async fn dots_are_resolved(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("a/b/file", "text").await?;
    for name in [
        "./a/b/file",
        "a/./b/file",
        "a/../a/b/file",
        "a/b/../b/file",
        "a//b///file",
        "a/b/.././../a/b/file",
    ] {
        same_bytes(files.read_bytes(name).await?, "text", name)?;
    }
    let through = files.read_bytes("a/missing/../b/file").await;
    refused(through, ErrorKind::NotFound, "through a missing directory")
}

async fn dots_lead_no_higher_than_the_root(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("/tmp/file", "text").await?;
    for name in [
        "/../tmp/file",
        "/../../../../../../tmp/file",
        "/tmp/../../tmp/file",
        "/tmp/../../../../tmp/file",
    ] {
        same_bytes(files.read_bytes(name).await?, "text", name)?;
    }
    files.write_bytes("/../../../tmp/other", "other").await?;
    same_bytes(
        files.read_bytes("/tmp/other").await?,
        "other",
        "written through `..`",
    )?;
    let up = "../".repeat(50);
    same_bytes(
        files.read_bytes(format!("{up}tmp/file")).await?,
        "text",
        "up from home",
    )?;
    if sandbox.capabilities().shell {
        same(
            sh(&*sandbox, "cat /tmp/other").await?,
            "other",
            "seen by a command",
        )?;
    }
    Ok(())
}

async fn case_and_composition_matter(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let names = ["File", "file", "\u{e9}", "e\u{301}"];
    for name in names {
        sandbox
            .files()
            .write_bytes(format!("cases/{name}"), name)
            .await?;
    }
    for name in names {
        let read = sandbox.files().read_text(format!("cases/{name}")).await?;
        same(read, name, "contents")?;
    }
    same(sandbox.files().list_all("cases").await?.len(), 4, "names")
}
