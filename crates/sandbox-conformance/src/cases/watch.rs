//! Changes of files, told as they happen, or that some were lost.

use crate::{
    case::{Case, path},
    failure::{Result, Stop, ensure, refused, same},
    process::sh,
    spec::cases,
};
use futures_util::StreamExt;
use sandbox_core::{
    BoxStream, ErrorKind, FileEvent, FilesExt, MkdirOptions, RemoveOptions, RenameOptions, Sandbox,
    SandboxExt, SandboxPath, WatchOptions,
};
use std::collections::BTreeSet;

cases! { "watch":
    changes_are_told [Watch],
    what_is_below_is_told_if_asked [Watch],
    new_directories_are_followed [Watch],
    a_rename_is_an_end_and_a_beginning [Watch],
    the_end_of_the_directory_ends_it [Watch],
    what_cannot_be_watched_is_refused [Watch],
    programs_are_seen_too [Watch, Shell],
    a_storm_loses_nothing_in_silence [Watch, Shell],
    what_is_made_in_a_hurry_is_found [Watch, Shell],
}

/// Somebody who listens.
struct Listener {
    events: BoxStream<'static, sandbox_core::Result<FileEvent>>,
    seen: Vec<FileEvent>,
}

impl Listener {
    /// Watches `directory`, which is made.
    async fn new(sandbox: &dyn Sandbox, directory: &str, recursive: bool) -> Result<Self> {
        let directory = path(directory)?;
        let options = MkdirOptions::new().parents(true);
        sandbox.files().mkdir(&directory, options).await?;
        let options = WatchOptions::new().recursive(recursive);
        let events = sandbox.require_watch()?.watch(&directory, options).await?;
        Ok(Self {
            events,
            seen: Vec::new(),
        })
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Result<Option<FileEvent>> {
        let event = self.events.next().await.transpose()?;
        self.seen.extend(event.clone());
        Ok(event)
    }

    /// Listens up to this event, without a loss.
    async fn until(&mut self, wanted: &FileEvent) -> Result {
        loop {
            match self.next().await? {
                Some(event) if event == *wanted => return Ok(()),
                Some(FileEvent::Lost) => return Err(Stop::failed("events were lost")),
                Some(_) => {}
                None => return Err(Stop::failed(format_args!("it ended before {wanted:?}"))),
            }
        }
    }

    fn has(&self, event: &FileEvent) -> bool {
        self.seen.contains(event)
    }
}

async fn changes_are_told(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut listener = Listener::new(&*sandbox, "w", false).await?;
    let files = sandbox.files();
    let file = path("w/file")?;
    files.write_bytes("w/file", "text").await?;
    listener.until(&FileEvent::Created(file.clone())).await?;
    files.write_bytes("w/file", "more").await?;
    listener.until(&FileEvent::Written(file.clone())).await?;
    files.write_bytes("elsewhere", "").await?;
    files.remove(&file, RemoveOptions::new()).await?;
    listener.until(&FileEvent::Removed(file)).await?;
    let elsewhere = FileEvent::Created(path("elsewhere")?);
    ensure(!listener.has(&elsewhere), "another directory was told of")
}

async fn what_is_below_is_told_if_asked(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("w/below/first", "").await?;
    let mut flat = Listener::new(&*sandbox, "w", false).await?;
    let mut deep = Listener::new(&*sandbox, "w", true).await?;
    files.write_bytes("w/below/file", "").await?;
    files.write_bytes("w/end", "").await?;
    let (below, end) = (path("w/below/file")?, path("w/end")?);
    deep.until(&FileEvent::Created(below.clone())).await?;
    deep.until(&FileEvent::Created(end.clone())).await?;
    flat.until(&FileEvent::Created(end)).await?;
    let told = flat.has(&FileEvent::Created(below));
    ensure(!told, "what is deeper than was asked for was told")
}

async fn new_directories_are_followed(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut listener = Listener::new(&*sandbox, "w", true).await?;
    let files = sandbox.files();
    files.write_bytes("w/a/b/c/file", "").await?;
    let inside = FileEvent::Created(path("w/a/b/c/file")?);
    listener.until(&inside).await?;
    files.write_bytes("w/a/b/later", "").await?;
    let later = FileEvent::Created(path("w/a/b/later")?);
    listener.until(&later).await?;
    let above = FileEvent::Created(path("w/a")?);
    ensure(listener.has(&above), "the new directory was not told")
}

async fn a_rename_is_an_end_and_a_beginning(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let files = sandbox.files();
    files.write_bytes("w/d/file", "").await?;
    let mut listener = Listener::new(&*sandbox, "w", true).await?;
    let (from, to) = (path("w/d")?, path("w/e")?);
    files.rename(&from, &to, RenameOptions::new()).await?;
    listener.until(&FileEvent::Removed(from)).await?;
    listener.until(&FileEvent::Created(to)).await?;
    files.write_bytes("w/e/new", "").await?;
    let new = FileEvent::Created(path("w/e/new")?);
    listener.until(&new).await
}

async fn the_end_of_the_directory_ends_it(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut listener = Listener::new(&*sandbox, "w", true).await?;
    let directory = path("w")?;
    let options = RemoveOptions::new().recursive(true);
    sandbox.files().remove(&directory, options).await?;
    listener.until(&FileEvent::Removed(directory)).await?;
    same(listener.next().await?, None, "after the end")
}

async fn what_cannot_be_watched_is_refused(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("file", "").await?;
    let watch = sandbox.require_watch()?;
    let try_watch = async |at: SandboxPath| {
        let events = watch.watch(&at, WatchOptions::new()).await;
        events.map(drop)
    };
    let missing = try_watch(path("missing")?).await;
    refused(missing, ErrorKind::NotFound, "a missing directory")?;
    let file = try_watch(path("file")?).await;
    refused(file, ErrorKind::InvalidArgument, "a file")
}

async fn programs_are_seen_too(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut listener = Listener::new(&*sandbox, "w", true).await?;
    sh(
        &*sandbox,
        "echo x > w/file; chmod 600 w/file; echo y >> w/file; rm w/file",
    )
    .await?;
    let file = path("w/file")?;
    listener.until(&FileEvent::Removed(file.clone())).await?;
    for event in [
        FileEvent::Created(file.clone()),
        FileEvent::Written(file.clone()),
        FileEvent::Attributes(file),
    ] {
        ensure(listener.has(&event), format_args!("{event:?} was not told"))?;
    }
    Ok(())
}

async fn a_storm_loses_nothing_in_silence(case: &Case) -> Result {
    const FILES: usize = 100_000;
    let sandbox = case.sandbox().await?;
    let mut listener = Listener::new(&*sandbox, "w", true).await?;
    // Nobody listens before it is over.
    let script =
        format!("cd w && mkdir d && seq 1 {FILES} | sed 's,^,d/f,' | xargs touch && touch end");
    sh(&*sandbox, &script).await?;
    let end = FileEvent::Created(path("w/end")?);
    let mut names = BTreeSet::new();
    loop {
        match listener.next().await? {
            // Whoever is told looks again, and listens on.
            Some(FileEvent::Lost) => break,
            Some(event) if event == end => {
                return same(names.len(), FILES, "files that were told, without a loss");
            }
            Some(FileEvent::Created(at)) if at.to_string().contains("/d/f") => {
                names.insert(at);
            }
            Some(_) => {}
            None => return Err(Stop::failed("the watch ended")),
        }
    }
    sandbox.files().write_bytes("w/d/after", "").await?;
    let after = FileEvent::Created(path("w/d/after")?);
    while listener.next().await?.as_ref() != Some(&after) {}
    Ok(())
}

async fn what_is_made_in_a_hurry_is_found(case: &Case) -> Result {
    const TREES: usize = 200;
    let sandbox = case.sandbox().await?;
    let mut listener = Listener::new(&*sandbox, "w", true).await?;
    let script = format!(
        "cd w; i=0; while [ $i -lt {TREES} ]; do mkdir -p $i/a/b; : > $i/a/b/file; i=$((i + 1)); done"
    );
    sh(&*sandbox, &script).await?;
    let mut missing = (0..TREES)
        .map(|tree| path(format!("w/{tree}/a/b/file")))
        .collect::<Result<BTreeSet<_>>>()?;
    while !missing.is_empty() {
        match listener.next().await? {
            Some(FileEvent::Created(at)) => drop(missing.remove(&at)),
            Some(FileEvent::Lost) => return Err(Stop::failed("events were lost")),
            Some(_) => {}
            None => return Err(Stop::failed("the watch ended")),
        }
    }
    Ok(())
}
