//! What a sandbox may reach, and what it has reached for. Each provider maps policies exactly or answers `Unsupported`.

use crate::{BoxStream, Result};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::SystemTime};

mod text;

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
///
/// A rule that denies a name denies who says it. A program that knows an address and says no name, or none that can be read,
/// is not kept from a host by its name: where that matters, deny by default and allow what is needed.
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

/// What becomes of connections that a new policy would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Existing {
    /// They go on.
    Keep,
    /// They are cut.
    Cut,
}

/// Something that a sandbox has reached for: a connection, or a name that it wanted to be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkEvent {
    /// When.
    pub at: SystemTime,
    /// Tells the events of one connection from those of others of the same sandbox.
    pub connection: u64,
    /// What has happened.
    pub kind: NetworkEventKind,
    /// The name that was asked for, or by which the connection was judged.
    pub name: Option<String>,
    /// Where the connection goes. Not known of a name that was not resolved.
    pub address: Option<IpAddr>,
    /// At which port; 53 where a name was asked for.
    pub port: u16,
    /// The rule that has decided, from 0; `None` is another reason.
    pub rule: Option<usize>,
    /// Why, in words; for what was refused or has failed also what would help.
    pub reason: String,
    /// Bytes that have left the sandbox.
    pub sent: u64,
    /// Bytes that have come in.
    pub received: u64,
}

impl NetworkEvent {
    /// An event of which no more is known.
    #[must_use]
    pub fn new(at: SystemTime, connection: u64, kind: NetworkEventKind, port: u16) -> Self {
        Self {
            at,
            connection,
            kind,
            name: None,
            address: None,
            port,
            rule: None,
            reason: String::new(),
            sent: 0,
            received: 0,
        }
    }
}

/// What has happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkEventKind {
    /// It was allowed and is made.
    Opened,
    /// It has ended; `sent` and `received` are whole.
    Closed,
    /// It was cut by a change of policy.
    Cut,
    /// It was refused by the policy, or by what lies beneath all policies.
    Denied,
    /// It was allowed, and the other side could not be reached.
    Failed,
    /// A name was refused by the policy.
    NameDenied,
    /// Something was left out here: more has happened than was kept.
    Lost,
}

/// Tells and changes what a sandbox may reach.
#[async_trait]
pub trait Network: Send + Sync {
    /// What holds now.
    async fn policy(&self) -> Result<NetworkPolicy>;

    /// Replaces the policy, for new connections at once.
    ///
    /// # Errors
    /// `InvalidArgument` for a policy that cannot be; `Unsupported` for one that the provider cannot carry.
    async fn set_policy(&self, policy: NetworkPolicy, existing: Existing) -> Result<()>;

    /// What the sandbox has reached for so far, as far as it was kept; with `follow` also what it reaches for from now on,
    /// until the sandbox ends.
    async fn events(&self, follow: bool) -> Result<BoxStream<'static, Result<NetworkEvent>>>;
}
