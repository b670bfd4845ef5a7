//! What a record tells of a call's arguments: names, paths, sizes and numbers, each of bounded length. Never the values of
//! variables and labels, nor contents; of command lines only what is asked for.

use crate::Arguments;
use sandbox_core::{
    Command, CreateOptions, Existing, NetworkPolicy, Position, Program, PtySize, SandboxPath,
    Source, Stdin,
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};

/// Most bytes of one text, and most entries of one list.
const MOST_BYTES: usize = 512;
const MOST_ENTRIES: usize = 64;

/// A text that is cut where it is too long.
pub(super) fn text(text: &str) -> String {
    if text.len() <= MOST_BYTES {
        return text.to_owned();
    }
    let mut end = MOST_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// What is told of one call.
#[derive(Default)]
struct Told(Map<String, Value>);

impl Told {
    fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn maybe<T: Into<Value>>(self, key: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    fn text(self, key: &str, value: Option<&String>) -> Self {
        self.maybe(key, value.map(|value| text(value)))
    }

    fn path(self, key: &str, path: &SandboxPath) -> Self {
        let escaped = || path.as_bytes().escape_ascii().to_string();
        let shown = path.as_str().map_or_else(escaped, str::to_owned);
        self.put(key, text(&shown))
    }

    fn seconds(self, key: &str, time: Option<Duration>) -> Self {
        self.maybe(key, time.map(|time| time.as_secs_f64()))
    }

    fn mode(self, mode: Option<u32>) -> Self {
        self.maybe("mode", mode.map(|mode| format!("{mode:04o}")))
    }

    /// The keys of a map, and never its values.
    fn keys<V>(self, key: &str, map: Option<&BTreeMap<String, V>>) -> Self {
        let list = |map: &BTreeMap<String, V>| list(map.keys());
        self.maybe(key, map.filter(|map| !map.is_empty()).map(list))
    }

    fn size(self, size: Option<PtySize>) -> Self {
        let shown = size.map(|size| format!("{}x{}", size.columns, size.rows));
        self.maybe("terminal", shown)
    }
}

fn list<'a>(texts: impl ExactSizeIterator<Item = &'a String>) -> Vec<Value> {
    let more = texts.len().saturating_sub(MOST_ENTRIES);
    let mut list: Vec<Value> = texts
        .take(MOST_ENTRIES)
        .map(|each| text(each).into())
        .collect();
    if more > 0 {
        list.push(format!("… and {more} more").into());
    }
    list
}

/// What is told of `arguments`; of a command its whole line only with `command_lines`.
pub(super) fn told(arguments: Arguments<'_>, command_lines: bool) -> Map<String, Value> {
    let told = Told::default();
    let told = match arguments {
        Arguments::Create(options) => create(told, options),
        Arguments::Connect(options) => told.seconds("lifetime", options.lifetime),
        Arguments::List(options) => told.keys("labels", options.metadata.as_ref()),
        Arguments::Spawn(command, size) => spawn(told, command, command_lines).size(size),
        Arguments::Attach(process, from) => {
            let told = told.put("process", text(process.as_str()));
            match from {
                Position::Cursor(cursor) => told.put("cursor", cursor),
                _ => told,
            }
        }
        Arguments::Template(id) => told.put("template", text(id.as_str())),
        Arguments::Snapshot(options) => told.text("name", options.name.as_ref()),
        Arguments::Lifetime(time) => told.seconds("lifetime", Some(time)),
        Arguments::Network(policy, existing) => told
            .maybe("network", kind_of(policy))
            .put("cut", existing == Existing::Cut),
        Arguments::NetworkEvents(follow) => told.put("follow", follow),
        Arguments::Port(port) => told.put("port", port),
        Arguments::Stdin(bytes) => told.put("bytes", bytes),
        Arguments::Signal(signal) => told.put("signal", signal.number()),
        Arguments::Resize(size) => told.size(Some(size)),
        other => files(told, other),
    };
    told.0
}

/// Of a network policy only its kind is told, since its rules have no bound.
fn kind_of(policy: &NetworkPolicy) -> Option<Value> {
    match serde_json::to_value(policy).ok()? {
        Value::Object(rules) => rules.keys().next().cloned().map(Value::from),
        kind => Some(kind),
    }
}

fn create(told: Told, options: &CreateOptions) -> Told {
    let told = match &options.source {
        Some(Source::Template(id)) => told.put("template", text(id.as_str())),
        Some(Source::Snapshot(id)) => told.put("snapshot", text(id.as_str())),
        Some(Source::Fork(id)) => told.put("fork", text(id.as_str())),
        _ => told,
    };
    let json = |value: serde_json::Result<Value>| value.ok();
    let network = options.network.as_ref().and_then(kind_of);
    let given = |value: &Value| !value.is_null();
    let limits = options.limits.and_then(|limits| {
        let Value::Object(mut limits) = json(serde_json::to_value(limits))? else {
            return None;
        };
        limits.retain(|_, value| given(value));
        Some(Value::Object(limits))
    });
    told.text("name", options.name.as_ref())
        .seconds("lifetime", options.lifetime)
        .seconds("idle_timeout", options.idle_timeout)
        .maybe(
            "on_expiry",
            options
                .on_expiry
                .and_then(|it| json(serde_json::to_value(it))),
        )
        .maybe(
            "ownership",
            options
                .ownership
                .and_then(|it| json(serde_json::to_value(it))),
        )
        .maybe("limits", limits)
        .maybe("network", network)
        .keys("env", options.env.as_ref())
        .keys("labels", options.metadata.as_ref())
        .keys("extensions", options.extensions.as_ref())
}

fn spawn(told: Told, command: &Command, command_lines: bool) -> Told {
    let told = match &command.program {
        Program::Path(program) => told.put("program", text(program)),
        Program::Shell(script) if command_lines => told.put("script", text(script)),
        _ => told.put("shell", true),
    };
    let told = match command_lines {
        true => told.put("args", list(command.args.iter())),
        false => told.put("args", command.args.len()),
    };
    let open = command.stdin == Stdin::Open;
    told.keys("env", Some(&command.env))
        .text("cwd", command.cwd.as_ref())
        .text("user", command.user.as_ref())
        .text("tag", command.tag.as_ref())
        .seconds("timeout", command.timeout)
        .maybe("stdin", open.then_some("open"))
}

fn files(told: Told, arguments: Arguments<'_>) -> Told {
    match arguments {
        Arguments::Read(path, options) => {
            let range = options.range.as_ref();
            let range = range.map(|range| format!("{}..{}", range.start, range.end));
            told.path("path", path)
                .maybe("range", range)
                .text("user", options.user.as_ref())
        }
        Arguments::Write(path, bytes, options) => told
            .path("path", path)
            .maybe("bytes", bytes)
            .mode(options.mode)
            .keys("labels", options.metadata.as_ref())
            .text("user", options.user.as_ref()),
        Arguments::Stat(path, options) => told
            .path("path", path)
            .maybe("follow", options.follow)
            .text("user", options.user.as_ref()),
        Arguments::ListFiles(path, options) => told
            .path("path", path)
            .maybe("depth", options.depth)
            .text("user", options.user.as_ref()),
        Arguments::Watch(path, options) => told
            .path("path", path)
            .maybe("recursive", options.recursive)
            .text("user", options.user.as_ref()),
        Arguments::Glob(base, pattern, options) => told
            .path("path", base)
            .put("pattern", text(pattern))
            .text("user", options.user.as_ref()),
        Arguments::Mkdir(path, options) => told
            .path("path", path)
            .mode(options.mode)
            .maybe("parents", options.parents)
            .text("user", options.user.as_ref()),
        Arguments::Rename(from, to, options) => told
            .path("path", from)
            .path("to", to)
            .text("user", options.user.as_ref()),
        Arguments::Symlink(path, target, options) => told
            .path("path", path)
            .path("target", target)
            .text("user", options.user.as_ref()),
        Arguments::Remove(path, options) => told
            .path("path", path)
            .maybe("recursive", options.recursive)
            .text("user", options.user.as_ref()),
        Arguments::SetPermissions(path, options) => told
            .path("path", path)
            .mode(options.mode)
            .text("owner", options.owner.as_ref())
            .text("user", options.user.as_ref()),
        _ => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbox_core::{Limits, NetworkAction};

    #[test]
    fn values_contents_and_rules_are_left_out() {
        let options = CreateOptions::new()
            .template("base")
            .limits(Limits::new().memory(1024))
            .network(NetworkPolicy::Rules {
                rules: Vec::new(),
                default: NetworkAction::Deny,
            })
            .env_var("TOKEN", "s3cr3t")
            .label("task", "s3cr3t");
        let told = Value::Object(told(Arguments::Create(&options), true));
        let wanted = serde_json::json!({
            "template": "base",
            "limits": { "memory": 1024 },
            "network": "rules",
            "env": ["TOKEN"],
            "labels": ["task"],
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_command_line_is_told_on_request() {
        let command = Command::shell("echo $1 $TOKEN")
            .arg("a")
            .env("TOKEN", "s3cr3t");
        let lines = |lines| Value::Object(told(Arguments::Spawn(&command, None), lines));
        let without = serde_json::json!({ "shell": true, "args": 1, "env": ["TOKEN"] });
        assert_eq!(lines(false), without);
        let with =
            serde_json::json!({ "script": "echo $1 $TOKEN", "args": ["a"], "env": ["TOKEN"] });
        assert_eq!(lines(true), with);
    }

    #[test]
    fn lists_are_bounded() {
        let command = Command::new("x").args(vec!["y".repeat(5000); 5000]);
        let told = told(Arguments::Spawn(&command, None), true);
        assert!(serde_json::to_string(&told).unwrap().len() < 70 * 520);
        assert_eq!(told["args"][64], "… and 4936 more");
    }

    proptest! {
        #[test]
        fn any_text_is_cut_where_it_may_be(long in "\\PC{0,400}") {
            let cut = text(&long);
            prop_assert!(cut.len() <= MOST_BYTES + "…".len());
            prop_assert!(cut == long || long.starts_with(cut.trim_end_matches('…')));
        }
    }
}
