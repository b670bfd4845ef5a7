//! What a sandbox may reach. The types only; each provider maps them exactly or answers `Unsupported`.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a sandbox may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkPolicy {
    /// Nothing but itself.
    Off,
    /// The public internet; never the host, its networks or other sandboxes.
    Public,
    /// The first rule that fits decides, else `default`. Private and special ranges stay closed whatever the rules say.
    Rules {
        /// In order.
        rules: Vec<NetworkRule>,
        /// When no rule fits.
        default: NetworkAction,
    },
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkAction {
    /// The connection is made.
    Allow,
    /// The connection is refused.
    Deny,
}

/// One line of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkRule {
    /// What happens.
    pub action: NetworkAction,
    /// Where the connection goes.
    pub destination: Destination,
    /// To which port; `None` is any.
    pub port: Option<u16>,
}

impl NetworkRule {
    /// A rule for any port.
    #[must_use]
    pub fn new(action: NetworkAction, destination: Destination) -> Self {
        Self {
            action,
            destination,
            port: None,
        }
    }

    /// The same rule for one port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Destination {
    /// Everywhere.
    Any,
    /// A host name, or `*.` and a suffix for all names below it.
    Domain(String),
    /// A network of addresses.
    Cidr {
        /// Any address of the network.
        address: IpAddr,
        /// Length of the prefix in bits.
        prefix: u8,
    },
}
