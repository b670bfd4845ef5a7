//! The protocol between `sandbox-local` and its helper process, and where that helper's source lies.
//!
//! The helper itself is this package's binary. `sandbox-local` builds it once more for itself, statically
//! linked, and carries it inside: nothing has to be installed.

pub mod protocol;

/// Directory of this package's source, from which `sandbox-local`'s build script builds the helper.
pub const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
