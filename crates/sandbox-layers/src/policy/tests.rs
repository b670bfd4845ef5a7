//! Policies around the fake, and as text.

use super::*;
use crate::testing::{Stage, operations};
use futures_util::TryStreamExt;
use proptest::prelude::*;
use sandbox_core::{
    ErrorKind, GlobOptions, Limits, ListFilesOptions, NetworkPolicy, Ownership, ReadOptions,
    RemoveOptions, SandboxPath, Source, StatOptions,
    fake::{FakeProvider, Script},
    prelude::*,
};
use std::time::Duration;

fn config(json: serde_json::Value) -> PolicyConfig {
    serde_json::from_value(json).unwrap()
}

/// A sandbox of a fake below a policy. It has a file `/home/user/a` and a directory `/secret`.
async fn sandbox(config: PolicyConfig) -> (FakeProvider, Arc<dyn Sandbox>) {
    let fake = FakeProvider::new();
    fake.script(Script::any().exit(0));
    let made = fake.create(CreateOptions::new()).await.unwrap();
    let files = made.files();
    files.write_bytes("/home/user/a", "a").await.unwrap();
    files.write_bytes("/secret/b", "b").await.unwrap();
    let provider = fake.clone().layer(config.build().unwrap());
    let sandbox = provider.sandbox(made.id());
    (fake, sandbox)
}

/// The rule that has denied a call; `None` if it was made.
fn rule<T: std::fmt::Debug>(result: Result<T>) -> Option<String> {
    match result {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::PolicyDenied => {
            let rule = error.context("rule").unwrap().to_owned();
            assert!(error.message().contains(&rule) && error.operation().is_some());
            Some(rule)
        }
        // It went through, and failed for a reason of its own.
        Err(_) => None,
    }
}

fn path(text: &str) -> SandboxPath {
    SandboxPath::new(text).unwrap()
}

#[tokio::test]
async fn what_is_denied_never_happens() {
    let allow = PolicyConfig::new(Effect::Allow).build().unwrap();
    let stage = Stage::new(allow).await;
    for operation in operations() {
        stage.call(operation).await.expect(operation);
    }
    // The stage itself needs three calls, and each control its process.
    let opening = ["create", "files.write", "pty.spawn"];
    for denied in operations() {
        if opening.contains(&denied) {
            continue;
        }
        let no = PolicyRule::new("not that", Effect::Deny).operations([denied]);
        let stage = Stage::new(PolicyConfig::new(Effect::Allow).rule(no).build().unwrap()).await;
        let before = stage.fake.calls().len();
        let error = stage.call(denied).await.expect_err(denied);
        assert_eq!(error.kind(), ErrorKind::PolicyDenied, "{denied}");
        assert_eq!(error.operation(), Some(denied));
        assert_eq!(error.context("rule"), Some("not that"));
        assert_eq!(stage.fake.calls().len(), before, "{denied} has been called");
    }
    let yes = PolicyRule::new("opening", Effect::Allow).operations(opening);
    let stage = Stage::new(PolicyConfig::new(Effect::Deny).rule(yes).build().unwrap()).await;
    let before = stage.fake.calls().len();
    for operation in operations() {
        if !opening.contains(&operation) {
            let error = stage.call(operation).await.expect_err(operation);
            assert_eq!(error.context("rule"), Some("default"), "{operation}");
        }
    }
    assert_eq!(stage.fake.calls().len(), before);
}

#[tokio::test]
async fn paths_are_denied_however_they_are_written() {
    let no = PolicyRule::new("secret", Effect::Deny).paths(["/secret"]);
    let config = PolicyConfig::new(Effect::Allow).rule(no);
    let (_, with_home) = sandbox(config.clone().home("/home/user")).await;
    let (_, homeless) = sandbox(config).await;
    for (text, known, unknown) in [
        ("/secret/b", true, true),
        ("//secret/./b", true, true),
        ("/home/../secret/b", true, true),
        ("/secret", true, true),
        ("../../secret/b", true, true),
        ("/secrets", false, false),
        ("/home/user/a", false, false),
        // Without a home it could be anywhere.
        ("a", false, true),
    ] {
        let (text, wanted) = (path(text), |denied: bool| {
            denied.then(|| "secret".to_owned())
        });
        let read = with_home.files().read(&text, ReadOptions::new()).await;
        assert_eq!(rule(read), wanted(known), "{text}");
        let stat = homeless.files().stat(&text, StatOptions::new()).await;
        assert_eq!(rule(stat), wanted(unknown), "{text} without a home");
    }
    let other = ReadOptions::new().user("root");
    let read = with_home.files().read(&path("a"), other).await;
    assert!(
        rule(read).is_some(),
        "the home of another user is not known"
    );
}

#[tokio::test]
async fn what_reaches_into_a_denied_place_is_denied() {
    let no = PolicyRule::new("secret", Effect::Deny).paths(["/secret"]);
    let (_, sandbox) = sandbox(PolicyConfig::new(Effect::Allow).rule(no)).await;
    let files = sandbox.files();
    let (root, a, x) = (path("/"), path("/home/user/a"), path("/x"));
    let (secret, b) = (path("/secret"), path("/secret/b"));
    let glob = |base| {
        files
            .glob(base, "**", GlobOptions::new())
            .try_collect::<Vec<_>>()
    };
    assert!(rule(glob(&root).await).is_some());
    assert!(rule(glob(&path("/home")).await).is_none());
    let list = |depth| {
        let options = ListFilesOptions::new().depth(depth);
        files.list(&root, options).try_collect::<Vec<_>>()
    };
    assert!(rule(list(2u32).await).is_some());
    assert!(rule(list(1u32).await).is_none());
    let all = RemoveOptions::new().recursive(true);
    assert!(rule(files.remove(&root, all).await).is_some());
    for (from, to, denied) in [(&secret, &x, true), (&a, &b, true), (&a, &x, false)] {
        let renamed = files.rename(from, to, Default::default()).await;
        assert_eq!(rule(renamed).is_some(), denied, "{from} to {to}");
    }
    for (link, target, denied) in [
        ("/l1", "/secret/b", true),
        ("/l2", "/", true),
        ("/home/l3", "../secret", true),
        ("/secret/l4", "/home", true),
        ("/home/l5", "user/a", false),
    ] {
        let (link, target) = (path(link), path(target));
        let made = files.symlink(&link, &target, Default::default()).await;
        assert_eq!(rule(made).is_some(), denied, "{link} to {target}");
    }
}

#[tokio::test]
async fn the_first_rule_that_fits_decides() {
    let config = config(serde_json::json!({
        "default": "deny",
        "rules": [
            { "name": "out", "effect": "allow", "access": "write", "paths": ["/out"] },
            { "name": "no writes", "effect": "deny", "access": "write" },
            { "name": "looks", "effect": "allow", "operations": ["files.*"] },
        ],
    }));
    let (_, sandbox) = sandbox(config).await;
    let files = sandbox.files();
    assert_eq!(rule(files.write_bytes("/out/x", "x").await), None);
    assert_eq!(rule(files.read_text("/secret/b").await), None);
    let written = files.write_bytes("/home/x", "x").await;
    assert_eq!(rule(written).as_deref(), Some("no writes"));
    // Where a relative path leads is not known, so that nothing allows it.
    let relative = files.write_bytes("out/x", "x").await;
    assert_eq!(rule(relative).as_deref(), Some("no writes"));
    assert_eq!(rule(sandbox.info().await).as_deref(), Some("default"));
}

#[tokio::test]
async fn programs_are_allowed_by_name_and_denied_by_all_their_names() {
    let commands = |effect, names: &[&str]| {
        let default = match effect {
            Effect::Allow => Effect::Deny,
            _ => Effect::Allow,
        };
        let one = PolicyRule::new("programs", effect).programs(names.iter().copied());
        PolicyConfig::new(default).rule(one)
    };
    let denied = sandbox(commands(Effect::Deny, &["curl", "/usr/bin/wget"]))
        .await
        .1;
    for (program, refused) in [
        ("curl", true),
        ("/opt/curl", true),
        ("./curl", true),
        ("wget", true),
        ("/usr/bin/../bin/wget", true),
        ("/opt/wget", false),
        ("curl2", false),
    ] {
        let ended = denied.exec(Command::new(program)).await;
        assert_eq!(rule(ended).is_some(), refused, "{program}");
    }
    let allowed = sandbox(commands(Effect::Allow, &["git", "/usr/bin/make"]))
        .await
        .1;
    for (command, refused) in [
        (Command::new("git"), false),
        (Command::new("git").env("PATH", "/tmp"), true),
        (Command::new("/tmp/git"), true),
        (Command::new("/usr/bin/make"), false),
        (Command::new("make"), true),
        (Command::shell("git"), true),
    ] {
        let shown = format!("{command:?}");
        assert_eq!(
            rule(allowed.exec(command).await).is_some(),
            refused,
            "{shown}"
        );
    }
    let scripts = PolicyRule::new("no scripts", Effect::Deny).shell(true);
    let (_, sandbox) = sandbox(PolicyConfig::new(Effect::Allow).rule(scripts)).await;
    assert!(rule(sandbox.exec(Command::shell("ls")).await).is_some());
    assert!(rule(sandbox.exec(Command::new("ls")).await).is_none());
}

/// What a provider would be asked for.
fn adjusted(create: serde_json::Value, options: CreateOptions) -> Result<CreateOptions> {
    let config = config(serde_json::json!({ "default": "allow", "create": create }));
    config.build().unwrap().adjust(options)
}

#[test]
fn new_sandboxes_are_held_to_their_rules() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let new = CreateOptions::new;
    let rules = [
        NetworkPolicy::Public,
        NetworkPolicy::Rules {
            rules: Vec::new(),
            default: sandbox_core::NetworkAction::Allow,
        },
    ];
    let [public, ruled] = rules;
    let extensions = sandbox_core::Extensions::from_iter([("x".to_owned(), true.into())]);
    for (create, options, wanted) in [
        (r#"{"templates": ["a"]}"#, new().template("a"), None),
        (
            r#"{"templates": ["a"]}"#,
            new().template("b"),
            Some("create.templates"),
        ),
        (
            r#"{"templates": ["a"]}"#,
            new().source(Source::Snapshot("s".into())),
            Some("create.snapshots"),
        ),
        (
            r#"{"templates": ["a"], "forks": true}"#,
            new().source(Source::Fork("s".into())),
            None,
        ),
        (
            r#"{"forks": false}"#,
            new().source(Source::Fork("s".into())),
            Some("create.forks"),
        ),
        (
            r#"{"networks": ["off"]}"#,
            new().network(public.clone()),
            Some("create.networks"),
        ),
        (
            r#"{"networks": ["off", "public"]}"#,
            new().network(ruled),
            Some("create.networks"),
        ),
        (
            r#"{"networks": ["off", "public"]}"#,
            new().network(public),
            None,
        ),
        (
            r#"{"limits": {"memory": 5}}"#,
            new().limits(Limits::new().memory(6)),
            Some("create.limits.memory"),
        ),
        (
            r#"{"limits": {"cpus": 1.5}}"#,
            new().limits(Limits::new().cpus(2.0)),
            Some("create.limits.cpus"),
        ),
        (
            r#"{"lifetime": 60}"#,
            new().lifetime(Duration::from_secs(61)),
            Some("create.lifetime"),
        ),
        (
            r#"{"lifetime": 60}"#,
            new().lifetime(Duration::from_secs(60)),
            None,
        ),
        (
            r#"{"detached": false}"#,
            new().ownership(Ownership::Detached),
            Some("create.detached"),
        ),
        (r#"{"metadata": ["task"]}"#, new(), Some("create.metadata")),
        (
            r#"{"metadata": ["task"]}"#,
            new().label("task", ""),
            Some("create.metadata"),
        ),
        (r#"{"metadata": ["task"]}"#, new().label("task", "1"), None),
        (
            r#"{"extensions": []}"#,
            new().extensions(extensions.clone()),
            Some("create.extensions"),
        ),
        (
            r#"{"extensions": ["x"]}"#,
            new().extensions(extensions),
            None,
        ),
    ] {
        let result = adjusted(json(create), options.clone());
        let rule = result
            .as_ref()
            .err()
            .and_then(|error| error.context("rule"));
        assert_eq!(rule, wanted, "{create}");
        if wanted.is_none() {
            assert_eq!(result.unwrap(), options, "{create}");
        }
    }
}

#[test]
fn what_is_not_asked_for_is_set() {
    let create = serde_json::json!({
        "templates": ["a", "b"],
        "networks": ["off"],
        "limits": { "memory": 5, "cpus": 0.5 },
        "lifetime": 60,
        "detached": false,
        "excess": "clamp",
    });
    let wanted = CreateOptions::new()
        .template("a")
        .network(NetworkPolicy::Off)
        .limits(Limits::new().memory(5).cpus(0.5))
        .lifetime(Duration::from_secs(60))
        .ownership(Ownership::Owned);
    assert_eq!(
        adjusted(create.clone(), CreateOptions::new()).unwrap(),
        wanted
    );
    let much = Limits::new().memory(6).cpus(0.25).processes(9);
    let options = CreateOptions::new().limits(much).lifetime(Duration::MAX);
    let limits = Limits::new().memory(5).cpus(0.25).processes(9);
    assert_eq!(adjusted(create, options).unwrap(), wanted.limits(limits));
    let nothing = serde_json::json!({});
    assert_eq!(
        adjusted(nothing, CreateOptions::new()).unwrap(),
        CreateOptions::new()
    );
}

#[tokio::test]
async fn a_network_is_held_to_its_list_later_as_well() {
    let rules = serde_json::json!({ "networks": ["off"] });
    let config = config(serde_json::json!({ "default": "allow", "create": rules }));
    let (fake, sandbox) = sandbox(config).await;
    let network = sandbox.require_network().unwrap();
    let set = |policy| network.set_policy(policy, sandbox_core::Existing::Cut);
    assert_eq!(
        rule(set(NetworkPolicy::Public).await).as_deref(),
        Some("create.networks")
    );
    assert_eq!(network.policy().await.unwrap(), NetworkPolicy::Off);
    set(NetworkPolicy::Off).await.unwrap();
    let calls = fake.calls();
    let set = calls
        .iter()
        .filter(|call| call.operation == "network.set_policy");
    assert_eq!(set.count(), 1);
}

#[tokio::test]
async fn a_lifetime_is_held_to_its_ceiling_later_as_well() {
    let config = config(serde_json::json!({ "default": "allow", "create": { "lifetime": 60 } }));
    let (fake, sandbox) = sandbox(config.clone()).await;
    let lifecycle = sandbox.require_lifecycle().unwrap();
    lifecycle
        .set_lifetime(Duration::from_secs(60))
        .await
        .unwrap();
    let longer = lifecycle.set_lifetime(Duration::from_secs(61)).await;
    assert_eq!(rule(longer).as_deref(), Some("create.lifetime"));
    let provider = fake.layer(config.build().unwrap());
    let options = sandbox_core::ConnectOptions::new().lifetime(Duration::from_secs(61));
    let connected = provider.connect(sandbox.id(), options).await;
    assert_eq!(rule(connected).as_deref(), Some("create.lifetime"));
}

#[test]
fn a_file_in_another_format_is_the_same_policy() {
    let toml = r#"
        default = "deny"
        home = "/home/user"

        [[rules]]
        name = "tools"
        effect = "allow"
        programs = ["cargo"]

        [create]
        networks = ["off"]
        limits = { memory = 1024 }
    "#;
    let json = config(serde_json::json!({
        "default": "deny",
        "home": "/home/user",
        "rules": [{ "name": "tools", "effect": "allow", "programs": ["cargo"] }],
        "create": { "networks": ["off"], "limits": { "memory": 1024 } },
    }));
    assert_eq!(toml::from_str::<PolicyConfig>(toml).unwrap(), json);
}

#[test]
fn what_is_not_known_is_an_error() {
    for text in [
        r#"{}"#,
        r#"{"default": "maybe"}"#,
        r#"{"default": "deny", "rule": []}"#,
        r#"{"default": "deny", "rules": [{"name": "a"}]}"#,
        r#"{"default": "deny", "rules": [{"name": "a", "effect": "deny", "path": ["/"]}]}"#,
        r#"{"default": "deny", "create": {"limits": {"memroy": 5}}}"#,
        r#"{"default": "deny", "create": {"network": ["off"]}}"#,
        r#"{"default": "deny", "create": {"networks": ["none"]}}"#,
    ] {
        assert!(
            serde_json::from_str::<PolicyConfig>(text).is_err(),
            "{text}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_rule() {
    let rule = |rule: serde_json::Value| {
        let mut rule = rule;
        rule["effect"] = "deny".into();
        config(serde_json::json!({ "default": "allow", "rules": [rule] }))
    };
    let create = |create| config(serde_json::json!({ "default": "allow", "create": create }));
    let twice = PolicyRule::new("a", Effect::Deny);
    for (config, named) in [
        (rule(serde_json::json!({ "name": "" })), ""),
        (rule(serde_json::json!({ "name": "default" })), "default"),
        (rule(serde_json::json!({ "name": "create.x" })), "create.x"),
        (
            rule(serde_json::json!({ "name": "a", "operations": ["file.read"] })),
            "a",
        ),
        (
            rule(serde_json::json!({ "name": "a", "operations": ["fi*"] })),
            "a",
        ),
        (
            rule(serde_json::json!({ "name": "a", "operations": ["nothing.*"] })),
            "a",
        ),
        (
            rule(serde_json::json!({ "name": "a", "operations": ["*"] })),
            "a",
        ),
        (
            rule(serde_json::json!({ "name": "a", "paths": ["relative"] })),
            "a",
        ),
        (rule(serde_json::json!({ "name": "a", "paths": [""] })), "a"),
        (
            rule(serde_json::json!({ "name": "a", "programs": [""] })),
            "a",
        ),
        (
            rule(serde_json::json!({ "name": "a", "programs": ["x"], "paths": ["/x"] })),
            "a",
        ),
        (
            rule(serde_json::json!({ "name": "a", "programs": ["x"], "shell": true })),
            "a",
        ),
        (
            PolicyConfig::new(Effect::Allow)
                .rule(twice.clone())
                .rule(twice),
            "a",
        ),
        (PolicyConfig::new(Effect::Allow).home("home"), "home"),
        (
            create(serde_json::json!({ "templates": [] })),
            "create.templates",
        ),
        (
            create(serde_json::json!({ "networks": [] })),
            "create.networks",
        ),
        (
            create(serde_json::json!({ "networks": ["rules"] })),
            "create.networks",
        ),
        (
            create(serde_json::json!({ "limits": { "cpus": -1.0 } })),
            "create.limits",
        ),
        (
            create(serde_json::json!({ "lifetime": 0 })),
            "create.limits",
        ),
    ] {
        let error = config.clone().build().expect_err(named);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{config:?}");
        assert_eq!(error.context("rule"), Some(named), "{config:?}");
    }
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
    let access = prop_oneof![Just(Access::Read), Just(Access::Write)];
    let text = || prop::collection::vec("\\PC{0,12}", 0..3);
    let parts = (
        "\\PC{0,12}",
        effect,
        text(),
        text(),
        any::<Option<bool>>(),
        text(),
        prop::option::of(access),
    );
    parts.prop_map(
        |(name, effect, operations, programs, shell, paths, access)| PolicyRule {
            name,
            effect,
            operations,
            programs,
            shell,
            paths,
            access,
        },
    )
}

proptest! {
    #[test]
    fn any_text_is_a_policy_or_an_error(text in "\\PC{0,200}") {
        if let Ok(config) = serde_json::from_str::<PolicyConfig>(&text) {
            let _built = config.build();
        }
    }

    #[test]
    fn a_policy_survives_being_written_down(rules in prop::collection::vec(any_rule(), 0..4), home in any::<Option<String>>(), memory in any::<Option<u64>>()) {
        let mut config = PolicyConfig::new(Effect::Allow);
        (config.rules, config.home, config.create.limits.memory) = (rules, home, memory);
        let text = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(serde_json::from_str::<PolicyConfig>(&text).unwrap(), config.clone());
        // Whatever it says, it is a layer or an error that names the rule.
        if let Err(error) = config.build() {
            prop_assert!(error.context("rule").is_some());
        }
    }

    #[test]
    fn no_spelling_of_a_denied_path_gets_through(detours in prop::collection::vec("(/\\.|/|/[a-z]{1,3}/\\.\\.){0,3}", 3)) {
        let no = PolicyRule::new("no", Effect::Deny).paths(["/a/b"]);
        let rules = Rules::new(PolicyConfig::new(Effect::Allow).rule(no));
        let text = format!("{}/a{}/b{}/c", detours[0], detours[1], detours[2]);
        let (path, options) = (path(&text), ReadOptions::new());
        let call = Call::new(crate::Kind::Files, "files.read");
        let call = call.with(crate::Arguments::Read(&path, &options));
        prop_assert!(rules.check(call).is_err(), "{}", text);
    }
}
