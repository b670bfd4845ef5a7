//! `sudo` inside a sandbox: a stand-in that asks PID 1 to run a command as root.
//!
//! Programs of a sandbox can gain no rights by executing a file, so the real `sudo` cannot work. The stand-in is an
//! ordinary program without rights; what it asks for is started from PID 1's side, with the stand-in's standard
//! descriptors. Whoever may use it is root of the sandbox anyway, so there are no rules beyond who that is.

mod arguments;
pub(crate) mod client;
pub(crate) mod server;

/// Where the stand-in finds the sandbox's side.
const SOCKET: &str = "/run/.sandbox/sudo";
