//! The answer to a question for a name that nobody can answer.

/// Bytes in which a header and the longest question fit. What comes after that is of no interest.
pub(super) const ROOM: usize = 512;

const HEADER: usize = 12;
/// Longest name, and longest part of one, in bytes.
const MAX_NAME: usize = 255;
const MAX_LABEL: u8 = 63;
/// Of the third byte: it is an answer; and what an answer repeats, the kind of question and whether to ask others.
const IS_ANSWER: u8 = 0x80;
const REPEATED: u8 = 0x79;
/// SERVFAIL: programs try again later, and do not take it that there is no such name.
const FAILED: u8 = 2;

/// Says that a query failed. `None` if it is none: answers are not answered, so that this goes round in no circle.
pub(super) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..HEADER)?;
    if header[2] & IS_ANSWER != 0 {
        return None;
    }
    let question = question(query).unwrap_or_default();
    let mut answer = vec![header[0], header[1]];
    answer.extend([IS_ANSWER | header[2] & REPEATED, FAILED]);
    answer.extend([0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    Some(answer)
}

/// The one question of a query: name, type and class.
fn question(query: &[u8]) -> Option<&[u8]> {
    if query.get(4..6)? != [0, 1] {
        return None;
    }
    let rest = query.get(HEADER..)?;
    let mut len = 0;
    loop {
        let label = *rest.get(len)?;
        if label > MAX_LABEL || len > MAX_NAME {
            return None;
        }
        len += 1 + usize::from(label);
        if label == 0 {
            return rest.get(..len + 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x03pip\x03org\0\0\x01\0\x01\0\0\x29\x10\0\0\0\0\0\0\0";

    #[test]
    fn a_failure_repeats_the_question_and_nothing_else() {
        let expected = b"\x12\x34\x81\x02\0\x01\0\0\0\0\0\0\x03pip\x03org\0\0\x01\0\x01";
        assert_eq!(failure(QUERY).unwrap(), expected);
    }

    #[test]
    fn what_is_no_question_is_not_repeated() {
        for (at, value) in [(5, 2), (12, 0xc0), (12, 64), (12, 63)] {
            let mut query = QUERY.to_vec();
            query[at] = value;
            let expected = b"\x12\x34\x81\x02\0\0\0\0\0\0\0\0";
            assert_eq!(failure(&query).unwrap(), expected, "{at} {value}");
        }
        let mut endless = QUERY[..HEADER].to_vec();
        endless.extend([1, b'x'].repeat(250));
        assert_eq!(failure(&endless).unwrap().len(), HEADER);
    }

    #[test]
    fn answers_and_pieces_get_none() {
        for len in 0..HEADER {
            assert_eq!(failure(&QUERY[..len]), None);
        }
        for len in HEADER..QUERY.len() {
            assert!(failure(&QUERY[..len]).unwrap().len() <= len);
        }
        assert_eq!(failure(&failure(QUERY).unwrap()), None);
    }
}
