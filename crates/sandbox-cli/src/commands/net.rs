//! `sandbox net`: what a sandbox may reach; and what makes a policy of options.

use crate::{
    args::{NetArgs, NetworkArgs},
    output, provider,
};
use anyhow::{Context, Result, bail};
use sandbox::{Destination, Existing, NetworkAction, NetworkPolicy, NetworkRule, SandboxExt};
use serde::Serialize;
use std::{net::Ipv4Addr, path::Path};

/// A policy for programs.
#[derive(Debug, Serialize)]
struct Object {
    /// `off`, `public` or `rules`.
    network: &'static str,
    /// As they are written in a file; the first that fits decides.
    rules: Vec<String>,
    /// What happens where none fits.
    default: String,
}

pub(crate) async fn net(state_dir: Option<&Path>, args: NetArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    let network = sandbox.require_network()?;
    let failed = || format!("cannot look at the network of the sandbox {}", args.id);
    let mut policy = network.policy().await.with_context(failed)?;
    if let Some(changed) = changed(&args, &policy)? {
        let existing = match args.cut {
            true => Existing::Cut,
            false => Existing::Keep,
        };
        let set = network.set_policy(changed.clone(), existing).await;
        set.with_context(|| format!("cannot change the network of the sandbox {}", args.id))?;
        policy = changed;
    }
    if args.json {
        output::print_json(&object(&policy))?;
    } else {
        output::print(&policy)?;
    }
    Ok(0)
}

/// The new policy, if the options ask for one.
fn changed(args: &NetArgs, policy: &NetworkPolicy) -> Result<Option<NetworkPolicy>> {
    let rules: Vec<_> = args.deny.iter().chain(&args.allow).cloned().collect();
    if args.set.is_none() && rules.is_empty() {
        if args.cut {
            bail!("--cut goes with a change: --set, --allow or --deny");
        }
        return Ok(None);
    }
    Ok(Some(with(args.set.as_ref().unwrap_or(policy), rules)))
}

/// A policy with rules before its own.
fn with(policy: &NetworkPolicy, first: Vec<NetworkRule>) -> NetworkPolicy {
    if first.is_empty() {
        return policy.clone();
    }
    let (rules, default) = parts(policy);
    NetworkPolicy::Rules {
        rules: first.into_iter().chain(rules).collect(),
        default,
    }
}

fn parts(policy: &NetworkPolicy) -> (Vec<NetworkRule>, NetworkAction) {
    match policy {
        NetworkPolicy::Public => (Vec::new(), NetworkAction::Allow),
        NetworkPolicy::Rules { rules, default } => (rules.clone(), *default),
        _ => (Vec::new(), NetworkAction::Deny),
    }
}

fn object(policy: &NetworkPolicy) -> Object {
    let (rules, default) = parts(policy);
    Object {
        network: match policy {
            NetworkPolicy::Off => "off",
            NetworkPolicy::Public => "public",
            _ => "rules",
        },
        rules: rules.iter().map(ToString::to_string).collect(),
        default: default.to_string(),
    }
}

/// The policy of a new sandbox; `None` is the provider's default.
pub(crate) fn policy(args: &NetworkArgs) -> Result<Option<NetworkPolicy>> {
    if args.network == Some(NetworkPolicy::Public) && !args.allow.is_empty() {
        bail!("`--network public` allows all that --allow could; leave one of them out");
    }
    let ports = args.allow_host_port.iter().map(|port| {
        let host = Destination::Cidr {
            address: Ipv4Addr::LOCALHOST.into(),
            prefix: 32,
        };
        NetworkRule::new(NetworkAction::Allow, host).port(*port)
    });
    let first: Vec<_> = args.allow.iter().cloned().chain(ports).collect();
    match (&args.network, first.is_empty()) {
        (Some(NetworkPolicy::Public), _) | (_, true) => Ok(args.network.clone()),
        (base, false) => Ok(Some(with(
            base.as_ref().unwrap_or(&NetworkPolicy::Off),
            first,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(network: Option<&str>, allow: &[&str]) -> NetworkArgs {
        let rule = |text: &&str| NetworkRule::parse(NetworkAction::Allow, text).unwrap();
        NetworkArgs {
            network: network.map(|text| text.parse().unwrap()),
            allow: allow.iter().map(rule).collect(),
            allow_host_port: Vec::new(),
            open: Vec::new(),
            nameserver: Vec::new(),
        }
    }

    #[test]
    fn options_make_a_policy() {
        for (network, allow, expected) in [
            (None, vec![], None),
            (Some("off"), vec![], Some("off")),
            (Some("public"), vec![], Some("public")),
            (
                None,
                vec!["a.example:443"],
                Some("allow a.example:443\ndefault deny"),
            ),
            (
                Some("deny b.example\ndefault allow"),
                vec!["b.example:80"],
                Some("allow b.example:80\ndeny b.example\ndefault allow"),
            ),
        ] {
            let made = policy(&args(network, &allow)).unwrap();
            assert_eq!(made.map(|policy| policy.to_string()).as_deref(), expected);
        }
        policy(&args(Some("public"), &["a.example"])).unwrap_err();
        for (network, expected) in [
            (None, "allow 127.0.0.1/32:11434\ndefault deny"),
            (Some("public"), "public"),
        ] {
            let mut with_port = args(network, &[]);
            with_port.allow_host_port = vec![11434];
            assert_eq!(policy(&with_port).unwrap().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_change_comes_first_and_keeps_the_rest() {
        let deny = NetworkRule::parse(NetworkAction::Deny, "a.example").unwrap();
        let changed = with(&NetworkPolicy::Public, vec![deny]);
        assert_eq!(changed.to_string(), "deny a.example\ndefault allow");
        let json = serde_json::to_value(object(&changed)).unwrap();
        let expected = serde_json::json!({
            "network": "rules", "rules": ["deny a.example"], "default": "allow",
        });
        assert_eq!(json, expected);
    }
}
