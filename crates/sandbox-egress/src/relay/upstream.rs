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
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::timeout;

/// How long a program waits for an answer at most: it asks again after five seconds.
const PATIENCE: Duration = Duration::from_millis(4500);

/// Most addresses that are taken from one answer.
const MOST: usize = 64;

/// Who is asked.
#[derive(Debug)]
pub(super) struct Upstream {
    /// There is none where this host has no resolver.
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
        let (config, options) = match nameservers {
            Some(nameservers) => (these(nameservers), ResolverOpts::default()),
            None => match system_conf::read_system_conf() {
                Ok(found) => found,
                Err(_) => return Ok(Self { resolver: None }),
            },
        };
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        *builder.options_mut() = options;
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        // What an administrator has written there is meant for this host.
        options.use_hosts_file = ResolveHosts::Never;
        options.positive_max_ttl = Some(Duration::from_secs(60 * 60));
        options.negative_max_ttl = Some(Duration::from_secs(60));
        options.max_active_requests = 1024;
        let resolver = builder.build().map_err(|error| {
            let message = "the resolver cannot be set up";
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        Ok(Self {
            resolver: Some(resolver),
        })
    }

    /// The addresses of a name, whatever other names lead to them; of IPv6 only those that this host could reach.
    pub(super) async fn addresses(&self, name: &Name, family: Family) -> Found {
        let (Some(resolver), Ok(asked)) = (&self.resolver, DnsName::from_ascii(name.as_str()))
        else {
            return Found::NoAnswer;
        };
        let mut asked = asked;
        // Nothing is added to it then.
        asked.set_fqdn(true);
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let lookup = match timeout(PATIENCE, resolver.lookup(asked, kind)).await {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) if error.is_nx_domain() => return Found::NoSuchName,
            Ok(Err(error)) if error.is_no_records_found() => return none(),
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

fn none() -> Found {
    Found::Addresses {
        addresses: Vec::new(),
        ttl: 0,
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
