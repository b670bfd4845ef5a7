//! The cases, grouped by capability.

use crate::spec::Spec;

mod attach;
mod contents;
mod create;
mod directories;
mod environment;
mod exec;
mod lifecycle;
mod limits;
mod links;
mod metrics;
mod names;
mod network;
mod output;
mod pause;
mod permissions;
mod ports;
mod process;
mod provider;
mod pty;
mod shell;
mod signals;
mod snapshots;
mod special;
mod stdin;
mod timeout;
mod watch;

/// Every case.
pub(crate) fn all() -> impl Iterator<Item = &'static Spec> {
    let groups = [
        provider::CASES,
        create::CASES,
        lifecycle::CASES,
        pause::CASES,
        snapshots::CASES,
        limits::CASES,
        network::CASES,
        ports::CASES,
        exec::CASES,
        shell::CASES,
        environment::CASES,
        output::CASES,
        process::CASES,
        stdin::CASES,
        signals::CASES,
        timeout::CASES,
        attach::CASES,
        pty::CASES,
        contents::CASES,
        names::CASES,
        directories::CASES,
        links::CASES,
        permissions::CASES,
        special::CASES,
        watch::CASES,
        metrics::CASES,
    ];
    groups.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_grouped() {
        let names: BTreeSet<_> = all().map(|spec| spec.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.iter().all(|name| name.split("::").count() == 2));
    }

    #[test]
    fn the_suite_has_cases_for_providers_without_a_shell() {
        let bare = sandbox_core::Capabilities::new();
        assert!(all().filter(|spec| spec.missing(&bare).is_none()).count() >= 40);
        assert!(all().count() >= 100);
    }
}
