//! What sandboxes reach: their policies on disk, who carries their connections, and what they have reached for.
//!
//! Whoever serves a sandbox's network has it from its PID 1, which gives it to one at a time and refuses every connection
//! while nobody does. An owned sandbox is served by the program that has made it, and detached ones by a process of their
//! user's ([`detached`]).

mod ask;
mod connect;
mod contract;
mod control;
pub(crate) mod detached;
mod lack;
mod log;
mod serving;
mod sockets;
mod stored;
mod take;
#[cfg(test)]
mod tests;

use super::record::{Records, looks_like_id};
use crate::config::{Opening, RelayProgram, Terms};
pub(crate) use connect::LocalPorts;
use control::Traffic;
use ipnet::IpNet;
pub(crate) use lack::not_caught;
use sandbox_core::{
    BoxStream, Error, Existing, NetworkEvent, NetworkPolicy, Ownership, Result, SandboxId,
};
use sandbox_egress::{Floor, Policy, Relay, RelayOptions};
pub(crate) use serving::Serving;
use std::{
    os::fd::AsFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
pub(crate) use stored::Stored;

/// What of networks a provider has in common.
#[derive(Debug)]
pub(crate) struct Networks {
    terms: Terms,
    relay_program: Option<RelayProgram>,
    /// Started with the first sandbox that needs it.
    relay: Mutex<Option<Arc<Relay>>>,
}

impl Networks {
    pub(crate) fn new(terms: Terms, relay_program: Option<RelayProgram>) -> Self {
        Self {
            terms,
            relay_program,
            relay: Mutex::default(),
        }
    }

    /// What is to hold for a sandbox that asks for `policy`; `None` if it needs no network.
    ///
    /// # Errors
    /// `InvalidArgument` or `Unsupported` for the policy; `Unsupported` for a detached sandbox where nothing can carry its
    /// connections.
    pub(crate) fn check(
        &self,
        policy: Option<NetworkPolicy>,
        ownership: Ownership,
    ) -> Result<Option<Stored>> {
        let Some(policy) = policy.filter(|policy| *policy != NetworkPolicy::Off) else {
            return Ok(None);
        };
        Policy::new(&policy)?;
        if ownership == Ownership::Detached && self.relay_program.is_none() {
            let what =
                "a detached sandbox with a network, unless the builder names a relay program,";
            return Err(Error::unsupported(what));
        }
        let terms = self.terms.clone();
        Ok(Some(Stored { policy, terms }))
    }

    /// Carries the connections of a new sandbox, or has them carried.
    pub(crate) fn serve(
        &self,
        records: &Records,
        id: &SandboxId,
        ownership: Ownership,
    ) -> Result<Option<Serving>> {
        let record = records.path(id);
        match (ownership, &self.relay_program) {
            (Ownership::Detached, Some(program)) => {
                detached::serve(&records.state(), program, id).map(|()| None)
            }
            _ => Serving::start(self.relay()?, &record).map(Some),
        }
    }

    /// The relay of this program.
    fn relay(&self) -> Result<Arc<Relay>> {
        let mut relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(relay) = &*relay {
            return Ok(Arc::clone(relay));
        }
        let started = Arc::new(start_relay(&self.terms)?);
        Ok(Arc::clone(relay.insert(started)))
    }
}

/// Refuses what an operator cannot mean.
pub(crate) fn check(terms: &Terms) -> Result<()> {
    floor(&terms.opened).map(drop)
}

/// What lies beneath all policies, but for what the operator has opened.
fn floor(opened: &[Opening]) -> Result<Floor> {
    opened.iter().try_fold(Floor::new(), |floor, opening| {
        let Opening {
            address,
            prefix,
            port,
        } = *opening;
        let network = IpNet::new(address, prefix).map_err(|_| {
            let message = format!("{address}/{prefix} is no network: the prefix is too long");
            Error::invalid(message)
        })?;
        Ok(floor.open(network, port))
    })
}

fn start_relay(terms: &Terms) -> Result<Relay> {
    let options = RelayOptions::new().floor(floor(&terms.opened)?);
    Relay::start(match &terms.nameservers {
        Some(nameservers) => options.nameservers(nameservers.clone()),
        None => options,
    })
}

/// Puts down what holds for a new sandbox, beside its record.
pub(crate) fn put_down(record: &Path, stored: &Stored) -> Result<()> {
    stored::write(record, stored)
}

/// What holds for a sandbox; `None` if it has no network at all.
pub(crate) fn stored(records: &Records, id: &SandboxId) -> Result<Option<Stored>> {
    if !looks_like_id(id.as_str()) {
        return Ok(None);
    }
    stored::read(&records.path(id))
}

/// Replaces the policy of a sandbox that lives. Blocks until whoever serves it goes by the new one.
pub(crate) fn set(
    records: &Records,
    id: &SandboxId,
    policy: NetworkPolicy,
    existing: Existing,
) -> Result<()> {
    Policy::new(&policy)?;
    let record = records.path(id);
    let _alone = stored::change_alone(&record)?;
    match stored::read(&record)? {
        Some(stored) => stored::write(&record, &Stored { policy, ..stored })?,
        None if policy == NetworkPolicy::Off => return Ok(()),
        None => {
            let what = "a network for a sandbox that was made without one (one that is made with an empty list of rules reaches nothing and can be opened later)";
            return Err(Error::unsupported(what));
        }
    }
    let directory = std::fs::File::open(&record).map_err(|error| {
        super::record::storage_error(error, "the sandbox's record could not be opened")
    })?;
    control::tell(directory.as_fd(), existing).map(drop)
}

/// What was carried for a sandbox; `None` if that is not known.
pub(crate) fn traffic(record: &Path) -> Option<Traffic> {
    let directory = std::fs::File::open(record).ok()?;
    control::traffic(directory.as_fd()).ok()?
}

/// What a sandbox has reached for, and with `follow` what it reaches for until its end.
pub(crate) fn events(record: &Path, follow: bool) -> BoxStream<'static, Result<NetworkEvent>> {
    log::stream(record, follow)
}
