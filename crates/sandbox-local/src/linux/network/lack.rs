//! What a kernel lacks in which nothing that leaves a sandbox can be caught.

use crate::linux::provider::NAME;
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind};
use std::io;

/// What it means if the zygote could not do this for want of something in the kernel.
pub(crate) fn not_caught(step: &str, errno: i32) -> Option<Error> {
    let lacking = [
        Errno::OPNOTSUPP,
        Errno::PROTONOSUPPORT,
        Errno::AFNOSUPPORT,
        Errno::NOENT,
    ];
    let is_lacking = lacking.iter().any(|other| other.raw_os_error() == errno);
    if step != "catch the sandbox's connections" || !is_lacking {
        return None;
    }
    let message = "a network of the sandbox's own needs the kernel's nf_tables and nft_tproxy: as root, run `modprobe -a \
                   nf_tables nft_tproxy`";
    let error = Error::new(ErrorKind::Unsupported, message).with_provider(NAME);
    Some(error.with_source(io::Error::from_raw_os_error(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_lacks_something_is_named_with_what_helps() {
        let step = "catch the sandbox's connections";
        for errno in [Errno::OPNOTSUPP, Errno::NOENT] {
            let error = not_caught(step, errno.raw_os_error()).unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.message().contains("modprobe"), "{error}");
            assert!(not_caught("mount /proc", errno.raw_os_error()).is_none());
        }
        assert!(not_caught(step, Errno::NOMEM.raw_os_error()).is_none());
    }
}
