//! The little that imports need of the rest of the local provider.

#[path = "../../crates/sandbox-local/src/linux/remove.rs"]
pub(crate) mod remove;

pub(crate) mod record {
    //! Errors of the disk.

    use sandbox_core::{Error, ErrorKind};
    use std::io;

    pub(crate) fn storage_error(error: io::Error, message: &'static str) -> Error {
        Error::new(ErrorKind::Internal, message).with_source(error)
    }
}
