//! What sandboxes are made on: this machine as it was found, a state directory, and the zygote.

use super::{
    host::Host,
    ranges, reap,
    record::{self, Records},
    snapshot,
    template::{self, InUse},
    volumes,
    zygote::Zygote,
};
use sandbox_agent::protocol::zygote::Rights;
use sandbox_core::Result;
use std::path::{Path, PathBuf};

/// What it takes to make a sandbox.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) state: PathBuf,
    pub(crate) host: Host,
    pub(crate) records: Records,
    pub(crate) zygote: Zygote,
    pub(crate) weaken: u32,
}

impl Site {
    /// Opens the state directory, and removes what earlier programs have left there unless that is to be kept.
    pub(crate) fn open(
        host: Host,
        state: &Path,
        keep_leftovers: bool,
        weaken: u32,
    ) -> Result<Self> {
        let open = || {
            record::make_private(state)?;
            let state = state.canonicalize()?;
            record::require_own(&state)?;
            record::make_private(&state.join("staging"))?;
            let records = Records::open(&state)?;
            if !keep_leftovers {
                reap::reap_all(&records)?;
                let used = || template::in_use(&state, records.templates_in_use());
                snapshot::collect(&state, &used);
                template::prune_at_start(&state, &used);
                snapshot::tidy_disk(&records);
                volumes::sweep(&state);
            }
            Ok((state, records))
        };
        let (state, records) = open().map_err(|error| {
            record::storage_error(
                error,
                "the state directory cannot be used, name another by SANDBOX_STATE_DIR",
            )
            .with_context("directory", state.display())
        })?;
        let rights = if host.is_root {
            let storage_base = ranges::STORAGE_BASE;
            Rights::Root { storage_base }
        } else {
            Rights::User {}
        };
        let zygote = Zygote::new(rights, &state.join("staging"));
        Ok(Self {
            state,
            host,
            records,
            zygote,
            weaken,
        })
    }

    /// Names of the templates that something stands on; `None` if that cannot be told.
    pub(crate) fn templates_in_use(&self) -> InUse {
        template::in_use(&self.state, self.records.templates_in_use())
    }
}
