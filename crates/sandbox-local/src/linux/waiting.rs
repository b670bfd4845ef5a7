//! A sandbox that is made before anybody asks for one, and what is left to do when somebody does.
//!
//! It is whole: a record (marked, so that it is not shown), an id, a range of uids, files, cgroups without values, and a
//! PID 1 in these that refuses all work. The name, the owner, limits, environment, metadata and the clock come with whoever
//! takes it.

use super::{
    create::{self, Request, enforceable, now_ms},
    made::{self, Made},
    network,
    pool::Kind,
    record::{Record, storage_error},
    site::Site,
    template,
};
use sandbox_agent::protocol::agent;
use sandbox_core::{Error, ErrorKind, Result, TemplateId};
use std::{io, os::fd::AsFd, time::Duration};

/// A sandbox that is nobody's yet. Dropping it ends it and removes what it leaves.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(super) made: Made,
    pub(super) record: Record,
}

impl Waiting {
    /// Makes one of this kind.
    pub(crate) fn make(site: &Site, kind: Kind) -> Result<Self> {
        let made = create::make(site, Request::pooled(kind))?;
        made.tell(&agent::Request::Wait {})?;
        let record = made.locked()?.read();
        let record = record
            .and_then(|record| record.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|error| storage_error(error, "the sandbox's record could not be read"))?;
        Ok(Self { made, record })
    }

    /// Whether it lives and is what would be made now.
    pub(crate) fn is_fit(&self, site: &Site) -> bool {
        let asked = TemplateId::new(self.record.template.as_str());
        let template = template::current(&asked, &site.state);
        let is_current = template.is_ok_and(|name| self.record.template_directory == Some(name));
        is_current && !made::wait(self.made.pidfd.as_fd(), Duration::ZERO)
    }

    /// Becomes what was asked for.
    ///
    /// # Errors
    /// `AlreadyExists` for the name, and then it still waits; after any other error it is of no use.
    pub(crate) fn begin(&mut self, site: &Site, request: &Request) -> Result<()> {
        let locked = self.made.locked()?;
        let limits = enforceable(&site.host, request.limits);
        let mut record = Record {
            name: request.name.clone(),
            ownership: request.ownership,
            limits,
            metadata: request.metadata.clone(),
            created_ms: now_ms(),
            ..self.record.clone()
        };
        if let Some(stored) = &request.network {
            network::put_down(&locked.path, stored)?;
        }
        if record.name.is_some() {
            // From now on nobody else gets the name, and still nobody sees this sandbox.
            site.records.write(locked, &record)?;
        }
        record.groups.limit(&site.host, &limits).map_err(|error| {
            let message = "the sandbox could not be put under its limits";
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        self.made.tell(&agent::Request::Begin {
            env: request.variables(&self.record.template_env),
            lifetime_ms: request.lifetime.as_millis() as u64,
            max_processes: create::most_processes(&site.host, &record.limits),
            limits: create::shown(&limits),
        })?;
        record.pooled = false;
        site.records.rewrite(locked, &record)?;
        self.made.ownership = request.ownership;
        Ok(())
    }

    /// The sandbox itself, whose owner says what becomes of it.
    pub(crate) fn into_made(self) -> Made {
        self.made
    }
}
