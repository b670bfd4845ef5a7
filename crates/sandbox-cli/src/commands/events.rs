//! `sandbox logs --network`: what a sandbox has reached for.

use crate::{args::LogsArgs, output, provider};
use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use sandbox::{NetworkEvent, NetworkEventKind, SandboxExt};
use serde::Serialize;
use std::{net::IpAddr, path::Path};

/// An event for programs.
#[derive(Debug, Serialize)]
struct Object<'a> {
    at: String,
    connection: u64,
    event: NetworkEventKind,
    name: Option<&'a str>,
    address: Option<IpAddr>,
    port: u16,
    /// Number of the rule that has decided, from 1.
    rule: Option<usize>,
    reason: &'a str,
    /// Bytes.
    sent: u64,
    received: u64,
}

pub(crate) async fn events(state_dir: Option<&Path>, args: &LogsArgs) -> Result<u8> {
    let provider = provider::open(state_dir)?;
    let sandbox = provider::reach(provider.as_ref(), &args.id).await?;
    let failed = || format!("cannot read the network events of the sandbox {}", args.id);
    let network = sandbox.require_network()?;
    let mut events = network.events(args.follow).await.with_context(failed)?;
    while let Some(event) = events.try_next().await.with_context(failed)? {
        if args.json {
            output::print(serde_json::to_string(&object(&event))?)?;
        } else {
            output::print(line(&event))?;
        }
    }
    Ok(0)
}

fn object(event: &NetworkEvent) -> Object<'_> {
    Object {
        at: output::timestamp(event.at),
        connection: event.connection,
        event: event.kind,
        name: event.name.as_deref(),
        address: event.address,
        port: event.port,
        rule: event.rule.map(|rule| rule + 1),
        reason: &event.reason,
        sent: event.sent,
        received: event.received,
    }
}

/// When, what, where to, and why or how much.
fn line(event: &NetworkEvent) -> String {
    let place = match (&event.name, event.address) {
        (Some(name), Some(address)) => format!(
            "{} ({address}) port {}",
            output::printable(name),
            event.port
        ),
        (Some(name), None) => output::printable(name).to_string(),
        (None, Some(address)) => format!("{address} port {}", event.port),
        (None, None) => String::new(),
    };
    let amount = format!(
        "{} sent, {} received",
        output::binary(event.sent),
        output::binary(event.received)
    );
    let (what, more) = match event.kind {
        NetworkEventKind::Opened => ("opened", None),
        NetworkEventKind::Closed => ("closed", Some(amount)),
        NetworkEventKind::Cut => ("cut", Some(amount)),
        NetworkEventKind::Denied => ("denied", None),
        NetworkEventKind::Failed => ("failed", None),
        NetworkEventKind::NameDenied => ("name denied", None),
        NetworkEventKind::Lost => ("events are missing here", None),
        _ => ("unknown", None),
    };
    let reason = output::printable(&event.reason).to_string();
    let why = more.or(Some(reason).filter(|reason| !reason.is_empty()));
    let at = output::timestamp(event.at);
    let parts = [
        Some(at),
        Some(what.to_owned()),
        Some(place).filter(|it| !it.is_empty()),
        why.map(|why| format!("- {why}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn an_event_is_a_line() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut event = NetworkEvent::new(at, 7, NetworkEventKind::Denied, 443);
        event.address = Some([10, 0, 0, 1].into());
        event.reason = "it is a private\naddress".into();
        event.rule = Some(0);
        let denied = line(&event);
        assert!(
            denied.contains("denied 10.0.0.1 port 443 - it is a private"),
            "{denied}"
        );
        assert!(!denied.contains('\n'), "{denied}");
        event.kind = NetworkEventKind::Closed;
        event.name = Some("api.example".into());
        event.received = 2048;
        assert!(
            line(&event)
                .contains("closed api.example (10.0.0.1) port 443 - 0 B sent, 2.0 KiB received"),
            "{}",
            line(&event)
        );
        let json = serde_json::to_value(object(&event)).unwrap();
        assert_eq!(
            (&json["rule"], &json["event"]),
            (&1.into(), &"closed".into())
        );
    }
}
