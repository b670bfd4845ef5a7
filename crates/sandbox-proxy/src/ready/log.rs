//! What a process says: its last bytes, and its lines.

use std::{borrow::Cow, collections::VecDeque};

/// Bytes that are kept to be shown.
const TAIL: usize = 4 * 1024;

/// Longest line that is looked at as a whole; a longer one counts as several.
const LINE: usize = 64 * 1024;

/// A line, or what has come of it so far.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) whole: bool,
}

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    tail: VecDeque<u8>,
    cut: bool,
    /// Unfinished lines by stream.
    lines: [Vec<u8>; 3],
}

impl Log {
    /// Takes what a stream said, and says whether `hit` is true of one of its lines.
    pub(super) fn push(
        &mut self,
        stream: usize,
        bytes: &[u8],
        mut hit: impl FnMut(Line<'_>) -> bool,
    ) -> bool {
        self.keep(bytes);
        let line = &mut self.lines[stream];
        let mut said = |bytes: &[u8], whole| {
            let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            let text = String::from_utf8_lossy(bytes);
            hit(Line { text, whole })
        };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) = match part.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (part, false),
            };
            for piece in part.chunks(LINE) {
                if line.len() + piece.len() > LINE {
                    line.clear();
                }
                line.extend_from_slice(piece);
            }
            if said(line, ends) {
                return true;
            }
            if ends {
                line.clear();
            }
        }
        false
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let over = self.tail.len().saturating_sub(TAIL);
        self.cut |= over > 0 || bytes.len() > TAIL;
        self.tail.drain(..over);
    }

    /// The last that was said, without spaces at its end.
    pub(super) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        // A character that was cut in two shows as nothing at the beginning.
        let from = if self.cut {
            let inner = bytes.iter().position(|byte| byte & 0xc0 != 0x80);
            inner.unwrap_or(bytes.len())
        } else {
            0
        };
        let text = String::from_utf8_lossy(&bytes[from..]);
        let dots = if self.cut { "..." } else { "" };
        format!("{dots}{}", text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pushed: &[(usize, &str)]) -> Vec<(String, bool)> {
        let (mut log, mut lines) = (Log::default(), Vec::new());
        for (stream, text) in pushed {
            log.push(*stream, text.as_bytes(), |line| {
                lines.push((line.text.into_owned(), line.whole));
                false
            });
        }
        lines
    }

    #[test]
    fn lines_come_together_for_each_stream() {
        let found = lines(&[(0, "a"), (1, "x\r\n"), (0, "b\nc")]);
        let expected = [("a", false), ("x", true), ("ab", true), ("c", false)];
        assert_eq!(
            found,
            expected.map(|(text, whole)| (text.to_owned(), whole))
        );
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let mut log = Log::default();
        for _ in 0..100 {
            log.push(0, &[b'x'; 10_000], |line| {
                assert!(line.text.len() <= LINE);
                false
            });
        }
        assert!(log.lines[0].len() <= LINE);
        assert_eq!(log.tail().len(), TAIL + "...".len());
    }

    #[test]
    fn the_tail_is_the_last_and_whole_characters() {
        let mut log = Log::default();
        log.push(0, "short\n".as_bytes(), |_| false);
        assert_eq!(log.tail(), "short");
        log.push(0, "ä".repeat(TAIL).as_bytes(), |_| false);
        log.push(0, b"!", |_| false);
        let tail = log.tail();
        assert!(tail.starts_with("...ä") && tail.ends_with("ä!"), "{tail}");
    }
}
