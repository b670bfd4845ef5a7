//! Rules for each Rust file: its header, its length, where `unsafe` is, what must not be left behind.

use super::{Problem, strip::code_only};

/// Longest file, in lines.
const MAX_LINES: usize = 700;

/// Only system calls need `unsafe`; each file that makes some opens with an `#![expect(unsafe_code, ..)]`.
const UNSAFE_FOLDERS: [&str; 2] = [
    "crates/sandbox-agent/src/sys/",
    "crates/sandbox-local/src/sys/",
];

/// Code that must not be left behind, and what to do about it.
const LEFT_BEHIND: [(&str, &str); 3] = [
    (
        "todo!",
        "`todo!`: write the code, or return an error that says what is missing",
    ),
    (
        "unimplemented!",
        "`unimplemented!`: write the code, or return an error that says what is missing",
    ),
    (
        "#[ignore",
        "`#[ignore]`: make the test pass, remove it, or say what runs it: `#[ignore = \"run by ...\"]`",
    ),
];

/// How a test begins that is run by another one, and by nothing else.
const IGNORED_BUT_RUN: &str = "#[ignore = \"run by ";

/// Checks one file; `path` is below the workspace.
pub(super) fn check(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(check_header(path, text));
    problems.extend(check_length(path, text));
    let code = code_only(text);
    for (line, (code, text)) in (1..).zip(code.lines().zip(text.lines())) {
        problems.extend(check_unsafe(path, code).map(|problem| problem.at(line)));
        // Another test runs it, in a place that this one makes.
        let is_run = text.contains(IGNORED_BUT_RUN);
        let left = LEFT_BEHIND
            .iter()
            .filter(|(needle, _)| has_word(code, needle) && !is_run);
        problems.extend(left.map(|(_, message)| Problem::new(path, *message).at(line)));
    }
    problems
}

fn check_header(path: &str, text: &str) -> Option<Problem> {
    let first = text.lines().next().unwrap_or_default();
    let readme = path.ends_with("src/lib.rs") && first.starts_with("#![doc = include_str!(");
    if first.starts_with("//! ") || readme {
        return None;
    }
    let message = "the first line must start with `//! ` and say what the module does";
    Some(Problem::new(path, message).at(1))
}

fn check_length(path: &str, text: &str) -> Option<Problem> {
    let lines = text.lines().count();
    let message = format!("has {lines} lines; split it by concern, {MAX_LINES} is the limit");
    (lines > MAX_LINES).then(|| Problem::new(path, message))
}

fn check_unsafe(path: &str, code: &str) -> Option<Problem> {
    let allowed = UNSAFE_FOLDERS.iter().any(|folder| path.starts_with(folder));
    let found = has_word(code, "unsafe") || has_word(code, "unsafe_code");
    let message = format!(
        "`unsafe` belongs into {}, behind a safe function",
        UNSAFE_FOLDERS.join(" or ")
    );
    (found && !allowed).then(|| Problem::new(path, message))
}

/// Whether `needle` occurs and is no part of a longer word.
fn has_word(text: &str, needle: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(needle).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + needle.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<Option<usize>> {
        let problems = check(path, text);
        problems.into_iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn a_file_starts_with_its_purpose() {
        assert_eq!(lines("a/src/x.rs", "//! Does x.\n"), []);
        assert_eq!(lines("a/src/x.rs", "use x;\n"), [Some(1)]);
        assert_eq!(lines("a/src/x.rs", ""), [Some(1)]);
        let readme = "#![doc = include_str!(\"../README.md\")]\n";
        assert_eq!(lines("a/src/lib.rs", readme), []);
        assert_eq!(lines("a/src/x.rs", readme), [Some(1)]);
    }

    #[test]
    fn unsafe_is_for_system_calls() {
        let text = "//! X.\nfn f() { unsafe { g() } }\n";
        assert_eq!(lines("crates/sandbox-core/src/x.rs", text), [Some(2)]);
        assert_eq!(lines("crates/sandbox-agent/src/sys/x.rs", text), []);
        let harmless = "//! X.\n// unsafe\nlet unsafe_word = \"unsafe\";\n";
        assert_eq!(lines("crates/sandbox-core/src/x.rs", harmless), []);
        let waived = "//! X.\n#![expect(unsafe_code, reason = \"x\")]\n";
        assert_eq!(lines("crates/sandbox-core/src/x.rs", waived), [Some(2)]);
    }

    #[test]
    fn nothing_is_left_behind() {
        let text = "//! X.\nfn f() { todo!() }\n#[ignore = \"slow\"]\n/// todo!\nfn g() {}\n";
        assert_eq!(lines("a/src/x.rs", text), [Some(2), Some(3)]);
        let run = "//! X.\n#[ignore = \"run by `runs`\"]\nfn g() {}\n";
        assert_eq!(lines("a/src/x.rs", run), []);
    }

    #[test]
    fn long_files_are_split() {
        let text = "//! X.\n".repeat(MAX_LINES);
        assert_eq!(lines("a/src/x.rs", &text), []);
        assert_eq!(lines("a/src/x.rs", &format!("{text}\n")), [None]);
    }
}
