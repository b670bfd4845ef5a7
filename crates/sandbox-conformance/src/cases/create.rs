//! What may be asked for with `create`, and what is refused before anything happens.

use crate::{
    case::Case,
    failure::{Result, ensure, refused, same},
    process::sh,
    spec::cases,
};
use futures_util::TryStreamExt;
use sandbox_core::{
    ConnectOptions, CreateOptions, ErrorKind, Expiry, FilesExt, Limits, ListOptions, Ownership,
    SandboxInfo, SnapshotId, Source,
};
use std::{collections::BTreeMap, time::Duration};

cases! { "create":
    unknown_extension_is_unsupported_and_makes_nothing,
    unknown_template_is_not_found,
    unknown_snapshot_is_refused,
    senseless_options_are_invalid,
    a_name_is_unique_among_the_living,
    metadata_comes_back_as_it_was,
    env_reaches_every_command [Shell],
    lifetime_ends_the_sandbox,
    lifetime_shows_in_info,
    detached_is_honoured_or_refused,
    owned_ends_with_its_provider_value,
    detached_outlives_its_provider_value [Detached],
}

fn labels(case: &Case) -> BTreeMap<String, String> {
    BTreeMap::from([("conformance".to_owned(), case.label().to_owned())])
}

/// Options whose sandbox could be found by [`left`].
fn marked(case: &Case) -> CreateOptions {
    case.options().metadata(labels(case))
}

/// What was made with [`marked`] options and lives.
async fn left(case: &Case) -> Result<Vec<SandboxInfo>> {
    let options = ListOptions::new().metadata(labels(case));
    Ok(case.provider().list(options).try_collect().await?)
}

async fn unknown_extension_is_unsupported_and_makes_nothing(case: &Case) -> Result {
    let extension = (
        "conformance.no_such_setting".to_owned(),
        serde_json::Value::Bool(true),
    );
    let options = marked(case).extensions([extension].into_iter().collect::<BTreeMap<_, _>>());
    let result = case.create(options).await;
    refused(result, ErrorKind::Unsupported, "an unknown extension")?;
    same(
        left(case).await?,
        vec![],
        "sandboxes made by a refused call",
    )
}

async fn unknown_template_is_not_found(case: &Case) -> Result {
    for template in ["conformance-no-such-template", "", "../../etc", "a\0b"] {
        let result = case.create(marked(case).template(template)).await;
        refused(
            result,
            ErrorKind::NotFound,
            format_args!("template {template:?}"),
        )?;
    }
    same(
        left(case).await?,
        vec![],
        "sandboxes made by a refused call",
    )
}

async fn unknown_snapshot_is_refused(case: &Case) -> Result {
    let source = Source::Snapshot(SnapshotId::new("conformance-no-such-snapshot"));
    let kind = match case.capabilities().snapshots {
        true => ErrorKind::NotFound,
        false => ErrorKind::Unsupported,
    };
    refused(
        case.create(marked(case).source(source)).await,
        kind,
        "an unknown snapshot",
    )?;
    same(
        left(case).await?,
        vec![],
        "sandboxes made by a refused call",
    )
}

async fn senseless_options_are_invalid(case: &Case) -> Result {
    let senseless = [
        ("zero lifetime", marked(case).lifetime(Duration::ZERO)),
        (
            "zero idle timeout",
            marked(case).idle_timeout(Duration::ZERO),
        ),
        ("no memory", marked(case).limits(Limits::new().memory(0))),
        ("no cpus", marked(case).limits(Limits::new().cpus(0.0))),
        (
            "negative cpus",
            marked(case).limits(Limits::new().cpus(-1.0)),
        ),
        (
            "cpus that are no number",
            marked(case).limits(Limits::new().cpus(f64::NAN)),
        ),
        (
            "no processes",
            marked(case).limits(Limits::new().processes(0)),
        ),
        ("no disk", marked(case).limits(Limits::new().disk(0))),
        ("no files", marked(case).limits(Limits::new().inodes(0))),
        ("an empty variable name", marked(case).env_var("", "value")),
        (
            "`=` in a variable name",
            marked(case).env_var("A=B", "value"),
        ),
        (
            "NUL in a variable name",
            marked(case).env_var("A\0B", "value"),
        ),
        ("NUL in a variable", marked(case).env_var("A", "val\0ue")),
        (
            "an enormous environment",
            marked(case).env_var("A", "x".repeat(CreateOptions::MAX_ENV)),
        ),
        (
            "an enormous label",
            marked(case).label("A", "x".repeat(CreateOptions::MAX_METADATA)),
        ),
    ];
    for (what, options) in senseless {
        // Also where the option as such is not supported: what makes no sense is found first.
        let created = case.create(options).await;
        refused(created, ErrorKind::InvalidArgument, what)?;
    }
    same(left(case).await?, vec![], "sandboxes made by refused calls")
}

async fn a_name_is_unique_among_the_living(case: &Case) -> Result {
    let named = || case.options().name(case.label());
    let first = case.sandbox_with(named()).await?;
    same(
        first.info().await?.name.as_deref(),
        Some(case.label()),
        "the name in its info",
    )?;
    refused(
        case.create(named()).await,
        ErrorKind::AlreadyExists,
        "the same name again",
    )?;
    first.kill().await?;
    case.create(named()).await?;
    Ok(())
}

async fn metadata_comes_back_as_it_was(case: &Case) -> Result {
    let values = [
        "",
        "plain",
        "white space\tand\nlines",
        "\"quotes\" \\ {json: 1}",
        "ü 漢 🦀",
    ];
    let number = |(index, value): (usize, &&str)| (format!("key{index}"), (*value).to_owned());
    let labels: BTreeMap<_, _> = values.iter().enumerate().map(number).collect();
    let sandbox = case
        .sandbox_with(case.options().metadata(labels.clone()))
        .await?;
    let info = sandbox.info().await?;
    for (key, value) in labels {
        same(
            info.metadata.get(&key),
            Some(&value),
            format_args!("label {key}"),
        )?;
    }
    Ok(())
}

async fn env_reaches_every_command(case: &Case) -> Result {
    let options = case.options().env_var("FROM_CREATE", "a b\n$HOME");
    let sandbox = case.sandbox_with(options).await?;
    for _ in 0..2 {
        let value = sh(&*sandbox, "printf %s \"$FROM_CREATE\"").await?;
        same(value, "a b\n$HOME", "the variable")?;
    }
    Ok(())
}

async fn lifetime_ends_the_sandbox(case: &Case) -> Result {
    let options = case
        .options()
        .lifetime(Duration::from_secs(3))
        .on_expiry(Expiry::Kill);
    let sandbox = case.sandbox_with(options).await?;
    let patience = case.patience("the end of a lifetime of three seconds");
    loop {
        match sandbox.info().await {
            Ok(_) => patience.rest().await?,
            error => {
                refused(error, ErrorKind::SandboxNotFound, "info after the end")?;
                break;
            }
        }
    }
    same(sandbox.kill().await?, false, "kill after the end")
}

async fn lifetime_shows_in_info(case: &Case) -> Result {
    let lifetime = Duration::from_secs(200);
    let sandbox = case.sandbox_with(case.options().lifetime(lifetime)).await?;
    let info = sandbox.info().await?;
    if let (Some(created), Some(expires)) = (info.created_at, info.expires_at) {
        let lives = expires.duration_since(created).unwrap_or_default();
        let slack = Duration::from_secs(100);
        let near = lives > lifetime - slack && lives < lifetime + slack;
        ensure(
            near,
            format_args!("asked for {lifetime:?}, info says {lives:?}"),
        )?;
    }
    Ok(())
}

async fn detached_is_honoured_or_refused(case: &Case) -> Result {
    let result = case
        .create(marked(case).ownership(Ownership::Detached))
        .await;
    if case.capabilities().detached {
        let info = result?.info().await?;
        let owner = info.ownership.unwrap_or(Ownership::Detached);
        return same(owner, Ownership::Detached, "the ownership in its info");
    }
    refused(result, ErrorKind::Unsupported, "a detached sandbox")?;
    same(
        left(case).await?,
        vec![],
        "sandboxes made by a refused call",
    )
}

async fn owned_ends_with_its_provider_value(case: &Case) -> Result {
    let owner = case.another_provider().await?;
    let made = owner
        .create(case.options().ownership(Ownership::Owned))
        .await;
    if let Err(error) = &made
        && error.kind() == ErrorKind::Unsupported
    {
        return Err(crate::failure::Stop::Ignored(error.to_string()));
    }
    let sandbox = made?;
    let id = sandbox.id().clone();
    case.kill_at_end(&id);
    sandbox.files().write_bytes("note", "here").await?;
    drop((sandbox, owner));
    let patience = case.patience("the end of a sandbox whose owner was dropped");
    loop {
        match case.provider().connect(&id, ConnectOptions::new()).await {
            Ok(_) => patience.rest().await?,
            error => return refused(error, ErrorKind::SandboxNotFound, "connect after the end"),
        }
    }
}

async fn detached_outlives_its_provider_value(case: &Case) -> Result {
    let maker = case.another_provider().await?;
    let options = case
        .options()
        .ownership(Ownership::Detached)
        .lifetime(Duration::from_secs(300));
    let sandbox = maker.create(options).await?;
    let id = sandbox.id().clone();
    case.kill_at_end(&id);
    sandbox.files().write_bytes("note", "here").await?;
    drop((sandbox, maker));
    let found = case.provider().connect(&id, ConnectOptions::new()).await?;
    same(
        found.files().read_text("note").await?,
        "here",
        "after its maker was dropped",
    )
}
