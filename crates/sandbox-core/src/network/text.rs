//! Policies and rules as people write them: one rule a line.

use super::{Destination, NetworkAction, NetworkPolicy, NetworkRule};
use crate::{Error, Result};
use std::{fmt, net::IpAddr, str::FromStr};

impl fmt::Display for NetworkAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl FromStr for NetworkAction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(wrong("`allow` or `deny`", text)),
        }
    }
}

/// `*`, a name, or a network such as `10.0.0.0/8`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Domain(name) => f.write_str(name),
            Self::Cidr { address, prefix } => write!(f, "{address}/{prefix}"),
        }
    }
}

/// As [`Destination`]'s `Display` writes it. An address alone is the network of that one address.
impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let bits = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        match (address.parse::<IpAddr>(), prefix) {
            (Ok(address), None) => Ok(Self::Cidr {
                prefix: bits(&address),
                address,
            }),
            (Ok(address), Some(prefix)) => match prefix.parse() {
                Ok(prefix) if prefix <= bits(&address) => Ok(Self::Cidr { address, prefix }),
                _ => Err(wrong("a network such as 10.0.0.0/8", text)),
            },
            (Err(_), None) if is_name(text) => Ok(Self::Domain(text.to_owned())),
            (Err(_), _) => Err(wrong("a name, `*.` and a name, or a network", text)),
        }
    }
}

/// Whether a text can stand for a name here. Whether there can be such a name is not looked at.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_*".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// The destination, and after a `:` the port. An address of IPv6 with a port is in brackets.
impl fmt::Display for NetworkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.action)?;
        match (&self.destination, self.port) {
            (destination, None) => write!(f, "{destination}"),
            (Destination::Cidr { address, prefix }, Some(port)) if address.is_ipv6() => {
                write!(f, "[{address}]/{prefix}:{port}")
            }
            (destination, Some(port)) => write!(f, "{destination}:{port}"),
        }
    }
}

impl NetworkRule {
    /// A rule for the destination and port that `text` names: `example.com`, `*.example.com:443`, `93.184.215.0/24`,
    /// `[2a00::]/16:443`, `*:53`.
    ///
    /// # Errors
    /// `InvalidArgument` for another text.
    pub fn parse(action: NetworkAction, text: &str) -> Result<Self> {
        let (destination, port) = split_port(text)?;
        let mut rule = Self::new(action, destination.parse()?);
        rule.port = port;
        Ok(rule)
    }
}

/// As [`NetworkRule`]'s `Display` writes it: an action, and what [`NetworkRule::parse`] takes.
impl FromStr for NetworkRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(action), Some(to), None) => Self::parse(action.parse()?, to),
            _ => Err(wrong("`allow` or `deny`, and where to", text)),
        }
    }
}

fn split_port(text: &str) -> Result<(String, Option<u16>)> {
    let number = |port: &str| {
        let port = port.parse().ok().filter(|port| *port > 0);
        port.ok_or_else(|| wrong("a port from 1 to 65535 after the `:`", text))
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest
            .split_once(']')
            .ok_or_else(|| wrong("a `]` after the address", text))?;
        return match rest.split_once(':') {
            Some((prefix, port)) => Ok((format!("{address}{prefix}"), Some(number(port)?))),
            None => Ok((format!("{address}{rest}"), None)),
        };
    }
    match text.split_once(':') {
        // An address of IPv6 has more than one.
        Some((destination, port)) if !port.contains(':') => {
            Ok((destination.to_owned(), Some(number(port)?)))
        }
        _ => Ok((text.to_owned(), None)),
    }
}

/// `off`, `public`, or a rule a line and `default allow` or `default deny` as the last one.
impl fmt::Display for NetworkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Public => f.write_str("public"),
            Self::Rules { rules, default } => {
                for rule in rules {
                    writeln!(f, "{rule}")?;
                }
                write!(f, "default {default}")
            }
        }
    }
}

/// As [`NetworkPolicy`]'s `Display` writes it. Empty lines and what follows a `#` are left out; without a `default` it is
/// `deny`.
impl FromStr for NetworkPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        let mut lines = lines
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .peekable();
        match lines.peek() {
            Some(&kind @ ("off" | "public")) => {
                lines.next();
                return match (kind, lines.next()) {
                    ("off", None) => Ok(Self::Off),
                    (_, None) => Ok(Self::Public),
                    (_, Some(more)) => Err(wrong("nothing after `off` or `public`", more)),
                };
            }
            Some(_) => {}
            None => return Err(wrong("`off`, `public`, or a rule a line", text)),
        }
        let (mut rules, mut default) = (Vec::new(), None);
        for line in lines {
            if default.is_some() {
                return Err(wrong("nothing after `default`", line));
            }
            match line.strip_prefix("default ") {
                Some(action) => default = Some(action.trim().parse()?),
                None => rules.push(line.parse()?),
            }
        }
        let default = default.unwrap_or(NetworkAction::Deny);
        Ok(Self::Rules { rules, default })
    }
}

fn wrong(wanted: &str, found: &str) -> Error {
    /// Enough to find it again.
    const SHOWN: usize = 80;
    let found: String = found.chars().take(SHOWN).collect();
    let message = format!("this is no network policy: expected {wanted}");
    Error::invalid(message).with_context("found", found.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn a_policy_is_read_line_by_line() {
        let text = "
            # Packages, and nothing else.
            allow *.pypi.org:443
            allow pypi.org   # the index
            deny 10.0.0.0/8
            allow [2a00::]/16:443
            allow 2a00::1
            deny *:25
            default allow
        ";
        let policy: NetworkPolicy = text.parse().unwrap();
        let written = "allow *.pypi.org:443\nallow pypi.org\ndeny 10.0.0.0/8\nallow [2a00::]/16:443\n\
            allow 2a00::1/128\ndeny *:25\ndefault allow";
        assert_eq!(policy.to_string(), written);
        let NetworkPolicy::Rules { rules, .. } = policy else {
            panic!("these are rules");
        };
        assert_eq!(rules[0].port, Some(443));
        assert_eq!(rules[1].destination, Destination::Domain("pypi.org".into()));
        assert_eq!(
            "off\n".parse::<NetworkPolicy>().unwrap(),
            NetworkPolicy::Off
        );
        assert_eq!(
            " public # all".parse::<NetworkPolicy>().unwrap(),
            NetworkPolicy::Public
        );
    }

    #[test]
    fn a_policy_without_a_default_denies() {
        let policy: NetworkPolicy = "allow example.com".parse().unwrap();
        let denies = matches!(
            policy,
            NetworkPolicy::Rules {
                default: NetworkAction::Deny,
                ..
            }
        );
        assert!(denies);
    }

    #[test]
    fn what_is_none_is_refused_with_what_is_wrong() {
        for text in [
            "",
            "# nothing",
            "on",
            "off\nallow example.com",
            "allow",
            "allow a b",
            "permit example.com",
            "allow example.com:0",
            "allow example.com:65536",
            "allow example.com:http",
            "allow 10.0.0.0/33",
            "allow 10.0.0.0/-1",
            "allow example.com/8",
            "allow [::1",
            "allow http://example.com",
            "allow exämple.com",
            "default deny\nallow example.com",
            "default maybe",
        ] {
            let error = text.parse::<NetworkPolicy>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text:?}");
        }
    }

    fn some_rule() -> impl Strategy<Value = NetworkRule> {
        let action = prop_oneof![Just(NetworkAction::Allow), Just(NetworkAction::Deny)];
        let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(bits, prefix)| Destination::Cidr {
            address: IpAddr::V4(bits.into()),
            prefix,
        });
        let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, prefix)| Destination::Cidr {
            address: IpAddr::V6(bits.into()),
            prefix,
        });
        let name = "(\\*\\.)?[a-z][a-z0-9-]{0,9}(\\.[a-z]{2,5}){0,2}";
        let destination = prop_oneof![
            Just(Destination::Any),
            name.prop_map(Destination::Domain),
            v4,
            v6
        ];
        (action, destination, prop::option::of(1..=u16::MAX)).prop_map(
            |(action, destination, port)| {
                let mut rule = NetworkRule::new(action, destination);
                rule.port = port;
                rule
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(rules in prop::collection::vec(some_rule(), 0..6)) {
            let policy = NetworkPolicy::Rules { rules, default: NetworkAction::Allow };
            prop_assert_eq!(policy.to_string().parse::<NetworkPolicy>().unwrap(), policy);
        }

        #[test]
        fn any_text_is_a_policy_or_an_error(text in "\\PC{0,100}") {
            let _ = text.parse::<NetworkPolicy>();
        }
    }
}
