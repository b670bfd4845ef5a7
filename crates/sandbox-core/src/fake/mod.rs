//! A provider for unit tests: it knows what the test scripted, and nothing else. Feature `test-util`.
//!
//! Commands never run. A [`Script`] says which commands it answers and what they do: output, exits, delays, waits for
//! input or for the test's [`Gate`]. A command without a script is an error. Files live in memory. [`Fault`]s make any
//! call fail or wait, and [`FakeProvider::calls`] tells what was called.
//!
//! It is deterministic: ids count up, and time is that of `tokio::time`, which a test can pause. It implements what the
//! contract says of everything but commands, and has no rights, users or symbolic links.
//!
//! ```
//! use sandbox_core::{fake::{FakeProvider, Script}, prelude::*};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<()> {
//! let fake = FakeProvider::new();
//! fake.script(Script::shell("make test").stdout("1 passed\n").delay(Duration::from_secs(60)).exit(0));
//!
//! let sandbox = fake.create(CreateOptions::new()).await?;
//! sandbox.files().write_bytes("Makefile", "test:\n").await?;
//! let output = sandbox.exec(Command::shell("make test")).await?;
//!
//! assert_eq!(output.stdout_text(), "1 passed\n");
//! let operations: Vec<_> = fake.calls().iter().map(|call| call.operation).collect();
//! assert_eq!(operations, ["create", "files.write", "spawn"]);
//! # Ok(()) }
//! ```

mod call;
mod files;
mod glob;
mod ports;
mod process;
mod provider;
mod sandbox;
mod script;
mod tree;

pub use call::{Call, Fault, Gate, OPERATIONS};
pub use provider::FakeProvider;
pub use script::Script;

#[cfg(test)]
mod tests;
