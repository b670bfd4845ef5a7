//! The keys by which a terminal leaves a command alone.

use sandbox::Bytes;

/// Ctrl-P and Ctrl-Q, one after the other.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// Looks for [`LEAVE`] in what is typed.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// The first of the two was typed, and is held back.
    begun: bool,
}

impl Keys {
    /// What is to be passed on, and whether the command is to be left after it.
    pub(crate) fn read(&mut self, typed: &Bytes) -> (Bytes, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            if std::mem::take(&mut self.begun) {
                if *byte == LEAVE[1] {
                    return (passed.into(), true);
                }
                passed.push(LEAVE[0]);
            }
            if *byte == LEAVE[0] {
                self.begun = true;
            } else {
                passed.push(*byte);
            }
        }
        (passed.into(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_two_keys_leave_and_are_not_passed_on() {
        let mut keys = Keys::default();
        assert_eq!(keys.read(&"ab\x10\x11cd".into()), ("ab".into(), true));
        // In two pieces, too.
        let mut keys = Keys::default();
        assert_eq!(keys.read(&"a\x10".into()), ("a".into(), false));
        assert_eq!(keys.read(&"\x11".into()), (Bytes::new(), true));
        let mut keys = Keys::default();
        assert_eq!(keys.read(&"\x10\x10\x11".into()), ("\x10".into(), true));
    }

    proptest! {
        #[test]
        fn everything_else_is_passed_on(
            pieces in prop::collection::vec(prop::collection::vec(0x0f_u8..0x12, 0..6), 0..6),
        ) {
            let mut keys = Keys::default();
            let typed = pieces.concat();
            let leaves = typed.windows(2).position(|pair| pair == LEAVE);
            let mut passed = Vec::new();
            for piece in pieces {
                let (more, left) = keys.read(&piece.into());
                passed.extend(more);
                if left {
                    prop_assert_eq!(Some(passed.len()), leaves);
                    return Ok(());
                }
            }
            let held = typed.len() - usize::from(keys.begun);
            prop_assert_eq!(leaves, None);
            prop_assert_eq!(passed, &typed[..held]);
        }
    }
}
