//! Snapshots, forks, and what of them is shared.

use crate::{
    case::Case,
    failure::{Result, ensure, refused, same, same_bytes},
    process::{sh, start},
    spec::cases,
};
use futures_util::TryStreamExt;
use sandbox_core::{
    Command, Error, ErrorKind, FilesExt, ProviderExt, Sandbox, SandboxExt, SandboxId, SandboxState,
    SnapshotId, SnapshotInfo, SnapshotOptions, Source, TemplateId,
};
use std::{collections::BTreeSet, sync::Arc};

cases! { "snapshots":
    a_snapshot_keeps_the_state [Snapshots],
    a_snapshot_outlives_its_sandbox [Snapshots],
    a_snapshots_name_serves_and_is_unique [Snapshots],
    snapshots_are_templates_that_can_be_removed [Snapshots, Templates],
    a_removed_snapshot_stays_for_those_who_use_it [Snapshots, Templates, Shell],
    a_fork_goes_its_own_way [Snapshots],
    a_fork_of_nothing_is_not_found [Snapshots],
    forks_at_once_are_of_one_moment [Snapshots, Pause, Shell],
    forks_of_forks_keep_all_changes [Snapshots, Shell],
    changes_of_every_kind_are_kept [Snapshots, Shell],
    a_snapshot_disturbs_no_command [Snapshots, Pause, Shell],
    a_paused_sandbox_is_kept_and_stays_paused [Snapshots, Pause, Shell],
}

/// Takes a snapshot that is removed by [`forget`].
async fn keep(case: &Case, sandbox: &dyn Sandbox) -> Result<SnapshotInfo> {
    let name = format!("kept-{}", case.label());
    let options = SnapshotOptions::new().name(name);
    Ok(sandbox.require_snapshots()?.snapshot(options).await?)
}

/// Removes a snapshot where that can be done. Returns whether it was there.
async fn forget(case: &Case, id: &SnapshotId) -> Result<bool> {
    match case.provider().templates() {
        Some(templates) => Ok(templates.remove(&TemplateId::new(id.as_str())).await?),
        None => Ok(true),
    }
}

async fn from(case: &Case, source: Source) -> Result<Arc<dyn Sandbox>> {
    case.sandbox_with(case.options().source(source)).await
}

async fn fork(case: &Case, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
    from(case, Source::Fork(id.clone())).await
}

async fn a_snapshot_keeps_the_state(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("note", "before").await?;
    let snapshot = keep(case, &*sandbox).await?;
    sandbox.files().write_bytes("note", "after").await?;
    let copy = from(case, Source::Snapshot(snapshot.id.clone())).await?;
    forget(case, &snapshot.id).await?;
    let (kept, now) = (
        copy.files().read_bytes("note").await?,
        sandbox.files().read_bytes("note").await?,
    );
    same_bytes(kept, "before", "in the copy")?;
    same_bytes(now, "after", "in the original")
}

async fn a_snapshot_outlives_its_sandbox(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("note", "kept").await?;
    let snapshot = keep(case, &*sandbox).await?;
    sandbox.kill().await?;
    let copy = from(case, Source::Snapshot(snapshot.id.clone())).await?;
    forget(case, &snapshot.id).await?;
    let kept = copy.files().read_bytes("note").await?;
    same_bytes(kept, "kept", "in the copy")
}

async fn a_snapshots_name_serves_and_is_unique(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let snapshot = keep(case, &*sandbox).await?;
    let again = keep(case, &*sandbox).await;
    let name = snapshot.name.as_deref().unwrap_or_default();
    let found = from(case, Source::Snapshot(name.into())).await;
    forget(case, &snapshot.id).await?;
    same(name, format!("kept-{}", case.label()), "its name")?;
    found?;
    ensure(again.is_err(), "a second snapshot has the same name")
}

async fn snapshots_are_templates_that_can_be_removed(case: &Case) -> Result {
    let templates = case.provider().templates();
    let templates = templates.ok_or_else(|| Error::unsupported("templates"))?;
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("note", "kept").await?;
    let snapshot = keep(case, &*sandbox).await?;
    let id = TemplateId::new(snapshot.id.as_str());
    let listed: Vec<_> = templates.list().try_collect().await?;
    let copy = from(case, Source::Template(id.clone())).await;
    let removed = forget(case, &snapshot.id).await?;
    let is_listed = listed.iter().any(|template| template.id == id);
    ensure(is_listed, "it is not among the templates")?;
    let kept = copy?.files().read_bytes("note").await?;
    same_bytes(kept, "kept", "in the copy")?;
    same(removed, true, "the first removal")?;
    same(forget(case, &snapshot.id).await?, false, "the second")?;
    let left: Vec<_> = templates.list().try_collect().await?;
    let is_left = left.iter().any(|template| template.id == id);
    ensure(!is_left, "it is still among the templates")?;
    let source = Source::Snapshot(snapshot.id);
    let late = case.create(case.options().source(source)).await;
    refused(late, ErrorKind::NotFound, "a removed snapshot")
}

async fn a_removed_snapshot_stays_for_those_who_use_it(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sh(&*sandbox, "mkdir d; echo kept > d/note").await?;
    let snapshot = keep(case, &*sandbox).await?;
    let copy = from(case, Source::Snapshot(snapshot.id.clone())).await?;
    forget(case, &snapshot.id).await?;
    sandbox.kill().await?;
    let second = fork(case, copy.id()).await?;
    copy.kill().await?;
    let seen = sh(&*second, "cat d/note; echo more >> d/note; cat d/note").await?;
    same(seen.as_str(), "kept\nkept\nmore", "in a fork of the copy")
}

async fn a_fork_goes_its_own_way(case: &Case) -> Result {
    let parent = case.sandbox().await?;
    parent.files().write_bytes("note", "both").await?;
    let child = fork(case, parent.id()).await?;
    let read = child.files().read_bytes("note").await?;
    same_bytes(read, "both", "in the fork")?;
    child.files().write_bytes("note", "child").await?;
    parent.files().write_bytes("other", "parent").await?;
    let read = parent.files().read_bytes("note").await?;
    same_bytes(read, "both", "in the parent")?;
    let other = child.files().read_bytes("other").await;
    refused(other, ErrorKind::NotFound, "what the parent wrote later")?;
    parent.kill().await?;
    let read = child.files().read_bytes("note").await?;
    same_bytes(read, "child", "after the parent's end")
}

async fn a_fork_of_nothing_is_not_found(case: &Case) -> Result {
    let source = Source::Fork(SandboxId::new("conformance-no-such-sandbox"));
    let made = case.create(case.options().source(source)).await;
    refused(made, ErrorKind::SandboxNotFound, "a fork of nothing")
}

async fn forks_at_once_are_of_one_moment(case: &Case) -> Result {
    let parent = case.sandbox().await?;
    let script = "n=0; echo ready; while :; do n=$((n + 1)); echo $n > new; mv new count; done";
    let mut command = start(&*parent, Command::shell(script)).await?;
    command.until("ready\n").await?;
    let provider = case.provider();
    let forks = provider.fork(parent.id(), 3, case.options()).await?;
    forks.iter().for_each(|fork| case.kill_at_end(fork.id()));
    same(forks.len(), 3, "forks")?;
    let mut counts = BTreeSet::new();
    for fork in &forks {
        counts.insert(sh(&**fork, "cat count 2>/dev/null || echo none").await?);
    }
    same(counts.len(), 1, format_args!("states among {counts:?}"))?;
    let named = case.options().name("one-name-for-all");
    let named = provider.fork(parent.id(), 2, named).await;
    refused(named, ErrorKind::InvalidArgument, "two forks of one name")
}

async fn forks_of_forks_keep_all_changes(case: &Case) -> Result {
    const GENERATIONS: usize = 12;
    let mut parent = case.sandbox().await?;
    let mut expected = String::new();
    for number in 0..GENERATIONS {
        let script = format!(
            "echo {number} >> all; rm -f last-*; touch last-{number}; mkdir -p d{number}; rm -rf d0"
        );
        sh(&*parent, &script).await?;
        expected += &format!("{number}\n");
        let child = fork(case, parent.id()).await?;
        parent.kill().await?;
        parent = child;
    }
    let seen = sh(
        &*parent,
        "cat all; ls -d last-* d0 d1 d11 2>/dev/null; exit 0",
    )
    .await?;
    expected += "d1\nd11\nlast-11";
    same(seen, expected, "after all generations")
}

async fn changes_of_every_kind_are_kept(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let make = "set -e; umask 022; \
        echo one > one; ln one two; ln -s one link; ln -s /nowhere dangling; mkdir -p deep/er empty; mkfifo pipe; \
        chmod 640 one; chmod 1777 empty; touch -d @1000000000.5 deep/er/old; \
        truncate -s 20M holes; printf x | dd of=holes bs=1 seek=10000000 conv=notrunc 2>/dev/null; \
        printf 'a\\nb' > 'odd name'; : > void";
    sh(&*sandbox, make).await?;
    let look = "stat -c '%n %F %a %h %s %Y' one two link dangling deep deep/er deep/er/old empty pipe holes 'odd name' void; \
        readlink link dangling; cat one 'odd name'; cksum < holes; [ one -ef two ] && echo same; \
        [ $(stat -c %b holes) -lt 1000 ] && echo sparse; ls -A";
    let before = sh(&*sandbox, look).await?;
    let copy = fork(case, sandbox.id()).await?;
    same(sh(&*copy, look).await?, before.as_str(), "in the fork")?;
    let change = "rm -r deep one; mkdir one; mv empty full; rm link";
    sh(&*copy, change).await?;
    let changed = sh(&*copy, "ls -AF; ls -A full one").await?;
    let second = fork(case, copy.id()).await?;
    same(
        sh(&*second, "ls -AF; ls -A full one").await?,
        changed,
        "after removals",
    )?;
    same(
        sh(&*sandbox, look).await?,
        before.as_str(),
        "in the original",
    )
}

async fn a_snapshot_disturbs_no_command(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script =
        "n=0; echo ready; while [ ! -e stop ]; do n=$((n + 1)); echo $n > count; done; echo done";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    let snapshot = keep(case, &*sandbox).await?;
    let copy = from(case, Source::Snapshot(snapshot.id.clone())).await;
    forget(case, &snapshot.id).await?;
    // What ran in the sandbox runs there only.
    let running = sh(
        &*copy?,
        "ps -e -o args= 2>/dev/null | grep -c '[w]hile' || true",
    )
    .await?;
    same(running.trim(), "0", "loops in the copy")?;
    let count = "cat count";
    let patience = case.patience("the command to go on");
    let first = sh(&*sandbox, count).await?;
    while sh(&*sandbox, count).await? == first {
        patience.rest().await?;
    }
    sandbox.files().write_bytes("stop", "").await?;
    command.until("done\n").await?;
    same(sandbox.info().await?.state, SandboxState::Running, "state")
}

async fn a_paused_sandbox_is_kept_and_stays_paused(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sh(&*sandbox, "echo kept > note").await?;
    sandbox.require_pause()?.pause().await?;
    let child = fork(case, sandbox.id()).await?;
    same(
        sandbox.info().await?.state,
        SandboxState::Paused,
        "its state",
    )?;
    same(
        sh(&*child, "cat note").await?.as_str(),
        "kept",
        "in the fork",
    )?;
    sandbox.require_pause()?.resume().await?;
    same(sh(&*sandbox, "cat note").await?.as_str(), "kept", "resumed")
}
