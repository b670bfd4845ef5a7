//! Why something was refused, and what would help, in words for people and agents.

use crate::{Class, Name, Reason};
use std::net::IpAddr;

/// Why a connection was let through.
pub(super) fn allowed(reason: Reason) -> String {
    match reason {
        Reason::Default => "no rule denies it".to_owned(),
        _ => format!("{reason} allows it"),
    }
}

/// Why a connection was refused.
pub(super) fn refused(reason: Reason, address: IpAddr, name: Option<&Name>) -> String {
    let what = name.map_or_else(|| address.to_string(), Name::to_string);
    match reason {
        Reason::Floor(_) => format!("{reason}; only the operator of this host can open it"),
        Reason::Rule(number) => format!(
            "rule {} denies it; allow it with a rule for {what} before that one",
            number + 1
        ),
        Reason::Default => format!("no rule fits; allow it with a rule for {what}"),
        Reason::HiddenName(_) => format!(
            "{reason}; it must be readable in TLS (SNI) or HTTP (Host), or allow {address} itself"
        ),
    }
}

/// Why a name is not resolved.
pub(super) fn no_name(name: &Name) -> String {
    format!("no rule lets it be reached; allow it with a rule for {name}")
}

/// Why an address is kept back that a name leads to.
pub(super) fn no_answer(name: &Name, address: IpAddr, class: Option<Class>) -> String {
    match class {
        Some(class) => format!(
            "it leads to {address}, which is {class} that no policy opens; only the operator of this host can"
        ),
        None => format!(
            "it leads to {address}, which no rule lets be reached by this name; allow it with a rule for {name}"
        ),
    }
}
