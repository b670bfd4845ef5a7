//! Blanks what is not code in Rust source, so that a search finds code only.

/// The text with comments, strings and character literals replaced by spaces. Lines stay where they are.
pub(super) fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        // `r` and `b` start a literal only where no word goes on.
        let literal = literal_length(rest, after_word);
        let taken = if literal > 0 {
            literal
        } else {
            first.len_utf8()
        };
        let (piece, tail) = rest.split_at(taken);
        if literal > 0 {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(first);
        }
        after_word = literal == 0 && (first.is_alphanumeric() || first == '_');
        rest = tail;
    }
    code
}

/// Bytes of the comment or literal that starts here; 0 if none does.
fn literal_length(text: &str, after_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if text.starts_with('\'') {
        return character(text);
    }
    if text.starts_with('"') {
        return string(text, 0);
    }
    if after_word {
        return 0;
    }
    let prefix = ["br", "cr", "r", "b", "c"];
    let Some(prefix) = prefix.into_iter().find(|prefix| text.starts_with(prefix)) else {
        return 0;
    };
    let after = &text[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    match (after[hashes..].starts_with('"'), prefix.ends_with('r')) {
        (true, true) => raw_string(text, prefix.len() + hashes, hashes),
        (true, false) if hashes == 0 => string(text, prefix.len()),
        _ => 0,
    }
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// A string whose opening quote is at `quote`.
fn string(text: &str, quote: usize) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(quote + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A raw string whose opening quote is at `quote`.
fn raw_string(text: &str, quote: usize, hashes: usize) -> usize {
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = &text[quote + 1..];
    let length = inside.find(&end).map(|at| at + end.len());
    quote + 1 + length.unwrap_or(inside.len())
}

/// A character literal; 0 for a lifetime or a label.
fn character(text: &str) -> usize {
    let inside = &text[1..];
    if let Some(escape) = inside.strip_prefix('\\') {
        // The escaped character may be a quote itself.
        let end = escape.char_indices().skip(1).find(|(_, c)| *c == '\'');
        return end.map_or(text.len(), |(at, _)| 2 + at + 1);
    }
    let first = inside.chars().next().map_or(0, char::len_utf8);
    if inside[first..].starts_with('\'') {
        1 + first + 1
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a line, runs of spaces as one.
    fn left(text: &str) -> String {
        code_only(text)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn comments_go() {
        assert_eq!(left("a // unsafe\nb"), "a b");
        assert_eq!(left("a /* x /* unsafe */ y */ b"), "a b");
        assert_eq!(left("a /* never closed"), "a");
    }

    #[test]
    fn strings_go() {
        assert_eq!(left(r#"f("a \" // b", c)"#), "f( , c)");
        assert_eq!(left(r##"f(r#"a " b"#, br"x\", c)"##), "f( , , c)");
        assert_eq!(left(r#"f(b"x", c"y") + for"#), "f( , ) + for");
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        assert_eq!(
            left(r#"['"', '\'', b'\\', 'ä', '\u{1F600}'] x"#),
            "[ , , b , , ] x"
        );
        assert_eq!(
            left("fn f<'a>(x: &'a str) -> &'static str"),
            "fn f<'a>(x: &'a str) -> &'static str"
        );
    }

    #[test]
    fn raw_identifiers_stay() {
        assert_eq!(left("r#type + bar + rb"), "r#type + bar + rb");
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "a\n/* b\nc */\n\"d\ne\" f\n";
        assert_eq!(code_only(text).lines().count(), text.lines().count());
    }
}
