//! Decides calls and options by the rules of a policy.

use super::{
    config::{Access, CreateRules, Effect, Excess, Network, PolicyConfig, PolicyRule},
    path,
};
use crate::{Arguments, Call};
use sandbox_core::{
    Command, CreateOptions, Error, ErrorKind, NetworkPolicy, Ownership, Program, Result,
    SandboxPath, Source,
};
use std::{collections::BTreeMap, time::Duration};

type Components = Vec<Vec<u8>>;

/// A policy that makes sense.
#[derive(Debug)]
pub(super) struct Rules {
    config: PolicyConfig,
    home: Option<Components>,
    /// Of each rule.
    paths: Vec<Vec<Components>>,
}

/// What a call does to one path.
struct Touch {
    access: Access,
    /// `None`: it could be any.
    path: Option<Components>,
    /// It reaches all that is below.
    tree: bool,
}

pub(super) fn denied(rule: &str) -> Error {
    let message = format!(
        "the policy denies this by its rule `{}`",
        rule.escape_debug()
    );
    Error::new(ErrorKind::PolicyDenied, message).with_context("rule", rule.escape_debug())
}

impl Rules {
    /// Of a policy that has been checked.
    pub(super) fn new(config: PolicyConfig) -> Self {
        let normal = |text: &String| path::normal(&SandboxPath::new(text).ok()?, None);
        let paths = config.rules.iter();
        let paths = paths.map(|rule| rule.paths.iter().filter_map(normal).collect());
        Self {
            paths: paths.collect(),
            home: config.home.as_ref().and_then(normal),
            config,
        }
    }

    /// Refuses a call that is denied.
    pub(super) fn check(&self, call: Call<'_>) -> Result<()> {
        let touches = self.touches(call.arguments);
        let decided = match touches.as_slice() {
            [] => self.decide(call, None),
            touches => {
                let mut each = touches.iter().map(|touch| self.decide(call, Some(touch)));
                each.find(Result::is_err).unwrap_or(Ok(()))
            }
        };
        let decided = decided
            .and_then(|()| self.check_lifetime(call.arguments))
            .and_then(|()| self.check_network(call.arguments));
        decided.map_err(|error| error.with_operation(call.operation))
    }

    fn decide(&self, call: Call<'_>, touch: Option<&Touch>) -> Result<()> {
        let mut rules = self.config.rules.iter().zip(&self.paths);
        let fits = |(rule, paths): &(&PolicyRule, &Vec<Components>)| {
            fits_operation(rule, call.operation)
                && fits_command(rule, call.arguments)
                && fits_path(rule, paths, touch)
        };
        let (name, effect) = match rules.find(fits) {
            Some((rule, _)) => (rule.name.as_str(), rule.effect),
            None => ("default", self.config.default),
        };
        match effect {
            Effect::Allow => Ok(()),
            Effect::Deny => Err(denied(name)),
        }
    }

    fn check_lifetime(&self, arguments: Arguments<'_>) -> Result<()> {
        let asked = match arguments {
            Arguments::Connect(options) => options.lifetime,
            Arguments::Lifetime(time) => Some(time),
            _ => None,
        };
        let most = self.config.create.lifetime.map(Duration::from_secs);
        match (asked, most) {
            (Some(asked), Some(most)) if asked > most => Err(denied("create.lifetime")),
            _ => Ok(()),
        }
    }

    /// A network that a sandbox could not be made with cannot be given to it later either.
    fn check_network(&self, arguments: Arguments<'_>) -> Result<()> {
        match arguments {
            Arguments::Network(policy, _) => {
                network(&self.config.create, Some(policy.clone())).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What a call does to paths; nothing if it is not about files.
    fn touches(&self, arguments: Arguments<'_>) -> Vec<Touch> {
        use Access::{Read, Write};
        let touch = |access, path: &SandboxPath, user: &Option<String>, tree| {
            // Only the default user's home is known.
            let home = self.home.as_deref().filter(|_| user.is_none());
            let path = path::normal(path, home);
            Touch { access, path, tree }
        };
        match arguments {
            Arguments::Read(path, options) => vec![touch(Read, path, &options.user, false)],
            Arguments::Stat(path, options) => vec![touch(Read, path, &options.user, false)],
            Arguments::ListFiles(path, options) => {
                let tree = options.depth.is_some_and(|depth| depth > 1);
                vec![touch(Read, path, &options.user, tree)]
            }
            Arguments::Watch(path, options) => {
                let tree = options.recursive == Some(true);
                vec![touch(Read, path, &options.user, tree)]
            }
            Arguments::Glob(base, _, options) => vec![touch(Read, base, &options.user, true)],
            Arguments::Write(path, _, options) => vec![touch(Write, path, &options.user, false)],
            Arguments::Mkdir(path, options) => vec![touch(Write, path, &options.user, false)],
            Arguments::Remove(path, options) => {
                let tree = options.recursive == Some(true);
                vec![touch(Write, path, &options.user, tree)]
            }
            Arguments::SetPermissions(path, options) => {
                vec![touch(Write, path, &options.user, false)]
            }
            // What is moved can be read at its new place, or was put where it could not be written.
            Arguments::Rename(from, to, options) => vec![
                touch(Read, from, &options.user, true),
                touch(Write, from, &options.user, true),
                touch(Write, to, &options.user, true),
            ],
            // What a link leads to can be reached through it.
            Arguments::Symlink(path, target, options) => {
                let target = match target.is_absolute() {
                    true => path::normal(target, None),
                    false => below(path, target)
                        .and_then(|target| touch(Read, &target, &options.user, true).path),
                };
                let through = |access| Touch {
                    access,
                    path: target.clone(),
                    tree: true,
                };
                let link = touch(Write, path, &options.user, false);
                vec![link, through(Read), through(Write)]
            }
            _ => Vec::new(),
        }
    }

    /// Checks what is asked for of a new sandbox, and asks for what the policy sets.
    pub(super) fn adjust(&self, mut options: CreateOptions) -> Result<CreateOptions> {
        let rules = &self.config.create;
        let labels = options.metadata.as_ref();
        let carried = |key: &String| {
            let value = labels.and_then(|labels| labels.get(key));
            value.is_some_and(|value| !value.is_empty())
        };
        if !rules.metadata.iter().all(carried) {
            return Err(denied("create.metadata"));
        }
        options.source = source(rules, options.source)?;
        options.network = network(rules, options.network)?;
        limits(rules, &mut options)?;
        let most = rules.lifetime.map(Duration::from_secs);
        options.lifetime = ceiling("create.lifetime", rules.excess, options.lifetime, most)?;
        if rules.detached == Some(false) {
            if options.ownership == Some(Ownership::Detached) {
                return Err(denied("create.detached"));
            }
            options.ownership = Some(Ownership::Owned);
        }
        let allowed = rules.extensions.as_ref();
        let asked = options.extensions.as_ref().map(BTreeMap::keys);
        let strange = |key: &String| allowed.is_some_and(|allowed| !allowed.contains(key));
        if asked.into_iter().flatten().any(strange) {
            return Err(denied("create.extensions"));
        }
        Ok(options)
    }
}

/// A relative target as seen from the directory that its link is in.
fn below(link: &SandboxPath, target: &SandboxPath) -> Option<SandboxPath> {
    link.join("..").ok()?.join(target.as_bytes()).ok()
}

fn fits_operation(rule: &PolicyRule, operation: &str) -> bool {
    let fits = |named: &String| match named.strip_suffix('*') {
        Some(group) => operation.starts_with(group),
        None => named == operation,
    };
    rule.operations.is_empty() || rule.operations.iter().any(fits)
}

fn fits_command(rule: &PolicyRule, arguments: Arguments<'_>) -> bool {
    if rule.programs.is_empty() && rule.shell.is_none() {
        return true;
    }
    let Arguments::Spawn(command, _) = arguments else {
        return false;
    };
    let scripts = matches!(command.program, Program::Shell(_));
    let kind = rule.shell.is_none_or(|shell| shell == scripts);
    let mut programs = rule.programs.iter();
    kind && (rule.programs.is_empty() || programs.any(|name| is(command, name, rule.effect)))
}

/// Whether a command runs the program of this name: for a rule that denies, whether it could.
fn is(command: &Command, name: &str, effect: Effect) -> bool {
    let Program::Path(program) = &command.program else {
        return false;
    };
    let components = |text: &str| path::normal(&SandboxPath::new(text).ok()?, None);
    let last = |text: &str| text.rsplit('/').next().map(str::to_owned);
    match effect {
        // Where a relative path or a search for a bare name ends, only the sandbox knows.
        Effect::Deny => match (components(name), components(program)) {
            (Some(name), Some(program)) => name == program,
            _ => last(name) == last(program),
        },
        Effect::Allow if name.contains('/') => {
            components(name).is_some_and(|name| components(program) == Some(name))
        }
        Effect::Allow => name == program && !command.env.contains_key("PATH"),
    }
}

fn fits_path(rule: &PolicyRule, paths: &[Components], touch: Option<&Touch>) -> bool {
    if paths.is_empty() && rule.access.is_none() {
        return true;
    }
    let Some(touch) = touch else { return false };
    if rule.access.is_some_and(|access| access != touch.access) {
        return false;
    }
    let deny = rule.effect == Effect::Deny;
    let Some(path) = &touch.path else {
        return paths.is_empty() || deny;
    };
    let reaches = |ruled: &Components| {
        path.starts_with(ruled) || (deny && touch.tree && ruled.starts_with(path))
    };
    paths.is_empty() || paths.iter().any(reaches)
}

fn source(rules: &CreateRules, source: Option<Source>) -> Result<Option<Source>> {
    let listed = rules.templates.as_deref();
    // A list of what one may start from leaves out all else.
    let others = listed.is_none();
    match &source {
        None => Ok(listed
            .and_then(<[String]>::first)
            .map(|first| Source::Template(first.as_str().into()))),
        Some(Source::Template(id)) => {
            let named = |name: &String| name == id.as_str();
            match listed.is_none_or(|listed| listed.iter().any(named)) {
                true => Ok(source),
                false => Err(denied("create.templates")),
            }
        }
        Some(Source::Snapshot(_)) if rules.snapshots.unwrap_or(others) => Ok(source),
        Some(Source::Snapshot(_)) => Err(denied("create.snapshots")),
        Some(Source::Fork(_)) if rules.forks.unwrap_or(others) => Ok(source),
        Some(Source::Fork(_)) => Err(denied("create.forks")),
        Some(_) if others => Ok(source),
        Some(_) => Err(denied("create.templates")),
    }
}

fn network(rules: &CreateRules, asked: Option<NetworkPolicy>) -> Result<Option<NetworkPolicy>> {
    let Some(allowed) = &rules.networks else {
        return Ok(asked);
    };
    let kind = match &asked {
        None => {
            return Ok(allowed.first().map(|first| match first {
                Network::Public => NetworkPolicy::Public,
                _ => NetworkPolicy::Off,
            }));
        }
        Some(NetworkPolicy::Off) => Some(Network::Off),
        Some(NetworkPolicy::Public) => Some(Network::Public),
        Some(NetworkPolicy::Rules { .. }) => Some(Network::Rules),
        Some(_) => None,
    };
    match kind.is_some_and(|kind| allowed.contains(&kind)) {
        true => Ok(asked),
        false => Err(denied("create.networks")),
    }
}

fn limits(rules: &CreateRules, options: &mut CreateOptions) -> Result<()> {
    let (most, excess) = (rules.limits, rules.excess);
    let mut limits = options.limits.unwrap_or_default();
    let whole = [
        ("create.limits.memory", &mut limits.memory, most.memory),
        (
            "create.limits.processes",
            &mut limits.processes,
            most.processes,
        ),
        ("create.limits.disk", &mut limits.disk, most.disk),
        ("create.limits.inodes", &mut limits.inodes, most.inodes),
    ];
    for (rule, asked, most) in whole {
        *asked = ceiling(rule, excess, *asked, most)?;
    }
    limits.cpus = ceiling("create.limits.cpus", excess, limits.cpus, most.cpus)?;
    if options.limits.is_some() || limits != Default::default() {
        options.limits = Some(limits);
    }
    Ok(())
}

/// What is asked for, or the ceiling where nothing is or too much.
fn ceiling<T: PartialOrd>(
    rule: &str,
    excess: Excess,
    asked: Option<T>,
    most: Option<T>,
) -> Result<Option<T>> {
    match (asked, most) {
        (asked, None) => Ok(asked),
        (None, most) => Ok(most),
        (Some(asked), Some(most)) if asked > most => match excess {
            Excess::Clamp => Ok(Some(most)),
            Excess::Refuse => Err(denied(rule)),
        },
        (asked, _) => Ok(asked),
    }
}
