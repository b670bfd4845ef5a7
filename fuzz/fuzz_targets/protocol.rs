//! Any bytes as any kind of message: the first byte says which, the rest is what the peer sent.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/sandbox-agent/tests/protocol/oracle.rs"]
mod oracle;

fuzz_target!(|input: &[u8]| {
    if let [kind, bytes @ ..] = input {
        oracle::KINDS[usize::from(*kind) % oracle::KINDS.len()](bytes);
    }
});
