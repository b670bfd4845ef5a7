//! The stand-in for `sudo` to PID 1: the one conversation whose peer is the sandbox's own, untrusted code.

use super::{Blob, wire_enum, wire_struct};

wire_struct! {
    /// Runs a command as root of the sandbox. Descriptors: standard input, output and error of the
    /// caller; then, if `cwd`, its working directory.
    pub struct SudoRequest {
        /// Program and arguments.
        pub argv: Vec<Blob>,
        /// The caller's environment, of which only what sudo keeps is used.
        pub env: Vec<(Blob, Blob)>,
        /// Name or `#uid` of the user to become; `None` is root.
        pub user: Option<String>,
        /// Whether the working directory comes along.
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
