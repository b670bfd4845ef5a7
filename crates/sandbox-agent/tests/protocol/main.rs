//! The protocol's decoder against malformed messages. `cargo xtask fuzz` looks further, with the same oracle.

mod oracle;
mod samples;
mod survival;

use proptest::{collection::vec, prelude::*, sample::select};

#[test]
fn every_sample_is_a_message_of_its_kind() {
    let samples = samples::all();
    for (kind, bytes) in &samples {
        assert!(
            oracle::KINDS[usize::from(*kind)](bytes),
            "{kind}: {bytes:?}"
        );
    }
    let kinds: std::collections::BTreeSet<_> = samples.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), oracle::KINDS.len(), "a kind has no sample");
}

#[test]
fn a_truncated_message_is_none() {
    for (kind, bytes) in samples::all() {
        for len in 0..bytes.len() {
            let is_message = oracle::KINDS[usize::from(kind)](&bytes[..len]);
            assert!(!is_message, "{len} bytes of {kind}: {bytes:?}");
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for (kind, mut bytes) in samples::all() {
        bytes.push(0);
        assert!(
            !oracle::KINDS[usize::from(kind)](&bytes),
            "{kind}: {bytes:?}"
        );
    }
}

/// Overwrites `bytes` with `piece` at about `at`, or inserts it there.
fn disturb(bytes: &mut Vec<u8>, at: prop::sample::Index, piece: &[u8], insert: bool) {
    let at = at.index(bytes.len() + 1);
    let end = if insert {
        at
    } else {
        bytes.len().min(at + piece.len())
    };
    bytes.splice(at..end, piece.iter().copied());
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_harmless(bytes in vec(any::<u8>(), 0..200)) {
        for kind in oracle::KINDS {
            kind(&bytes);
        }
    }

    #[test]
    fn disturbed_messages_are_harmless(
        sample in select(samples::all()),
        disturbances in vec((any::<prop::sample::Index>(), vec(any::<u8>(), 1..9), any::<bool>()), 1..5),
    ) {
        let (kind, mut bytes) = sample;
        for (at, piece, insert) in disturbances {
            disturb(&mut bytes, at, &piece, insert);
        }
        oracle::KINDS[usize::from(kind)](&bytes);
    }
}
