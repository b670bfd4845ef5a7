//! What a sandbox may reach, as far as it can be tried without reaching anybody.

use crate::{
    case::Case,
    failure::{Result, refused, same},
    spec::cases,
};
use futures_util::TryStreamExt;
use sandbox_core::{
    Destination, ErrorKind, Existing, NetworkAction, NetworkPolicy, NetworkRule, SandboxExt,
};

cases! { "network":
    a_policy_is_told [Network],
    a_policy_can_be_changed [Network],
    events_can_be_read [Network],
    a_sandbox_that_is_gone_has_none [Network],
}

/// Nothing but one name, in a form that only a reader who takes all of it gives back.
fn listed() -> NetworkPolicy {
    let name = Destination::Domain("*.conformance.invalid".into());
    let all = Destination::Cidr {
        address: [203, 0, 113, 0].into(),
        prefix: 24,
    };
    NetworkPolicy::Rules {
        rules: vec![
            NetworkRule::new(NetworkAction::Deny, all),
            NetworkRule::new(NetworkAction::Allow, name).port(443),
        ],
        default: NetworkAction::Deny,
    }
}

async fn a_policy_is_told(case: &Case) -> Result {
    let sandbox = case.sandbox_with(case.options().network(listed())).await?;
    let network = sandbox.require_network()?;
    same(network.policy().await?, listed(), "policy as asked for")
}

async fn a_policy_can_be_changed(case: &Case) -> Result {
    let sandbox = case.sandbox_with(case.options().network(listed())).await?;
    let network = sandbox.require_network()?;
    for (policy, existing) in [
        (NetworkPolicy::Off, Existing::Cut),
        (listed(), Existing::Keep),
    ] {
        network.set_policy(policy.clone(), existing).await?;
        same(network.policy().await?, policy, "policy after its change")?;
    }
    Ok(())
}

async fn events_can_be_read(case: &Case) -> Result {
    let sandbox = case.sandbox_with(case.options().network(listed())).await?;
    let events = sandbox.require_network()?.events(false).await?;
    let events: Vec<_> = events.try_collect().await?;
    same(events.len(), 0, "events of a sandbox in which nothing runs")
}

async fn a_sandbox_that_is_gone_has_none(case: &Case) -> Result {
    let sandbox = case.sandbox_with(case.options().network(listed())).await?;
    sandbox.kill().await?;
    let policy = sandbox.require_network()?.policy().await;
    refused(policy, ErrorKind::SandboxNotFound, "policy after the end")
}
