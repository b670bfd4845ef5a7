//! The layers as the suite runs below them: strict, and in nobody's way.

use sandbox_core::Result;
use sandbox_layers::{
    AuditLayer, ConcurrencyLayer, Effect, MemorySink, PolicyConfig, PolicyLayer, PolicyRule,
    TimeoutLayer,
};
use std::time::Duration;

pub(crate) fn timeout() -> TimeoutLayer {
    TimeoutLayer::new(Duration::from_secs(60))
}

/// One call at a time to a sandbox, so that one that waits for another would hang.
pub(crate) fn concurrency() -> ConcurrencyLayer {
    ConcurrencyLayer::new()
        .calls(64)
        .calls_per_sandbox(1)
        .processes(1024)
}

pub(crate) fn audit() -> AuditLayer {
    AuditLayer::new(MemorySink::new())
        .command_lines()
        .fail_closed()
}

/// Rules that are looked at for every call, and deny none of the suite's.
pub(crate) fn policy() -> Result<PolicyLayer> {
    PolicyConfig::new(Effect::Deny)
        .home("/home/user")
        .rule(PolicyRule::new("somewhere", Effect::Allow).paths(["/home/user", "/tmp"]))
        .rule(PolicyRule::new("nothing", Effect::Deny).programs(["program of a policy"]))
        .rule(PolicyRule::new("all else", Effect::Allow))
        .build()
}
