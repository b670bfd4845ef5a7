//! The provider on Linux.

mod cgroup;
mod create;
mod disk;
mod doctor;
mod enforcement;
mod files;
mod host;
#[cfg(test)]
mod hostile;
mod init;
mod made;
mod network;
mod places;
mod pool;
mod process;
mod provider;
mod ranges;
mod reap;
mod record;
mod remove;
mod sandbox;
mod seccomp;
mod shared;
mod site;
mod snapshot;
mod socket;
mod stdin;
mod store;
mod subordinate;
mod template;
mod templates;
mod usage;
mod volumes;
mod waiting;
mod zygote;

pub(crate) use doctor::diagnose;
pub use doctor::{Check, Diagnosis, Verdict};
pub(crate) use network::detached::run as run_relay;
pub use pool::PoolStatus;
pub use provider::LocalProvider;
pub use reap::Pruned;
pub use template::{ImportedTemplate, Origin};
pub use templates::{ImportOptions, ImportProgress};
