//! The options of `sandbox port` and `sandbox proxy`.

use clap::{Args, value_parser};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

/// Serve ports of a sandbox on this machine, until Ctrl-C
///
/// Each port is served by the port of the same number on 127.0.0.1, or by one that is free, if that one is taken; which one
/// is printed. The server inside may listen on its own loopback address only. It is reached as soon as it listens; until
/// then connections are reset. Ends when the sandbox does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox port web 8000\n  \
    sandbox port web 8000 5432 --json\n  \
    sandbox port web 8000 --listen 9000")]
pub(crate) struct PortArgs {
    /// Id of the sandbox, the start of it, or its name
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Ports in the sandbox
    #[arg(value_name = "PORT", required = true, value_parser = value_parser!(u16).range(1..))]
    pub(crate) ports: Vec<u16>,

    /// Where to listen on this machine: PORT, ADDRESS or ADDRESS:PORT. An address that is not loopback lets everybody in who
    /// reaches it
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<Listen>,

    /// Print an array of objects
    #[arg(long)]
    pub(crate) json: bool,
}

/// Serve all ports of all sandboxes by name, until Ctrl-C
///
/// `http://8000-web.localhost:7080` is port 8000 of the sandbox `web`, by its name or its id. It serves HTTP: pages,
/// WebSockets, server-sent events and HTTP/2 without TLS. Browsers and curl know that names below localhost are this
/// machine; other programs may need the resolver to know it. If port 7080 is taken it is one that is free; which one is
/// printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox proxy\n  \
    sandbox proxy --listen 9000\n  \
    curl http://8000-web.localhost:7080")]
pub(crate) struct ProxyArgs {
    /// Where to listen on this machine: PORT, ADDRESS or ADDRESS:PORT. An address that is not loopback lets everybody in who
    /// reaches it
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<Listen>,

    /// Print an object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) address: IpAddr,
    /// Only this one, if it is set.
    pub(crate) port: Option<u16>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: None,
        }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let loopback = Self::default().address;
        let (address, port) = if let Ok(port) = text.parse() {
            (loopback, Some(port))
        } else if let Ok(address) = text.parse::<SocketAddr>() {
            (address.ip(), Some(address.port()))
        } else if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse();
            (
                loopback,
                Some(port.map_err(|_| "the port is no number from 0 to 65535")?),
            )
        } else {
            let address = text.parse();
            let cure = "write a port, an address, or both as in 127.0.0.1:9000 or [::1]:9000";
            (address.map_err(|_| cure)?, None)
        };
        Ok(Self { address, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_an_address_or_both_are_read() {
        for (text, address, port) in [
            ("9000", "127.0.0.1", Some(9000)),
            ("0", "127.0.0.1", Some(0)),
            ("127.0.0.2", "127.0.0.2", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("localhost:80", "127.0.0.1", Some(80)),
            ("::1", "::1", None),
            ("[::1]:80", "::1", Some(80)),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(text.parse(), Ok(Listen { address, port }), "{text}");
        }
        for text in ["", "x", "65536", "127.0.0.1:", "localhost:x", "1.2.3", "-1"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
