//! Making, finding and ending sandboxes, and handles to those that are gone.

use crate::{
    case::{Case, path},
    failure::{Result, Stop, ensure, refused, same, same_bytes},
    process::start,
    spec::cases,
};
use futures_util::{TryStreamExt, future::try_join_all};
use sandbox_core::{
    Capabilities, Command, ConnectOptions, CreateOptions, Error, ErrorKind, FilesExt,
    ListFilesOptions, ListOptions, MkdirOptions, PermissionOptions, Position, ProcessId,
    ReadOptions, RemoveOptions, RenameOptions, Sandbox, SandboxId, SandboxState, StatOptions,
    TemplateInfo, WriteOptions,
};
use std::{collections::BTreeSet, time::Duration};

cases! { "provider":
    flags_agree_with_accessors,
    enforcement_names_each_wall_once,
    sandboxes_have_ids_of_their_own,
    sandboxes_do_not_share_files,
    many_sandboxes_at_once,
    info_of_a_new_sandbox,
    a_handle_by_id_works,
    connect_reaches_a_living_sandbox,
    connect_to_a_missing_sandbox_is_sandbox_not_found,
    a_handle_to_a_missing_sandbox_is_made_without_looking,
    ids_that_are_no_ids_name_no_sandbox,
    kill_of_a_missing_sandbox_is_false,
    kill_twice_is_false,
    kill_by_id,
    every_call_after_kill_is_sandbox_not_found,
    kill_ends_the_streams_of_its_commands [Shell],
    dropping_handles_keeps_the_sandbox,
    list_shows_the_living_oldest_first,
    list_takes_only_those_with_all_labels,
    templates_have_names_of_their_own [Templates],
    every_name_of_the_first_template_starts_a_sandbox [Templates],
}

fn missing() -> SandboxId {
    SandboxId::new("conformance-no-such-sandbox")
}

async fn flags_agree_with_accessors(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let flags = |capabilities: Capabilities| {
        [
            ("pty", capabilities.pty),
            ("attach", capabilities.attach),
            ("lifecycle", capabilities.lifecycle),
            ("pause", capabilities.pause),
            ("snapshots", capabilities.snapshots),
            ("ports", capabilities.ports),
            ("previews", capabilities.previews),
            ("network", capabilities.network),
            ("watch", capabilities.watch),
            ("metrics", capabilities.metrics),
        ]
    };
    let accessors = [
        ("pty", sandbox.pty().is_some()),
        ("attach", sandbox.attach().is_some()),
        ("lifecycle", sandbox.lifecycle().is_some()),
        ("pause", sandbox.pause().is_some()),
        ("snapshots", sandbox.snapshots().is_some()),
        ("ports", sandbox.ports().is_some()),
        ("previews", sandbox.previews().is_some()),
        ("network", sandbox.network().is_some()),
        ("watch", sandbox.watch().is_some()),
        ("metrics", sandbox.metrics().is_some()),
    ];
    same(
        flags(sandbox.capabilities()),
        accessors,
        "flags of the sandbox",
    )?;
    same(
        flags(case.capabilities()),
        accessors,
        "flags of the provider",
    )?;
    let (flag, accessor) = (case.capabilities().templates, case.provider().templates());
    same(flag, accessor.is_some(), "the flag of templates")
}

async fn enforcement_names_each_wall_once(case: &Case) -> Result {
    let report = case.provider().enforcement(&case.options());
    let names: BTreeSet<_> = report.walls.iter().map(|wall| &wall.name).collect();
    same(
        names.len(),
        report.walls.len(),
        "walls with a name of their own",
    )?;
    for wall in &report.walls {
        ensure(!wall.name.is_empty(), "a wall has no name")?;
        let told = !wall.detail.trim().is_empty();
        ensure(told, format_args!("wall `{}` has no detail", wall.name))?;
    }
    Ok(())
}

async fn sandboxes_have_ids_of_their_own(case: &Case) -> Result {
    let (one, two) = (case.sandbox().await?, case.sandbox().await?);
    ensure(!one.id().as_str().is_empty(), "the id is empty")?;
    ensure(one.id() != two.id(), "two sandboxes have one id")
}

async fn sandboxes_do_not_share_files(case: &Case) -> Result {
    let (one, two) = (case.sandbox().await?, case.sandbox().await?);
    for name in ["private", "/tmp/private"] {
        one.files().write_bytes(name, "one").await?;
        let seen = two.files().exists(name).await?;
        ensure(!seen, format_args!("{name} of one sandbox is in the other"))?;
        two.files().write_bytes(name, "two").await?;
        let kept = one.files().read_bytes(name).await?;
        same_bytes(
            kept,
            "one",
            format_args!("{name} after the other wrote its own"),
        )?;
    }
    Ok(())
}

async fn many_sandboxes_at_once(case: &Case) -> Result {
    let made = try_join_all((0..8).map(|_| case.create(case.options()))).await?;
    let ids: BTreeSet<_> = made.iter().map(|sandbox| sandbox.id().clone()).collect();
    same(ids.len(), made.len(), "ids of sandboxes made at once")?;
    let writes = made
        .iter()
        .map(|sandbox| sandbox.files().write_bytes("id", sandbox.id().to_string()));
    try_join_all(writes).await?;
    for sandbox in &made {
        let text = sandbox.files().read_text("id").await?;
        same(text, sandbox.id().to_string(), "the sandbox's own file")?;
    }
    let killed = try_join_all(made.iter().map(|sandbox| sandbox.kill())).await?;
    ensure(killed.iter().all(|killed| *killed), "a kill was false")
}

async fn info_of_a_new_sandbox(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let info = sandbox.info().await?;
    same(&info.id, sandbox.id(), "id")?;
    same(info.state, SandboxState::Running, "state")?;
    if let (Some(created), Some(expires)) = (info.created_at, info.expires_at) {
        ensure(created < expires, "it expires before it was made")?;
    }
    Ok(())
}

async fn a_handle_by_id_works(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let handle = case.provider().sandbox(sandbox.id());
    same(handle.id(), sandbox.id(), "the handle's id")?;
    same(
        handle.capabilities(),
        sandbox.capabilities(),
        "the handle's capabilities",
    )?;
    sandbox.files().write_bytes("note", "here").await?;
    same_bytes(
        handle.files().read_bytes("note").await?,
        "here",
        "through the handle",
    )?;
    same(handle.info().await?.id, sandbox.id().clone(), "info's id")
}

async fn connect_reaches_a_living_sandbox(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("note", "here").await?;
    let again = case
        .provider()
        .connect(sandbox.id(), ConnectOptions::new())
        .await?;
    same(again.id(), sandbox.id(), "the connected sandbox's id")?;
    same_bytes(
        again.files().read_bytes("note").await?,
        "here",
        "through the connection",
    )
}

async fn connect_to_a_missing_sandbox_is_sandbox_not_found(case: &Case) -> Result {
    let result = case
        .provider()
        .connect(&missing(), ConnectOptions::new())
        .await;
    refused(result, ErrorKind::SandboxNotFound, "connect")
}

async fn a_handle_to_a_missing_sandbox_is_made_without_looking(case: &Case) -> Result {
    let handle = case.provider().sandbox(&missing());
    same(handle.id(), &missing(), "the handle's id")?;
    nothing_is_there(&*handle).await
}

async fn ids_that_are_no_ids_name_no_sandbox(case: &Case) -> Result {
    let long = "x".repeat(100_000);
    for id in [
        "",
        ".",
        "..",
        "/",
        "../../etc",
        "a/../b",
        "a\0b",
        "a\nb",
        "%2e%2e",
        "?*",
        &long,
    ] {
        let id = SandboxId::new(id);
        let shown: String = id.as_str().escape_debug().take(20).collect();
        let handle = case.provider().sandbox(&id);
        refused(
            handle.info().await,
            ErrorKind::SandboxNotFound,
            format_args!("info of {shown:?}"),
        )?;
        let connected = case.provider().connect(&id, ConnectOptions::new()).await;
        refused(
            connected,
            ErrorKind::SandboxNotFound,
            format_args!("connect to {shown:?}"),
        )?;
        let killed = case.provider().kill(&id).await?;
        same(killed, false, format_args!("kill of {shown:?}"))?;
    }
    Ok(())
}

async fn kill_of_a_missing_sandbox_is_false(case: &Case) -> Result {
    same(
        case.provider().kill(&missing()).await?,
        false,
        "kill by the provider",
    )?;
    let handle = case.provider().sandbox(&missing());
    same(handle.kill().await?, false, "kill by a handle")
}

async fn kill_twice_is_false(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    same(sandbox.kill().await?, true, "the first kill")?;
    same(sandbox.kill().await?, false, "the second kill")?;
    same(
        case.provider().kill(sandbox.id()).await?,
        false,
        "the third, by id",
    )
}

async fn kill_by_id(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    same(
        case.provider().kill(sandbox.id()).await?,
        true,
        "the first kill",
    )?;
    same(
        sandbox.kill().await?,
        false,
        "the second kill, by the handle",
    )?;
    let connected = case
        .provider()
        .connect(sandbox.id(), ConnectOptions::new())
        .await;
    refused(connected, ErrorKind::SandboxNotFound, "connect after kill")
}

async fn every_call_after_kill_is_sandbox_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("file", "text").await?;
    sandbox.kill().await?;
    nothing_is_there(&*sandbox).await?;
    nothing_is_there(&*case.provider().sandbox(sandbox.id())).await
}

/// Every call must say that the sandbox is missing, and never that a file is.
async fn nothing_is_there(sandbox: &dyn Sandbox) -> Result {
    const GONE: ErrorKind = ErrorKind::SandboxNotFound;
    refused(sandbox.info().await, GONE, "info")?;
    refused(sandbox.spawn(Command::new("true")).await, GONE, "spawn")?;
    let (files, file, other) = (sandbox.files(), path("file")?, path("other")?);
    refused(
        files.read(&file, ReadOptions::new()).await,
        GONE,
        "files.read",
    )?;
    let written = files.write(&file, "text".into(), WriteOptions::new()).await;
    refused(written, GONE, "files.write")?;
    refused(
        files.stat(&file, StatOptions::new()).await,
        GONE,
        "files.stat",
    )?;
    refused(
        files.mkdir(&file, MkdirOptions::new()).await,
        GONE,
        "files.mkdir",
    )?;
    refused(
        files.remove(&file, RemoveOptions::new()).await,
        GONE,
        "files.remove",
    )?;
    let renamed = files.rename(&file, &other, RenameOptions::new()).await;
    refused(renamed, GONE, "files.rename")?;
    let changed = files
        .set_permissions(&file, PermissionOptions::new().mode(0o600u32))
        .await;
    refused(changed, GONE, "files.set_permissions")?;
    let listed: sandbox_core::Result<Vec<_>> = files
        .list(&file, ListFilesOptions::new())
        .try_collect()
        .await;
    refused(listed, GONE, "files.list")?;
    let found: sandbox_core::Result<Vec<_>> = files
        .glob(&file, "*", Default::default())
        .try_collect()
        .await;
    refused(found, GONE, "files.glob")?;
    if let Some(pty) = sandbox.pty() {
        let spawned = pty.spawn(Command::new("true"), Default::default()).await;
        refused(spawned, GONE, "pty.spawn")?;
    }
    if let Some(attach) = sandbox.attach() {
        refused(attach.processes().await, GONE, "attach.processes")?;
        let attached = attach.attach(&ProcessId::new("1"), Position::Now).await;
        refused(attached, GONE, "attach.attach")?;
    }
    if let Some(lifecycle) = sandbox.lifecycle() {
        let set = lifecycle.set_lifetime(Duration::from_secs(60)).await;
        refused(set, GONE, "lifecycle.set_lifetime")?;
    }
    Ok(())
}

async fn kill_ends_the_streams_of_its_commands(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut command = start(&*sandbox, Command::shell("echo ready; sleep 1000")).await?;
    command.until("ready\n").await?;
    same(sandbox.kill().await?, true, "kill")?;
    match command.process.wait().await {
        Ok(status) => same(
            status.code(),
            137,
            "the exit of a command whose sandbox was killed",
        ),
        error => refused(
            error,
            ErrorKind::SandboxNotFound,
            "a stream of a killed sandbox",
        ),
    }
}

async fn dropping_handles_keeps_the_sandbox(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.files().write_bytes("note", "here").await?;
    let id = sandbox.id().clone();
    drop(sandbox);
    let handle = case.provider().sandbox(&id);
    same_bytes(
        handle.files().read_bytes("note").await?,
        "here",
        "after the handle was dropped",
    )
}

async fn listed(case: &Case, labels: &[(&str, &str)]) -> Result<Vec<SandboxId>> {
    let labels: std::collections::BTreeMap<_, _> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let options = ListOptions::new().metadata(labels.clone());
    let infos: Vec<_> = case.provider().list(options).try_collect().await?;
    for info in &infos {
        let carries = labels
            .iter()
            .all(|(key, value)| info.metadata.get(key) == Some(value));
        ensure(
            carries,
            format_args!("{:?} lacks a label of the filter", info),
        )?;
    }
    Ok(infos.into_iter().map(|info| info.id).collect())
}

fn labelled(case: &Case, labels: &[(&str, &str)]) -> CreateOptions {
    let label = |options: CreateOptions, (key, value): &(&str, &str)| options.label(*key, *value);
    labels.iter().fold(case.options(), label)
}

async fn list_shows_the_living_oldest_first(case: &Case) -> Result {
    let labels = [("conformance", case.label())];
    same(listed(case, &labels).await?, vec![], "before there is one")?;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(case.sandbox_with(labelled(case, &labels)).await?);
    }
    let ids: Vec<_> = made.iter().map(|sandbox| sandbox.id().clone()).collect();
    same(listed(case, &labels).await?, ids.clone(), "oldest first")?;
    made[1].kill().await?;
    same(
        listed(case, &labels).await?,
        vec![ids[0].clone(), ids[2].clone()],
        "after a kill",
    )?;
    let all: Vec<_> = case
        .provider()
        .list(ListOptions::new())
        .try_collect()
        .await?;
    let living = all.iter().filter(|info| ids.contains(&info.id)).count();
    same(living, 2, "in the list of all")
}

async fn list_takes_only_those_with_all_labels(case: &Case) -> Result {
    let run = ("conformance", case.label());
    let one = case
        .sandbox_with(labelled(case, &[run, ("colour", "red")]))
        .await?;
    let two = case
        .sandbox_with(labelled(case, &[run, ("colour", "blue")]))
        .await?;
    let found = listed(case, &[run, ("colour", "blue")]).await?;
    same(found, vec![two.id().clone()], "one colour")?;
    let both = listed(case, &[run]).await?;
    same(
        both,
        vec![one.id().clone(), two.id().clone()],
        "both colours",
    )?;
    same(
        listed(case, &[run, ("colour", "")]).await?,
        vec![],
        "an empty value",
    )?;
    same(
        listed(case, &[run, ("size", "red")]).await?,
        vec![],
        "another key",
    )
}

async fn templates(case: &Case) -> Result<Vec<TemplateInfo>> {
    let templates = case.provider().templates();
    let templates = templates.ok_or_else(|| Error::unsupported("templates"))?;
    Ok(templates.list().try_collect().await?)
}

async fn templates_have_names_of_their_own(case: &Case) -> Result {
    let templates = templates(case).await?;
    ensure(!templates.is_empty(), "there is no template")?;
    let names = |template: &TemplateInfo| {
        let id = [template.id.clone()];
        id.into_iter().chain(template.aliases.clone())
    };
    let all: Vec<_> = templates.iter().flat_map(names).collect();
    let unique: BTreeSet<_> = all.iter().collect();
    same(unique.len(), all.len(), "names that come once")?;
    ensure(
        all.iter().all(|name| !name.as_str().is_empty()),
        "a template has an empty name",
    )
}

async fn every_name_of_the_first_template_starts_a_sandbox(case: &Case) -> Result {
    let Some(first) = templates(case).await?.into_iter().next() else {
        return Err(Stop::failed("there is no template"));
    };
    for name in [&first.id].into_iter().chain(&first.aliases) {
        let sandbox = case.create(case.options().template(name.clone())).await?;
        let shown = sandbox.info().await?.template;
        let shown = shown.unwrap_or_else(|| first.id.clone());
        same(shown, first.id.clone(), format_args!("made from {name}"))?;
    }
    Ok(())
}
