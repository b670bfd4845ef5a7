//! Patterns as `Files::glob` has them, enough for a file tree in memory.

use crate::{Error, Result};

/// A pattern without braces, in parts between slashes.
type Parts = Vec<Vec<u8>>;

/// What a path below the base is compared with: it fits if one of these does.
#[derive(Debug)]
pub(super) struct Glob(Vec<Parts>);

impl Glob {
    /// Reads a pattern.
    pub(super) fn new(pattern: &str) -> Result<Self> {
        if pattern.is_empty() {
            return Err(Error::invalid("a pattern must not be empty"));
        }
        let parts = |pattern: &Vec<u8>| pattern.split(is_slash).map(<[u8]>::to_vec).collect();
        let patterns: Vec<Parts> = expand(pattern.as_bytes())?.iter().map(parts).collect();
        for part in patterns.iter().flatten() {
            check_classes(part)?;
        }
        Ok(Self(patterns))
    }

    /// Whether a path fits.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let names: Vec<_> = path.split(is_slash).collect();
        self.0.iter().any(|parts| path_fits(parts, &names))
    }
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

/// One pattern for each choice of `{a,b}`.
fn expand(pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let Some(open) = pattern.iter().position(|byte| *byte == b'{') else {
        return Ok(vec![pattern.to_vec()]);
    };
    let (head, rest) = (&pattern[..open], &pattern[open + 1..]);
    let (choices, tail) = choices(rest)?;
    let mut all = Vec::new();
    for choice in choices {
        for end in expand(&[choice, tail].concat())? {
            all.push([head, &end].concat());
        }
    }
    Ok(all)
}

/// What stands between a brace that was opened and its commas and end, and what follows.
fn choices(rest: &[u8]) -> Result<(Vec<&[u8]>, &[u8])> {
    let (mut depth, mut start, mut choices) = (0, 0, Vec::new());
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b',' if depth == 0 => {
                choices.push(&rest[start..at]);
                start = at + 1;
            }
            b'}' => {
                choices.push(&rest[start..at]);
                return Ok((choices, &rest[at + 1..]));
            }
            _ => {}
        }
    }
    Err(Error::invalid("a brace of the pattern is not closed"))
}

/// The inside of `[...]` at the start of `pattern`, and what follows. A `]` right behind the opening stands for itself.
fn class(pattern: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = pattern.strip_prefix(b"[")?;
    let at = rest.iter().skip(1).position(|byte| *byte == b']')? + 1;
    Some((&rest[..at], &rest[at + 1..]))
}

fn check_classes(mut part: &[u8]) -> Result<()> {
    while let Some(at) = part.iter().position(|byte| *byte == b'[') {
        let unclosed = || Error::invalid("a class of the pattern is not closed");
        (_, part) = class(&part[at..]).ok_or_else(unclosed)?;
    }
    Ok(())
}

fn path_fits(parts: &[Vec<u8>], names: &[&[u8]]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((part, rest)), _) if part == b"**" => {
            path_fits(rest, names) || !names.is_empty() && path_fits(parts, &names[1..])
        }
        (Some((part, parts)), Some((name, names))) => {
            name_fits(part, name) && path_fits(parts, names)
        }
        _ => false,
    }
}

fn name_fits(part: &[u8], name: &[u8]) -> bool {
    match (part.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            name_fits(rest, name) || !name.is_empty() && name_fits(part, &name[1..])
        }
        (Some((b'?', rest)), Some((_, name))) => name_fits(rest, name),
        (Some((b'[', _)), Some((byte, name))) => class(part)
            .is_some_and(|(class, rest)| class_fits(class, *byte) && name_fits(rest, name)),
        (Some((expected, rest)), Some((found, name))) => expected == found && name_fits(rest, name),
        _ => false,
    }
}

fn class_fits(class: &[u8], byte: u8) -> bool {
    let (negated, mut class) = match class.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut fits = false;
    while let Some((first, rest)) = class.split_first() {
        let last = match rest {
            [b'-', last, ..] => {
                class = &rest[2..];
                last
            }
            _ => {
                class = rest;
                first
            }
        };
        fits |= (*first..=*last).contains(&byte);
    }
    fits != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn patterns_fit_as_the_contract_says() {
        for (pattern, path) in [
            ("*", "a"),
            ("*.txt", "a.txt"),
            ("a?c", "abc"),
            ("[a-c]x[!0-9]", "bxy"),
            ("[]]", "]"),
            ("{a,b{c,d}}e", "bde"),
            ("{a/b,c}", "a/b"),
            ("**", "a/b/c"),
            ("**/c", "c"),
            ("**/c", "a/b/c"),
            ("a/**/c", "a/c"),
            ("a*b*c", "axxbyyc"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*", "a/b"),
            ("?", "/"),
            ("*.txt", "a.txt/b"),
            ("[a-c]", "d"),
            ("[!a]", "a"),
            ("**/c", "a/bc"),
            ("a/**/c", "b/c"),
            ("{a,b}", "c"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_not_closed_is_invalid() {
        for pattern in ["", "[", "[]", "[a", "{a", "{a,{b}", "x{"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }
}
