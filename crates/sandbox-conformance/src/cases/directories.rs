//! Directories: listing, matching, making, renaming and removing.

use crate::{
    case::{Case, path},
    failure::{Result, ensure, refused, same, same_bytes},
    process::sh,
    spec::cases,
};
use futures_util::TryStreamExt;
use sandbox_core::{
    ErrorKind, FileInfo, FileKind, Files, FilesExt, GlobOptions, ListFilesOptions, MkdirOptions,
    RemoveOptions, RenameOptions, StatOptions,
};
use std::collections::BTreeSet;

cases! { "directories":
    list_is_sorted_by_name,
    list_goes_as_deep_as_asked,
    list_has_parents_before_children,
    list_tells_kind_and_size,
    list_of_nothing_is_empty,
    list_of_a_missing_directory_is_not_found,
    list_of_a_file_is_invalid,
    list_takes_thousands [Shell],
    glob_matches_within_a_name,
    glob_matches_over_directories,
    glob_of_no_match_is_empty,
    glob_patterns_that_make_no_sense_are_invalid,
    mkdir_makes_one_directory,
    mkdir_makes_those_above_if_asked,
    rename_moves_a_file,
    rename_replaces_a_file,
    rename_over_a_directory_is_refused,
    rename_moves_a_whole_directory,
    rename_of_what_is_missing_is_not_found,
    remove_of_a_file,
    remove_missing_is_not_found,
    remove_of_a_full_directory_needs_recursive,
    stat_tells_what_is_there,
}

/// `a/`, `a/1`, `a/sub/`, `a/sub/2`, `b`, `c/`.
async fn plant(files: &dyn Files) -> Result {
    files.write_bytes("tree/a/1", "one").await?;
    files.write_bytes("tree/a/sub/2", "two!").await?;
    files.write_bytes("tree/b", "").await?;
    files.mkdir(&path("tree/c")?, MkdirOptions::new()).await?;
    Ok(())
}

async fn list(files: &dyn Files, base: &str, depth: u32) -> Result<Vec<FileInfo>> {
    let options = ListFilesOptions::new().depth(depth);
    Ok(files.list(&path(base)?, options).try_collect().await?)
}

fn paths(infos: &[FileInfo]) -> Vec<String> {
    infos.iter().map(|info| info.path.to_string()).collect()
}

fn sorted(infos: &[FileInfo]) -> Vec<String> {
    let mut paths = paths(infos);
    paths.sort();
    paths
}

async fn list_is_sorted_by_name(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for name in ["b", "a", "B", "_", "a.b", "aa", "10", "9", "ü"] {
        sandbox
            .files()
            .write_bytes(format!("names/{name}"), "")
            .await?;
    }
    let expected =
        ["10", "9", "B", "_", "a", "a.b", "aa", "b", "ü"].map(|name| format!("names/{name}"));
    let listed = sandbox.files().list_all("names").await?;
    same(paths(&listed), expected, "listing, sorted by bytes")
}

async fn list_goes_as_deep_as_asked(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    plant(files).await?;
    let one = ["tree/a", "tree/b", "tree/c"];
    same(
        paths(&files.list_all("tree").await?),
        one,
        "without a depth",
    )?;
    same(paths(&list(files, "tree", 1).await?), one, "depth 1")?;
    let two = ["tree/a", "tree/a/1", "tree/a/sub", "tree/b", "tree/c"];
    same(sorted(&list(files, "tree", 2).await?), two, "depth 2")?;
    let all = [
        "tree/a",
        "tree/a/1",
        "tree/a/sub",
        "tree/a/sub/2",
        "tree/b",
        "tree/c",
    ];
    same(sorted(&list(files, "tree", 3).await?), all, "depth 3")?;
    same(
        sorted(&list(files, "tree", u32::MAX).await?),
        all,
        "as deep as it goes",
    )?;
    let zero = list_result(files, "tree", 0).await;
    refused(zero, ErrorKind::InvalidArgument, "depth 0")
}

async fn list_result(
    files: &dyn Files,
    base: &str,
    depth: u32,
) -> sandbox_core::Result<Vec<FileInfo>> {
    let options = ListFilesOptions::new().depth(depth);
    files.list(&base.try_into()?, options).try_collect().await
}

async fn list_has_parents_before_children(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    plant(sandbox.files()).await?;
    let listed = paths(&list(sandbox.files(), "tree", 9).await?);
    let place = |name: &str| listed.iter().position(|path| path == name);
    for (parent, child) in [
        ("tree/a", "tree/a/1"),
        ("tree/a", "tree/a/sub"),
        ("tree/a/sub", "tree/a/sub/2"),
    ] {
        ensure(
            place(parent) < place(child),
            format_args!("{child} comes before {parent}: {listed:?}"),
        )?;
    }
    for (first, second) in [
        ("tree/a", "tree/b"),
        ("tree/b", "tree/c"),
        ("tree/a/1", "tree/a/sub"),
    ] {
        ensure(
            place(first) < place(second),
            format_args!("{second} comes before {first}: {listed:?}"),
        )?;
    }
    Ok(())
}

async fn list_tells_kind_and_size(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    plant(sandbox.files()).await?;
    for info in list(sandbox.files(), "tree", 9).await? {
        let name = info.path.to_string();
        let directory = ["tree/a", "tree/a/sub", "tree/c"].contains(&name.as_str());
        let kind = if directory {
            FileKind::Directory
        } else {
            FileKind::File
        };
        same(info.kind, kind, format_args!("kind of {name}"))?;
        let size = match name.as_str() {
            "tree/a/1" => 3,
            "tree/a/sub/2" => 4,
            "tree/b" => 0,
            _ => continue,
        };
        same(info.size, size, format_args!("size of {name}"))?;
    }
    let absolute = sandbox.files();
    absolute.write_bytes("/tmp/listed/file", "").await?;
    same(
        paths(&absolute.list_all("/tmp/listed").await?),
        ["/tmp/listed/file"],
        "an absolute listing",
    )
}

async fn list_of_nothing_is_empty(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox
        .files()
        .mkdir(&path("empty")?, MkdirOptions::new())
        .await?;
    same(list(sandbox.files(), "empty", 5).await?.len(), 0, "entries")
}

async fn list_of_a_missing_directory_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let listed = sandbox.files().list_all("missing").await;
    refused(listed, ErrorKind::NotFound, "listing what is missing")
}

async fn list_of_a_file_is_invalid(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("file", "text").await?;
    let listed = sandbox.files().list_all("file").await;
    refused(listed, ErrorKind::InvalidArgument, "listing a file")
}

async fn list_takes_thousands(case: &Case) -> Result {
    const COUNT: usize = 5000;
    let sandbox = case.sandbox().await?;
    sh(
        &*sandbox,
        &format!(
            "mkdir many; cd many; seq 10000 {} | xargs touch",
            9999 + COUNT
        ),
    )
    .await?;
    let listed = paths(&sandbox.files().list_all("many").await?);
    let expected: Vec<_> = (10_000..10_000 + COUNT)
        .map(|number| format!("many/{number}"))
        .collect();
    ensure(
        listed == expected,
        format_args!("{} entries, or another order", listed.len()),
    )
}

async fn glob(files: &dyn Files, pattern: &str) -> Result<Vec<FileInfo>> {
    Ok(files
        .glob(&path("tree")?, pattern, GlobOptions::new())
        .try_collect()
        .await?)
}

async fn plant_names(files: &dyn Files) -> Result {
    for name in [
        "a.txt",
        "b.txt",
        "ab.md",
        "d/c.txt",
        "d/e/f.txt",
        "d/e/g.md",
    ] {
        files.write_bytes(format!("tree/{name}"), "").await?;
    }
    Ok(())
}

async fn glob_matches_within_a_name(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    plant_names(files).await?;
    let cases: [(&str, &[&str]); 8] = [
        ("*.txt", &["tree/a.txt", "tree/b.txt"]),
        ("a*", &["tree/a.txt", "tree/ab.md"]),
        ("?.txt", &["tree/a.txt", "tree/b.txt"]),
        ("[b-z].txt", &["tree/b.txt"]),
        ("{a,ab}.{txt,md}", &["tree/a.txt", "tree/ab.md"]),
        ("d/*", &["tree/d/c.txt", "tree/d/e"]),
        ("*/c.txt", &["tree/d/c.txt"]),
        ("a.txt", &["tree/a.txt"]),
    ];
    for (pattern, expected) in cases {
        same(
            paths(&glob(files, pattern).await?),
            expected,
            format_args!("{pattern}"),
        )?;
    }
    Ok(())
}

async fn glob_matches_over_directories(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    plant_names(files).await?;
    let all = ["tree/a.txt", "tree/b.txt", "tree/d/c.txt", "tree/d/e/f.txt"];
    same(sorted(&glob(files, "**/*.txt").await?), all, "**/*.txt")?;
    same(
        sorted(&glob(files, "d/**/*.md").await?),
        ["tree/d/e/g.md"],
        "d/**/*.md",
    )?;
    let kinds: BTreeSet<_> = glob(files, "d/*")
        .await?
        .into_iter()
        .map(|info| format!("{:?}", info.kind))
        .collect();
    same(kinds.len(), 2, "kinds of what matches d/*")
}

async fn glob_of_no_match_is_empty(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    plant_names(sandbox.files()).await?;
    for pattern in ["*.none", "A.TXT", "tree/*", "a.tx", ".txt"] {
        let found = paths(&glob(sandbox.files(), pattern).await?);
        ensure(found.is_empty(), format_args!("{pattern}: found {found:?}"))?;
    }
    let missing: sandbox_core::Result<Vec<_>> = sandbox
        .files()
        .glob(&path("missing")?, "*", GlobOptions::new())
        .try_collect()
        .await;
    refused(missing, ErrorKind::NotFound, "below what is missing")
}

async fn glob_patterns_that_make_no_sense_are_invalid(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    plant_names(sandbox.files()).await?;
    for pattern in ["", "[", "[a", "{a", "{a,{b}"] {
        let found: sandbox_core::Result<Vec<_>> = sandbox
            .files()
            .glob(&path("tree")?, pattern, GlobOptions::new())
            .try_collect()
            .await;
        refused(
            found,
            ErrorKind::InvalidArgument,
            format_args!("pattern {pattern:?}"),
        )?;
    }
    Ok(())
}

async fn mkdir_makes_one_directory(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.mkdir(&path("one")?, MkdirOptions::new()).await?;
    let info = files.stat(&path("one")?, StatOptions::new()).await?;
    same(info.kind, FileKind::Directory, "kind")?;
    let again = files.mkdir(&path("one")?, MkdirOptions::new()).await;
    refused(again, ErrorKind::AlreadyExists, "the same again")?;
    let deep = files
        .mkdir(&path("no/such/parent")?, MkdirOptions::new())
        .await;
    refused(deep, ErrorKind::NotFound, "below what is missing")?;
    same(
        files.exists("no").await?,
        false,
        "whether a refused call made something",
    )?;
    files.write_bytes("file", "text").await?;
    let over = files.mkdir(&path("file")?, MkdirOptions::new()).await;
    refused(over, ErrorKind::AlreadyExists, "where a file is")
}

async fn mkdir_makes_those_above_if_asked(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let parents = || MkdirOptions::new().parents(true);
    files.mkdir(&path("a/b/c")?, parents()).await?;
    files.mkdir(&path("a/b/c")?, parents()).await?;
    files.mkdir(&path("a/b/d")?, parents()).await?;
    same(
        sorted(&list(files, "a", 9).await?),
        ["a/b", "a/b/c", "a/b/d"],
        "what was made",
    )?;
    files.write_bytes("a/file", "text").await?;
    let over = files.mkdir(&path("a/file")?, parents()).await;
    refused(over, ErrorKind::AlreadyExists, "where a file is")?;
    same_bytes(files.read_bytes("a/file").await?, "text", "the file")
}

async fn rename(files: &dyn Files, from: &str, to: &str) -> sandbox_core::Result<()> {
    files
        .rename(&from.try_into()?, &to.try_into()?, RenameOptions::new())
        .await
}

async fn rename_moves_a_file(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("old", "text").await?;
    files
        .mkdir(&path("directory")?, MkdirOptions::new())
        .await?;
    rename(files, "old", "directory/new").await?;
    same(
        files.exists("old").await?,
        false,
        "whether the old name is there",
    )?;
    same_bytes(
        files.read_bytes("directory/new").await?,
        "text",
        "the new name",
    )?;
    rename(files, "directory/new", "/tmp/renamed").await?;
    same_bytes(
        files.read_bytes("/tmp/renamed").await?,
        "text",
        "in another tree",
    )?;
    rename(files, "/tmp/renamed", "/tmp/renamed").await?;
    same_bytes(
        files.read_bytes("/tmp/renamed").await?,
        "text",
        "renamed to itself",
    )
}

async fn rename_replaces_a_file(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("new", "new").await?;
    files.write_bytes("old", "a longer old text").await?;
    rename(files, "new", "old").await?;
    same_bytes(files.read_bytes("old").await?, "new", "what was replaced")?;
    same(
        files.exists("new").await?,
        false,
        "whether the first name is there",
    )
}

async fn rename_over_a_directory_is_refused(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    plant(files).await?;
    files.write_bytes("file", "text").await?;
    let file_over_full = rename(files, "file", "tree/a").await;
    refused(
        file_over_full,
        ErrorKind::InvalidArgument,
        "a file over a directory",
    )?;
    let file_over_empty = rename(files, "file", "tree/c").await;
    refused(
        file_over_empty,
        ErrorKind::InvalidArgument,
        "a file over an empty directory",
    )?;
    let over_file = rename(files, "tree/c", "file").await;
    refused(
        over_file,
        ErrorKind::InvalidArgument,
        "a directory over a file",
    )?;
    let over_full = rename(files, "tree/c", "tree/a").await;
    refused(
        over_full,
        ErrorKind::InvalidState,
        "a directory over one that is not empty",
    )?;
    let into_itself = rename(files, "tree/a", "tree/a/sub/a").await;
    refused(
        into_itself,
        ErrorKind::InvalidArgument,
        "a directory into itself",
    )?;
    same_bytes(files.read_bytes("file").await?, "text", "the file, still")?;
    same_bytes(
        files.read_bytes("tree/a/1").await?,
        "one",
        "the tree, still",
    )
}

async fn rename_moves_a_whole_directory(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    plant(files).await?;
    rename(files, "tree/a", "tree/c").await?;
    same_bytes(
        files.read_bytes("tree/c/sub/2").await?,
        "two!",
        "over an empty directory",
    )?;
    rename(files, "tree", "wood").await?;
    let all = ["wood/b", "wood/c", "wood/c/1", "wood/c/sub", "wood/c/sub/2"];
    same(sorted(&list(files, "wood", 9).await?), all, "to a new name")?;
    same(
        files.exists("tree").await?,
        false,
        "whether the old name is there",
    )
}

async fn rename_of_what_is_missing_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("file", "text").await?;
    refused(
        rename(files, "missing", "file").await,
        ErrorKind::NotFound,
        "a missing file",
    )?;
    refused(
        rename(files, "file", "no/such/file").await,
        ErrorKind::NotFound,
        "into what is missing",
    )?;
    same_bytes(files.read_bytes("file").await?, "text", "the file, still")
}

async fn remove_of_a_file(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("file", "text").await?;
    files
        .mkdir(&path("directory")?, MkdirOptions::new())
        .await?;
    for name in ["file", "directory"] {
        files.remove(&path(name)?, RemoveOptions::new()).await?;
        same(
            files.exists(name).await?,
            false,
            format_args!("whether {name} is there"),
        )?;
    }
    files.write_bytes("file", "again").await?;
    files
        .remove(&path("file")?, RemoveOptions::new().recursive(true))
        .await?;
    same(
        files.exists("file").await?,
        false,
        "whether the file is there",
    )
}

async fn remove_missing_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for name in ["missing", "missing/below"] {
        for recursive in [false, true] {
            let options = RemoveOptions::new().recursive(recursive);
            let removed = sandbox.files().remove(&path(name)?, options).await;
            let what = format!("{name}, recursive: {recursive}");
            refused(removed, ErrorKind::NotFound, what)?;
        }
    }
    Ok(())
}

async fn remove_of_a_full_directory_needs_recursive(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    plant(files).await?;
    let removed = files.remove(&path("tree")?, RemoveOptions::new()).await;
    refused(removed, ErrorKind::InvalidState, "a full directory")?;
    same_bytes(
        files.read_bytes("tree/a/sub/2").await?,
        "two!",
        "what is in it",
    )?;
    files
        .remove(&path("tree")?, RemoveOptions::new().recursive(true))
        .await?;
    same(files.exists("tree").await?, false, "whether it is there")
}

async fn stat_tells_what_is_there(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("directory/file", "12345").await?;
    let info = files
        .stat(&path("directory/file")?, StatOptions::new())
        .await?;
    same(
        (info.kind, info.size),
        (FileKind::File, 5),
        "kind and size of a file",
    )?;
    same(info.path, path("directory/file")?, "its path")?;
    same(info.target, None, "its target")?;
    let info = files.stat(&path("directory")?, StatOptions::new()).await?;
    same(info.kind, FileKind::Directory, "kind of a directory")?;
    let root = files.stat(&path("/")?, StatOptions::new()).await?;
    same(root.kind, FileKind::Directory, "kind of the root")
}
