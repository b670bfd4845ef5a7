//! The contract for programs without a runtime: the same calls, which return when they are done. Feature `blocking`.
//!
//! A [`BlockingProvider`] brings a small runtime of its own, on which the provider's tasks go on between calls. Layers go
//! around the provider before it is wrapped. What comes from it keeps the runtime: sandboxes, processes, files.
//!
//! Every call that could wait is an error inside of an async runtime ([`InvalidState`](crate::ErrorKind::InvalidState)) and never a panic:
//! use the async handles there, or a thread from [`std::thread::spawn`]. Threads that a runtime has made count as inside,
//! also those of `spawn_blocking`.
//!
//! ```
//! # #[cfg(not(feature = "test-util"))] fn main() {}
//! # #[cfg(feature = "test-util")]
//! # fn main() -> sandbox_core::Result<()> {
//! # use sandbox_core::fake::{FakeProvider, Script};
//! # let provider = FakeProvider::new();
//! # provider.script(Script::any().stdout("hello\n").exit(0));
//! use sandbox_core::{Command, CreateOptions, ProcessEvent, blocking::BlockingProvider};
//!
//! let provider = BlockingProvider::new(provider)?;
//! let sandbox = provider.create(CreateOptions::new())?;
//! sandbox.files().write_bytes("note", "hello\n")?;
//!
//! let output = sandbox.exec(Command::new("cat").arg("note"))?;
//! assert_eq!(output.check()?.stdout_text(), "hello\n");
//!
//! for event in sandbox.spawn(Command::new("cat").arg("note"))? {
//!     if let ProcessEvent::Stdout(bytes) = event? {
//!         assert_eq!(bytes, "hello\n");
//!     }
//! }
//! assert!(sandbox.kill()?);
//! # Ok(())
//! # }
//! ```

mod files;
mod ports;
mod process;
mod provider;
mod runtime;
mod sandbox;
#[cfg(all(test, feature = "test-util"))]
mod tests;

pub use files::{BlockingContents, BlockingFiles};
pub use ports::BlockingPortStream;
pub use process::{BlockingControl, BlockingProcess};
pub use provider::BlockingProvider;
pub use sandbox::BlockingSandbox;
