#![doc = include_str!("../README.md")]

mod floor;
mod name;
mod policy;
mod ranges;
#[cfg(target_os = "linux")]
mod relay;

pub use floor::Floor;
pub use name::Name;
pub use policy::{Policy, Reason, Said, Target, Verdict};
pub use ranges::Class;
#[cfg(target_os = "linux")]
pub use relay::{Counters, HOST_ADDRESS, HOST_NAME, Limits, Relay, RelayOptions, Served, Sink};
