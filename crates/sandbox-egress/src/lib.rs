#![doc = include_str!("../README.md")]

mod floor;
mod name;
mod policy;
mod ranges;

pub use floor::Floor;
pub use name::Name;
pub use policy::{Policy, Reason, Said, Target, Verdict};
pub use ranges::Class;
