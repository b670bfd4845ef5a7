//! What the host and the helper process say to each other. No I/O here: only messages and their bytes.
//!
//! Every message is one packet of a `SOCK_SEQPACKET` socket, at most [`MAX_PACKET`] bytes. A message that is
//! longer travels in a sealed memfd: the packet is then empty and carries that descriptor first
//! (at most [`MAX_MESSAGE`] bytes).
//!
//! Three conversations use it:
//! - `zygote`: the library asks the zygote to make or change a sandbox, or to work on files of others
//!   ([`zygote::Request`]).
//! - `agent`: anybody on the host who may open the sandbox's socket talks to its PID 1 ([`agent::Request`]).
//! - `files`: after [`agent::Request::Files`] a connection belongs to a file worker ([`files::FileRequest`]).

#![expect(
    missing_docs,
    reason = "a message documents its fields in its own line"
)]
#![expect(
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "both ends build every message"
)]

pub mod agent;
pub mod files;
pub mod sudo;
mod wire;
pub mod zygote;

pub use wire::{Blob, DecodeError, Reader, Wire};
pub(crate) use wire::{wire_enum, wire_struct};

wire_struct! {
    /// What a sandbox may use, as its programs are told. Zero is no limit.
    pub struct Limits {
        /// In bytes.
        pub memory: u64,
        /// In thousandths of a processor.
        pub cpu_millis: u64,
        pub processes: u64,
    }
}

/// Raised with every change of the messages; both ends refuse another one.
pub const VERSION: u32 = 18;

/// Longest packet, in bytes. Two fit into a default socket buffer of 212,992 bytes.
pub const MAX_PACKET: usize = 80 * 1024;

/// Longest piece of output or file content in one packet, in bytes.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Longest message that travels in a memfd, in bytes: arguments and environment of one command.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
