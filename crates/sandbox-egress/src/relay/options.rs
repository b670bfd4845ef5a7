//! What a caller may choose.

use crate::Floor;
use std::net::SocketAddr;

/// How a relay is to be.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RelayOptions {
    /// Beneath every policy. The addresses of this host are added, as they come and go.
    pub floor: Floor,
    /// Who is asked for addresses of names; `None` is whom this host asks.
    pub nameservers: Option<Vec<SocketAddr>>,
    /// For each sandbox.
    pub limits: Limits,
}

impl RelayOptions {
    /// The public internet, by the resolvers of this host.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the floor.
    #[must_use]
    pub fn floor(mut self, floor: Floor) -> Self {
        self.floor = floor;
        self
    }

    /// Names who is asked for addresses.
    #[must_use]
    pub fn nameservers(mut self, nameservers: Vec<SocketAddr>) -> Self {
        self.nameservers = Some(nameservers);
        self
    }

    /// Sets what each sandbox may do.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// What each sandbox may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at the same time; more are reset.
    pub connections: usize,
    /// New connections a second; more wait.
    pub connections_per_second: u32,
    /// Queries for names at the same time; more are answered with a failure, or wait if they come by TCP.
    pub queries: usize,
    /// Queries a second; more wait, and are lost as datagrams are.
    pub queries_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_240,
            connections_per_second: 4096,
            queries: 256,
            queries_per_second: 2048,
        }
    }
}

impl Limits {
    /// Sets how many connections there may be at the same time.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how many connections may be made a second.
    #[must_use]
    pub fn connections_per_second(mut self, connections: u32) -> Self {
        self.connections_per_second = connections;
        self
    }

    /// Sets how many queries there may be at the same time.
    #[must_use]
    pub fn queries(mut self, queries: usize) -> Self {
        self.queries = queries;
        self
    }

    /// Sets how many queries may be asked a second.
    #[must_use]
    pub fn queries_per_second(mut self, queries: u32) -> Self {
        self.queries_per_second = queries;
        self
    }
}
