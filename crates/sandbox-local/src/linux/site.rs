//! What sandboxes are made on: this machine as it was found, a state directory, and the zygote.

use super::{
    host::Host,
    reap,
    record::{self, Records},
    snapshot, subordinate,
    template::{self, InUse},
    volumes,
    zygote::Zygote,
};
use sandbox_core::Result;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What it takes to make a sandbox.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) state: PathBuf,
    pub(crate) host: Host,
    pub(crate) records: Records,
    pub(crate) zygote: Arc<Zygote>,
    pub(crate) weaken: u32,
    /// How many processes sandboxes may have that do not say so.
    pub(crate) default_processes: Option<u64>,
}

impl Site {
    /// Opens the state directory, and removes what earlier programs have left there unless that is to be kept.
    pub(crate) fn open(
        host: Host,
        state: &Path,
        keep_leftovers: bool,
        weaken: u32,
        default_processes: Option<u64>,
    ) -> Result<Self> {
        let open = || {
            record::make_private(state)?;
            let state = state.canonicalize()?;
            record::require_own(&state)?;
            record::make_private(&state.join("staging"))?;
            let records = Records::open(&state)?;
            let zygote = Zygote::new(&state.join("staging"));
            if !keep_leftovers {
                reap::reap_all(&records)?;
                let used = || template::in_use(&state, records.templates_in_use());
                snapshot::collect(&state, &used);
                template::prune_at_start(&state, &used);
                snapshot::tidy_disk(&records);
                volumes::sweep(&state);
            }
            Ok((state, records, zygote))
        };
        let (state, records, zygote) = open().map_err(|error| {
            record::storage_error(
                error,
                "the state directory cannot be used, name another by SANDBOX_STATE_DIR",
            )
            .with_context("directory", state.display())
        })?;
        Ok(Self {
            state,
            host,
            records,
            zygote,
            weaken,
            default_processes,
        })
    }

    /// Whether a limit on processes must be known when a sandbox is made: where the kernel counts them for the maker of
    /// its user namespace, by the limit that this has then.
    pub(crate) fn counts_processes_from_the_start(&self) -> bool {
        subordinate::used().is_some()
            && !self.host.has_pids()
            && self.host.counts_processes_by_user()
    }

    /// Names of the templates that something stands on; `None` if that cannot be told.
    pub(crate) fn templates_in_use(&self) -> InUse {
        template::in_use(&self.state, self.records.templates_in_use())
    }
}
