//! Asks the resolvers of this host, or those that the caller has named.

use super::host;
use crate::Name;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{Name as DnsName, RData, RecordType},
    system_conf,
};
use sandbox_core::{Error, ErrorKind, Result};
use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::timeout;

/// How long a program waits for an answer at most: it asks again after five seconds.
const PATIENCE: Duration = Duration::from_millis(4500);

/// Most addresses that are taken from one answer.
const MOST: usize = 64;

/// Where this host says whom it asks.
const SYSTEM: &str = "/etc/resolv.conf";

/// Who is asked.
pub(super) enum Upstream {
    These(TokioResolver),
    System(Mutex<System>),
}

/// Whom this host asks, as it was when its configuration was read last. It changes with the networks that it is in.
#[derive(Default)]
pub(super) struct System {
    read: Option<(SystemTime, u64)>,
    /// There is none where this host has none.
    resolver: Option<TokioResolver>,
}

/// Of which kind an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// What the resolvers say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Addresses { addresses: Vec<IpAddr>, ttl: u32 },
    NoSuchName,
    NoAnswer,
}

impl Upstream {
    /// Asks these, or those of the system's configuration. Must be called within a runtime.
    ///
    /// # Errors
    /// `Unavailable` if the resolver cannot be built.
    pub(super) fn new(nameservers: Option<&[SocketAddr]>) -> Result<Self> {
        let Some(nameservers) = nameservers else {
            return Ok(Self::System(Mutex::default()));
        };
        let resolver = resolver(these(nameservers), ResolverOpts::default());
        let resolver = resolver.ok_or_else(|| {
            let message = "nobody can be asked for names by these addresses";
            Error::new(ErrorKind::Unavailable, message)
        })?;
        Ok(Self::These(resolver))
    }

    /// Who is asked now.
    fn resolver(&self) -> Option<TokioResolver> {
        let system = match self {
            Self::These(resolver) => return Some(resolver.clone()),
            Self::System(system) => system,
        };
        let mut system = system.lock().unwrap_or_else(PoisonError::into_inner);
        let read = fs::metadata(SYSTEM).and_then(|file| Ok((file.modified()?, file.ino())));
        let read = read.ok();
        if read.is_none() || read != system.read {
            let found = system_conf::read_system_conf().ok();
            system.resolver = found.and_then(|(config, options)| resolver(config, options));
            system.read = read;
        }
        system.resolver.clone()
    }

    /// The addresses of a name, whatever other names lead to them; of IPv6 only those that this host could reach.
    pub(super) async fn addresses(&self, name: &Name, family: Family) -> Found {
        let asked = DnsName::from_ascii(name.as_str());
        let (Some(resolver), Ok(mut asked)) = (self.resolver(), asked) else {
            return Found::NoAnswer;
        };
        // Nothing is added to it then.
        asked.set_fqdn(true);
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let lookup = match timeout(PATIENCE, resolver.lookup(asked, kind)).await {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) if error.is_nx_domain() => return Found::NoSuchName,
            Ok(Err(error)) if error.is_no_records_found() => return Found::addresses(None),
            Ok(Err(_)) | Err(_) => return Found::NoAnswer,
        };
        let (mut v4, mut v6, mut ttl) = (Vec::new(), Vec::new(), u32::MAX);
        for record in lookup.answers() {
            ttl = ttl.min(record.ttl);
            match &record.data {
                RData::A(address) if family == Family::V4 => v4.push(IpAddr::V4(address.0)),
                RData::AAAA(address) if family == Family::V6 => v6.push(address.0),
                _ => {}
            }
        }
        let v6 = host::routed(v6).into_iter().map(IpAddr::V6);
        let addresses = v4.into_iter().chain(v6).take(MOST).collect();
        Found::Addresses { addresses, ttl }
    }
}

fn resolver(config: ResolverConfig, mut options: ResolverOpts) -> Option<TokioResolver> {
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    // What an administrator has written there is meant for this host.
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(Duration::from_secs(60 * 60));
    options.negative_max_ttl = Some(Duration::from_secs(60));
    options.max_active_requests = 1024;
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(config, provider);
    *builder.options_mut() = options;
    builder.build().ok()
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

impl Found {
    /// These, and no more is known of them.
    pub(super) fn addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Addresses {
            addresses: addresses.into_iter().collect(),
            ttl: 0,
        }
    }
}

fn these(nameservers: &[SocketAddr]) -> ResolverConfig {
    let mut config = ResolverConfig::default();
    for address in nameservers {
        let at = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        server.connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
        config.add_name_server(server);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_configuration_of_this_host_is_read_when_it_has_changed() {
        let upstream = Upstream::new(None).unwrap();
        let has_any = system_conf::read_system_conf().is_ok();
        assert_eq!(upstream.resolver().is_some(), has_any);
        let Upstream::System(system) = &upstream else {
            panic!("these were not named");
        };
        let read = system.lock().unwrap().read;
        assert_eq!(read.is_some(), fs::metadata(SYSTEM).is_ok());
        // As if it had been read from another file.
        *system.lock().unwrap() = System {
            read: Some((SystemTime::UNIX_EPOCH, 0)),
            resolver: None,
        };
        assert_eq!(upstream.resolver().is_some(), has_any);
        assert_eq!(system.lock().unwrap().read, read);
    }
}
