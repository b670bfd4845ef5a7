//! Contents of files: whole, in ranges, as streams, empty and large.

use crate::{
    case::{Case, path},
    failure::{Result, Stop, ensure, refused, same, same_bytes},
    process::{has, sh, succeed},
    spec::{Need, cases},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use sandbox_core::{
    Body, BoxStream, Command, Error, ErrorKind, Files, FilesExt, MkdirOptions, ReadOptions,
    Sandbox, StatOptions, WriteOptions,
};
use std::ops::Range;

cases! { "contents":
    what_is_written_is_read,
    every_byte_survives,
    a_write_replaces_all,
    a_write_makes_directories_above,
    an_empty_file_is_a_file,
    a_stream_is_written_piece_by_piece,
    a_stream_that_fails_fails_the_write,
    a_missing_file_is_not_found,
    a_directory_has_no_contents,
    a_file_is_no_directory,
    ranges_are_read [RangeRead],
    a_range_past_the_end_is_empty [RangeRead],
    many_files_at_once,
    a_reader_that_stops_early_stops_nobody,
    a_large_file_goes_in_and_out,
    ranges_beyond_four_gib_are_read [Shell, RangeRead],
    commands_and_files_see_the_same_tree [Shell],
    a_file_of_the_kernel_is_read_to_its_end [Shell],
}

async fn range(files: &dyn Files, name: &str, range: Range<u64>) -> Result<(u64, Bytes)> {
    let contents = files
        .read(&path(name)?, ReadOptions::new().range(range))
        .await?;
    let size = contents.size();
    Ok((size, contents.into_bytes(64 << 20).await?))
}

async fn what_is_written_is_read(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    for name in ["relative", "/tmp/absolute"] {
        files.write_bytes(name, "some text\n").await?;
        same_bytes(files.read_bytes(name).await?, "some text\n", name)?;
        same(files.read_text(name).await?, "some text\n", name)?;
        let size = files.stat(&path(name)?, StatOptions::new()).await?.size;
        same(size, 10, format_args!("size of {name}"))?;
        let contents = files.read(&path(name)?, ReadOptions::new()).await?;
        same(
            contents.size(),
            10,
            format_args!("size of {name} when it was opened"),
        )?;
    }
    Ok(())
}

async fn every_byte_survives(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for len in [1, 255, 256, 4096, 65_535, 65_536, 65_537, 3_000_000] {
        let bytes: Vec<u8> = (0..=255).rev().cycle().take(len).collect();
        sandbox.files().write_bytes("bytes", bytes.clone()).await?;
        let read = sandbox.files().read_bytes("bytes").await?;
        same_bytes(read, bytes, format_args!("{len} bytes"))?;
    }
    Ok(())
}

async fn a_write_replaces_all(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files
        .write_bytes("file", "a long text that was here before")
        .await?;
    files.write_bytes("file", "short").await?;
    same_bytes(
        files.read_bytes("file").await?,
        "short",
        "after a shorter write",
    )?;
    files.write_bytes("file", vec![b'x'; 300_000]).await?;
    files.write_bytes("file", "").await?;
    same_bytes(files.read_bytes("file").await?, "", "after an empty write")
}

async fn a_write_makes_directories_above(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("a/b/c/file", "deep").await?;
    same_bytes(
        sandbox.files().read_bytes("a/b/c/file").await?,
        "deep",
        "the file",
    )?;
    sandbox.files().write_bytes("a/b/other", "beside").await?;
    same_bytes(
        sandbox.files().read_bytes("a/b/c/file").await?,
        "deep",
        "the file, still",
    )
}

async fn an_empty_file_is_a_file(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let none = || stream::empty::<sandbox_core::Result<Bytes>>().boxed();
    let bodies = [
        ("no bytes", Body::from("")),
        ("no pieces", Body::stream(none(), Some(0))),
        ("no pieces, no size", Body::stream(none(), None)),
        ("an empty piece", pieces(&[""])),
    ];
    for (what, body) in bodies {
        files.write(&path(what)?, body, WriteOptions::new()).await?;
        same_bytes(files.read_bytes(what).await?, "", what)?;
        let info = files.stat(&path(what)?, StatOptions::new()).await?;
        same(
            (info.kind, info.size),
            (sandbox_core::FileKind::File, 0),
            what,
        )?;
    }
    Ok(())
}

fn pieces(pieces: &[&'static str]) -> Body {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|text| Ok(Bytes::from_static(text.as_bytes())))
        .collect();
    Body::stream(stream::iter(pieces).boxed(), None)
}

async fn a_stream_is_written_piece_by_piece(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let body = pieces(&["one ", "", "two ", "three", "\n"]);
    sandbox
        .files()
        .write(&path("file")?, body, WriteOptions::new())
        .await?;
    same_bytes(
        sandbox.files().read_bytes("file").await?,
        "one two three\n",
        "the file",
    )
}

async fn a_stream_that_fails_fails_the_write(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let failure = Error::new(ErrorKind::PolicyDenied, "the source of the body failed");
    let body = stream::iter([Ok(Bytes::from_static(b"begun")), Err(failure)]).boxed();
    let written = sandbox
        .files()
        .write(
            &path("file")?,
            Body::stream(body, None),
            WriteOptions::new(),
        )
        .await;
    refused(written, ErrorKind::PolicyDenied, "a write whose body fails")?;
    sandbox.files().write_bytes("file", "whole").await?;
    same_bytes(
        sandbox.files().read_bytes("file").await?,
        "whole",
        "the file afterwards",
    )
}

async fn a_missing_file_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for name in ["missing", "missing/below", "/no/such/file"] {
        let read = sandbox.files().read_bytes(name).await;
        refused(read, ErrorKind::NotFound, format_args!("reading {name:?}"))?;
        let stat = sandbox.files().stat(&path(name)?, StatOptions::new()).await;
        refused(stat, ErrorKind::NotFound, format_args!("stat of {name:?}"))?;
        let exists = sandbox.files().exists(name).await?;
        same(exists, false, format_args!("whether {name:?} exists"))?;
    }
    Ok(())
}

async fn a_directory_has_no_contents(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox
        .files()
        .mkdir(&path("directory")?, MkdirOptions::new())
        .await?;
    for name in ["directory", "/"] {
        let read = sandbox.files().read_bytes(name).await;
        refused(
            read,
            ErrorKind::InvalidArgument,
            format_args!("reading {name:?}"),
        )?;
        let written = sandbox.files().write_bytes(name, "text").await;
        refused(
            written,
            ErrorKind::InvalidArgument,
            format_args!("writing {name:?}"),
        )?;
    }
    Ok(())
}

async fn a_file_is_no_directory(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("file", "text").await?;
    let read = sandbox.files().read_bytes("file/below").await;
    refused(read, ErrorKind::InvalidArgument, "reading below a file")?;
    let written = sandbox.files().write_bytes("file/below", "text").await;
    refused(written, ErrorKind::InvalidArgument, "writing below a file")?;
    same_bytes(
        sandbox.files().read_bytes("file").await?,
        "text",
        "the file",
    )
}

async fn ranges_are_read(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    let whole = bytes.len() as u64;
    sandbox.files().write_bytes("file", bytes.clone()).await?;
    for (from, to) in [
        (0, 0),
        (0, 1),
        (3, 5),
        (0, whole),
        (65_535, 65_537),
        (1, 700_001),
        (whole - 1, whole),
    ] {
        let (size, read) = range(sandbox.files(), "file", from..to).await?;
        same(size, whole, "size of the whole file")?;
        let expected = &bytes[from as usize..to as usize];
        same_bytes(read, expected, format_args!("range {from}..{to}"))?;
    }
    Ok(())
}

async fn a_range_past_the_end_is_empty(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("file", "0123456789").await?;
    for (from, to, expected) in [
        (8, 20, "89"),
        (0, u64::MAX, "0123456789"),
        (9, u64::MAX, "9"),
        (10, 11, ""),
        (10, 10, ""),
        (1 << 40, 1 << 41, ""),
        (u64::MAX - 1, u64::MAX, ""),
        (7, 3, ""),
    ] {
        let (size, read) = range(files, "file", from..to).await?;
        same(size, 10, format_args!("size with range {from}..{to}"))?;
        same_bytes(read, expected, format_args!("range {from}..{to}"))?;
    }
    files.write_bytes("empty", "").await?;
    same(
        range(files, "empty", 0..10).await?,
        (0, Bytes::new()),
        "a range of an empty file",
    )?;
    let missing = files
        .read(&path("missing")?, ReadOptions::new().range(0..1))
        .await;
    refused(missing, ErrorKind::NotFound, "a range of a missing file")
}

async fn many_files_at_once(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    let turn = |number: usize| async move {
        let (name, text) = (
            format!("many/{}/file{number}", number % 4),
            "x".repeat(number * 997),
        );
        files.write_bytes(name.clone(), text.clone()).await?;
        let read = files.read_bytes(name.clone()).await?;
        same_bytes(read, text, name)
    };
    try_join_all((0..64).map(turn)).await?;
    Ok(())
}

async fn a_reader_that_stops_early_stops_nobody(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox
        .files()
        .write_bytes("big", vec![b'x'; 8 << 20])
        .await?;
    for _ in 0..20 {
        let contents = sandbox
            .files()
            .read(&path("big")?, ReadOptions::new())
            .await?;
        let first = contents.into_stream().try_next().await?;
        ensure(first.is_some(), "there is no first piece")?;
    }
    same(
        sandbox.files().read_bytes("big").await?.len(),
        8 << 20,
        "bytes of the whole file",
    )
}

/// Contents of a large file: blocks of 4 MiB that begin with their number.
struct Blocks {
    tail: Bytes,
    size: u64,
}

impl Blocks {
    const HEAD: usize = 16;
    const LEN: usize = 4 << 20;

    fn new(size: u64) -> Self {
        let line: Vec<u8> = (b' '..=b'~').chain(*b"\n").collect();
        let tail = line
            .into_iter()
            .cycle()
            .take(Self::LEN - Self::HEAD)
            .collect();
        Self {
            tail,
            size: size / Self::LEN as u64 * Self::LEN as u64,
        }
    }

    fn count(&self) -> u64 {
        self.size / Self::LEN as u64
    }

    fn head(number: u64) -> String {
        format!("{number:0width$}\n", width = Self::HEAD - 1)
    }

    fn stream(&self) -> BoxStream<'static, sandbox_core::Result<Bytes>> {
        let tail = self.tail.clone();
        let block = move |number| [Ok(Bytes::from(Self::head(number))), Ok(tail.clone())];
        stream::iter((0..self.count()).flat_map(block)).boxed()
    }

    /// Compares pieces of any length, holding none of them.
    async fn compare(&self, mut found: BoxStream<'static, sandbox_core::Result<Bytes>>) -> Result {
        let (mut expected, mut at) = (Bytes::new(), 0u64);
        let mut source = self.stream();
        while let Some(mut piece) = found.try_next().await? {
            while !piece.is_empty() {
                if expected.is_empty() {
                    let more = source.try_next().await?;
                    expected =
                        more.ok_or_else(|| Stop::failed("there is more than was written"))?;
                }
                let len = piece.len().min(expected.len());
                let right = piece.split_to(len) == expected.split_to(len);
                ensure(right, format_args!("wrong bytes somewhere after byte {at}"))?;
                at += len as u64;
            }
        }
        same(at, self.size, "bytes that came back")
    }
}

async fn a_large_file_goes_in_and_out(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let (files, name) = (sandbox.files(), path("large")?);
    let blocks = Blocks::new(case.harness().large_file_bytes);
    let body = Body::stream(blocks.stream(), Some(blocks.size));
    files.write(&name, body, WriteOptions::new()).await?;
    let info = files.stat(&name, StatOptions::new()).await?;
    same(info.size, blocks.size, "size after the write")?;
    if has(&*sandbox, Need::Shell) {
        compare_inside(&*sandbox, &blocks).await?;
    }
    let contents = files.read(&name, ReadOptions::new()).await?;
    same(contents.size(), blocks.size, "size when opened")?;
    blocks.compare(contents.into_stream()).await?;
    if has(&*sandbox, Need::RangeRead) {
        let last = blocks.count() - 1;
        let from = last * Blocks::LEN as u64;
        let (_, head) = range(files, "large", from..from + Blocks::HEAD as u64).await?;
        same_bytes(head, Blocks::head(last), "the head of the last block")?;
    }
    Ok(())
}

/// Makes the same contents inside the sandbox and compares the two there.
async fn compare_inside(sandbox: &dyn Sandbox, blocks: &Blocks) -> Result {
    sandbox
        .files()
        .write_bytes("tail", blocks.tail.clone())
        .await?;
    let script = "i=0; while [ $i -lt $1 ]; do printf '%0*d\\n' $2 $i; cat tail; i=$((i+1)); done | cmp - large";
    let numbers = [blocks.count().to_string(), (Blocks::HEAD - 1).to_string()];
    succeed(sandbox, Command::shell(script).args(numbers)).await?;
    Ok(())
}

async fn ranges_beyond_four_gib_are_read(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    const FAR: u64 = 5 << 30;
    sh(
        &*sandbox,
        &format!("truncate -s {FAR} sparse && printf marked >> sparse"),
    )
    .await?;
    let (size, read) = range(sandbox.files(), "sparse", FAR - 2..FAR + 4).await?;
    same(size, FAR + 6, "size")?;
    same_bytes(read, "\0\0mark", "bytes around 5 GiB")?;
    let info = sandbox
        .files()
        .stat(&path("sparse")?, StatOptions::new())
        .await?;
    same(info.size, FAR + 6, "size by stat")
}

async fn commands_and_files_see_the_same_tree(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("from-files", "1\n").await?;
    same(
        sh(&*sandbox, "cat from-files").await?,
        "1",
        "seen by a command",
    )?;
    sh(
        &*sandbox,
        "echo 2 > from-command; rm from-files; mkdir /tmp/made; echo 3 > /tmp/made/x",
    )
    .await?;
    same_bytes(
        sandbox.files().read_bytes("from-command").await?,
        "2\n",
        "made by a command",
    )?;
    same_bytes(
        sandbox.files().read_bytes("/tmp/made/x").await?,
        "3\n",
        "made in /tmp by a command",
    )?;
    let removed = sandbox.files().read_bytes("from-files").await;
    refused(removed, ErrorKind::NotFound, "removed by a command")?;
    sandbox
        .files()
        .write_bytes("/etc/conformance-probe", "x")
        .await
        .or_else(|error| {
            // Where the default user may not, it is the user's own tree that counts.
            if error.kind() == ErrorKind::PermissionDenied {
                Ok(())
            } else {
                Err(error)
            }
        })?;
    let inside = sh(&*sandbox, "cat /etc/os-release 2> /dev/null || echo none").await?;
    if inside != "none" {
        let read = sandbox.files().read_text("/etc/os-release").await?;
        same(read.trim_end(), inside, "a file of the template")?;
    }
    Ok(())
}

async fn a_file_of_the_kernel_is_read_to_its_end(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let inside = sh(&*sandbox, "cat /proc/version").await?;
    // Its size is 0 by stat, but not what it holds.
    let read = sandbox.files().read_text("/proc/version").await?;
    same(read.trim_end(), inside, "/proc/version")
}
