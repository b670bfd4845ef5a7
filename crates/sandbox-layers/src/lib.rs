#![doc = include_str!("../README.md")]

mod around;
mod audit;
mod call;
mod concurrency;
mod control;
mod files;
mod policy;
mod provider;
mod retry;
mod sandbox;
#[cfg(test)]
mod testing;
mod timeout;
mod tracing;

pub use around::{Around, around_provider, around_sandbox};
pub use audit::{AuditEvent, AuditLayer, AuditRecord, AuditSink, FileSink, MemorySink};
pub use call::{Arguments, Call, Kind};
pub use concurrency::ConcurrencyLayer;
pub use policy::{
    Access, CreateRules, Effect, Excess, LimitRules, Network, PolicyConfig, PolicyLayer, PolicyRule,
};
pub use retry::RetryLayer;
pub use timeout::TimeoutLayer;
pub use tracing::TracingLayer;
