//! Options about what a sandbox may reach.

use crate::parse::{self, Opening};
use clap::Args;
use sandbox::{NetworkPolicy, NetworkRule};
use std::net::SocketAddr;

/// What a new sandbox may reach.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// What it may reach: `off`, `public` (the internet, never this machine and its networks), or a file of rules
    /// [default: off]
    #[arg(long, value_name = "off|public|FILE", value_parser = parse::policy)]
    pub(crate) network: Option<NetworkPolicy>,

    /// Let it reach a host name, all names below one, or a network, and nothing else: example.com, *.example.com:443,
    /// 93.184.215.0/24 (repeatable)
    #[arg(long, value_name = "NAME|NETWORK[:PORT]", value_parser = parse::allow)]
    pub(crate) allow: Vec<NetworkRule>,

    /// Let it reach this port of this machine's loopback address, as host.sandbox.internal (repeatable)
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) allow_host_port: Vec<u16>,

    /// Open addresses that no rule could: of this machine, its neighbours, or another special range. They must be allowed
    /// besides (repeatable)
    #[arg(long, value_name = "NETWORK[:PORT]", value_parser = parse::opening)]
    pub(crate) open: Vec<Opening>,

    /// Ask this server for the addresses of names, instead of those that this machine asks (repeatable)
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse::nameserver)]
    pub(crate) nameserver: Vec<SocketAddr>,
}

/// Carry the connections of detached sandboxes, until some time after the last one has ended
///
/// Other commands start it when it is needed.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {}

/// Show or change what a sandbox may reach
///
/// Prints the policy as a file of rules that `--network` and `--set` take: a line for each, `allow` or `deny` and a host
/// name, `*.` and a name, a network, or `*`, with `:PORT` if it is for one port. The first that fits decides, and the
/// last line says what happens where none does. What belongs to this machine and its networks stays closed in any case.
/// A change holds for new connections at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox net build\n  \
    sandbox net build --allow pypi.org --allow '*.pythonhosted.org'\n  \
    sandbox net build --set off --cut")]
pub(crate) struct NetArgs {
    /// Id of the sandbox, the start of it, or its name
    pub(crate) id: String,

    /// The new policy: `off`, `public`, or a file of rules
    #[arg(long, value_name = "off|public|FILE", value_parser = parse::policy)]
    pub(crate) set: Option<NetworkPolicy>,

    /// Allow a host name, all names below one, or a network, before all other rules (repeatable)
    #[arg(long, value_name = "NAME|NETWORK[:PORT]", value_parser = parse::allow)]
    pub(crate) allow: Vec<NetworkRule>,

    /// Deny a host name, all names below one, or a network, before all other rules (repeatable)
    #[arg(long, value_name = "NAME|NETWORK[:PORT]", value_parser = parse::deny)]
    pub(crate) deny: Vec<NetworkRule>,

    /// Also cut connections that the new policy would not allow
    #[arg(long)]
    pub(crate) cut: bool,

    /// Print an object instead of the rules
    #[arg(long)]
    pub(crate) json: bool,
}
