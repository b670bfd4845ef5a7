//! The helper process of `sandbox-local`: zygote, PID 1 of a sandbox, and the `sudo` stand-in inside it.

fn main() {}
