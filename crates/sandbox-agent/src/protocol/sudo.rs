//! The stand-in for `sudo` to PID 1: the one conversation whose peer is the sandbox's own, untrusted code.

use super::{Blob, wire_enum, wire_struct};

wire_struct! {
    /// Runs a command as another user, with the caller's descriptors. Those come along in this order: standard
    /// input, output and error; then, if `cwd`, the working directory.
    ///
    /// The connection is the caller's word that it still waits: when it closes, the command gets HUP and then KILL.
    pub struct SudoRequest {
        /// Program and arguments.
        pub argv: Vec<Blob>,
        /// Variables for the command besides those of a login, which they may replace: what the caller keeps of
        /// its own environment.
        pub env: Vec<(Blob, Blob)>,
        /// Name, uid or `#uid` of the user to become; `None` is root.
        pub user: Option<String>,
        /// Whether the working directory comes along; otherwise it is the user's home.
        pub cwd: bool,
    }
}

wire_enum! {
    /// Sent by the stand-in while the command runs.
    pub enum SudoControl {
        /// The stand-in got this signal; pass it on.
        0 => Signal { signal: i32 },
    }
}

wire_enum! {
    /// PID 1's answers.
    pub enum SudoReply {
        /// The command ended with this code, or was never started and `message` says why.
        0 => Ended { code: i32, message: String },
    }
}
