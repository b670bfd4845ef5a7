//! The helper process of `sandbox-local`: zygote, PID 1 of a sandbox, and the `sudo` stand-in inside it.
//!
//! One binary for all three; the name it is started by says which one it is. It is never run by hand.

#[cfg(target_os = "linux")]
mod account;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod pid1;
#[cfg(target_os = "linux")]
mod sudo;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod view;
#[cfg(target_os = "linux")]
mod zygote;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    {
        let name = std::env::args_os().next().unwrap_or_default();
        let name = std::path::Path::new(&name).file_name().unwrap_or_default();
        if name == "sandbox-zygote" {
            return zygote::main();
        }
        if name.as_encoded_bytes().ends_with(b"sudo") {
            sudo::client::main();
        }
    }
    // Nothing is left to do if standard error is closed as well.
    let _ = writeln!(
        std::io::stderr(),
        "sandbox-agent: this is a helper of the crate sandbox-local, which starts it; use the `sandbox` command"
    );
    ExitCode::FAILURE
}
