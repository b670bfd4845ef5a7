//! A network policy that was checked, and its word on a connection.

use crate::{
    floor::Floor,
    name::{Name, Pattern},
    ranges::{self, Class},
};
use ipnet::IpNet;
use sandbox_core::{
    Destination, Error, ErrorKind, NetworkAction, NetworkPolicy, NetworkRule, Result,
};
use std::{fmt, net::IpAddr};

/// Most rules of a policy.
const MOST_RULES: usize = 1024;

/// What a sandbox may reach, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    /// What happens where no rule fits.
    allows: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allows: bool,
    place: Place,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Any,
    Named(Pattern),
    Network(IpNet),
}

/// Where a connection goes, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    address: IpAddr,
    port: u16,
    resolved: &'a [Name],
    said: Said<'a>,
}

impl<'a> Target<'a> {
    /// An address of which no more is known.
    #[must_use]
    pub fn new(address: IpAddr, port: u16) -> Self {
        Self {
            address: ranges::canonical(address),
            port,
            resolved: &[],
            said: Said::Unknown,
        }
    }

    /// The names for which our own resolver gave the address to this sandbox.
    #[must_use]
    pub fn resolved(mut self, names: &'a [Name]) -> Self {
        self.resolved = names;
        self
    }

    /// What the connection itself says.
    #[must_use]
    pub fn said(mut self, said: Said<'a>) -> Self {
        self.said = said;
        self
    }
}

/// The name that a connection asks for by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said<'a> {
    /// They were not read yet.
    Unknown,
    /// The server name of TLS, or the host of HTTP.
    Name(&'a Name),
    /// It is TLS or HTTP, and has no name that can be read.
    Hidden,
    /// It is something else, which says no name.
    Nothing,
}

/// Whether a connection may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It may.
    Allowed(Reason),
    /// It may not.
    Denied(Reason),
    /// Its first bytes decide: ask again with what they say.
    NameNeeded,
}

impl Verdict {
    /// Whether it is [`Verdict::Allowed`].
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// What has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The rule of this number, from 0.
    Rule(usize),
    /// No rule fits.
    Default,
    /// The floor beneath all policies.
    Floor(Class),
    /// The rule of this number allows a name, and the connection hides its own.
    HiddenName(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(number) => write!(f, "rule {}", number + 1),
            Self::Default => f.write_str("no rule fits"),
            Self::Floor(class) => write!(f, "it is {class}, which no policy opens"),
            Self::HiddenName(number) => write!(
                f,
                "rule {} allows a name, and the connection does not say its own",
                number + 1
            ),
        }
    }
}

impl Policy {
    /// Checks a policy.
    ///
    /// # Errors
    /// `InvalidArgument` for names, networks and ports that there cannot be, and for more than 1,024 rules;
    /// `Unsupported` for what this version does not know.
    pub fn new(policy: &NetworkPolicy) -> Result<Self> {
        let (rules, allows): (&[NetworkRule], bool) = match policy {
            NetworkPolicy::Off => (&[], false),
            NetworkPolicy::Public => (&[], true),
            NetworkPolicy::Rules { rules, default } => (rules, allows(*default)?),
            _ => return Err(unknown("policy")),
        };
        if rules.len() > MOST_RULES {
            let message = format!(
                "a policy has at most {MOST_RULES} rules, not {}",
                rules.len()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let rules = rules.iter().map(Rule::new).collect::<Result<_>>()?;
        Ok(Self { rules, allows })
    }

    /// Whether the connection may be made.
    #[must_use]
    pub fn decide(&self, floor: &Floor, target: &Target<'_>) -> Verdict {
        if let Some(class) = floor.closes(target.address, target.port) {
            return Verdict::Denied(Reason::Floor(class));
        }
        let for_port = |rule: &Rule| rule.port.is_none_or(|port| port == target.port);
        let rules = self.rules.iter().enumerate();
        for (number, rule) in rules.filter(|(_, rule)| for_port(rule)) {
            let fits = match &rule.place {
                Place::Any => Fit::Yes,
                Place::Network(network) => Fit::of(network.contains(&target.address)),
                Place::Named(pattern) if rule.allows => allowed_name(pattern, target),
                Place::Named(pattern) => denied_name(pattern, target),
            };
            match fits {
                Fit::No => {}
                Fit::Yes => return verdict(rule.allows, Reason::Rule(number)),
                Fit::Hidden => return Verdict::Denied(Reason::HiddenName(number)),
                Fit::Unknown => return Verdict::NameNeeded,
            }
        }
        verdict(self.allows, Reason::Default)
    }

    /// Whether the resolver may be asked for a name: a rule or the default allows it by that name. That it may have an
    /// address which a network allows is not enough, for the question alone would tell somebody what the name says.
    #[must_use]
    pub fn may_resolve(&self, name: &Name) -> bool {
        self.may_reach(name, |_| None)
    }

    /// Whether an answer of the resolver may be handed on: the address can be reached by this name at some port.
    #[must_use]
    pub fn may_answer(&self, floor: &Floor, name: &Name, address: IpAddr) -> bool {
        let address = ranges::canonical(address);
        floor.closes_all(address).is_none()
            && self.may_reach(name, |network| Some(network.contains(&address)))
    }

    /// Whether some rule, or their absence, could allow a connection to `name`; `holds` says of a network if it holds
    /// the address, where that is known.
    fn may_reach(&self, name: &Name, holds: impl Fn(&IpNet) -> Option<bool>) -> bool {
        // Ports that are denied before a rule allows them. They are never all: there are fewer rules.
        let mut closed = Vec::new();
        for rule in &self.rules {
            let fits = match &rule.place {
                Place::Any => Some(true),
                Place::Named(pattern) => Some(pattern.matches(name)),
                Place::Network(network) => holds(network),
            };
            match (fits, rule.allows, rule.port) {
                (Some(false) | None, ..) => {}
                (_, true, Some(port)) if closed.contains(&port) => {}
                (_, true, _) => return true,
                (Some(true), false, None) => return false,
                (Some(true), false, Some(port)) => closed.push(port),
            }
        }
        self.allows
    }
}

impl Rule {
    fn new(rule: &NetworkRule) -> Result<Self> {
        if rule.port == Some(0) {
            return Err(Error::new(ErrorKind::InvalidArgument, "there is no port 0"));
        }
        let place = match &rule.destination {
            Destination::Any => Place::Any,
            Destination::Domain(pattern) => Place::Named(Pattern::new(pattern)?),
            Destination::Cidr { address, prefix } => Place::Network(network(*address, *prefix)?),
            _ => return Err(unknown("destination")),
        };
        Ok(Self {
            allows: allows(rule.action)?,
            place,
            port: rule.port,
        })
    }
}

/// A network by one of its addresses, of IPv4 where it is only written as one of IPv6.
fn network(address: IpAddr, prefix: u8) -> Result<IpNet> {
    let (address, prefix) = match (address, ranges::canonical(address)) {
        (IpAddr::V6(_), canonical @ IpAddr::V4(_)) if prefix >= 96 => (canonical, prefix - 96),
        (address, _) => (address, prefix),
    };
    IpNet::new(address, prefix).map_err(|_| {
        let message = format!("{address}/{prefix} is no network: the prefix is too long");
        Error::new(ErrorKind::InvalidArgument, message)
    })
}

fn allows(action: NetworkAction) -> Result<bool> {
    match action {
        NetworkAction::Allow => Ok(true),
        NetworkAction::Deny => Ok(false),
        _ => Err(unknown("action")),
    }
}

fn unknown(what: &str) -> Error {
    let message = format!("this version does not know that {what} of a network policy");
    Error::new(ErrorKind::Unsupported, message)
}

fn verdict(allows: bool, reason: Reason) -> Verdict {
    if allows {
        Verdict::Allowed(reason)
    } else {
        Verdict::Denied(reason)
    }
}

/// Whether a rule is for a connection.
enum Fit {
    No,
    Yes,
    /// It would be, if the connection did not hide its name.
    Hidden,
    /// That depends on what it says.
    Unknown,
}

impl Fit {
    fn of(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

/// A name allows only what our resolver gave for it: else a connection to any address could say it.
fn allowed_name(pattern: &Pattern, target: &Target<'_>) -> Fit {
    let mut resolved = target.resolved.iter();
    if !resolved.any(|name| pattern.matches(name)) {
        return Fit::No;
    }
    match target.said {
        Said::Unknown => Fit::Unknown,
        Said::Name(name) => Fit::of(pattern.matches(name) && target.resolved.contains(name)),
        Said::Hidden => Fit::Hidden,
        Said::Nothing => Fit::Yes,
    }
}

/// A name denies what says it. What says none is denied if its address was given for that name.
fn denied_name(pattern: &Pattern, target: &Target<'_>) -> Fit {
    match target.said {
        Said::Unknown => Fit::Unknown,
        Said::Name(name) => Fit::of(pattern.matches(name)),
        Said::Hidden | Said::Nothing => {
            Fit::of(target.resolved.iter().any(|name| pattern.matches(name)))
        }
    }
}

#[cfg(test)]
mod tests;
