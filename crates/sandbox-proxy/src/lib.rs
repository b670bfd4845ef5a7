#![doc = include_str!("../README.md")]

mod activity;
mod body;
mod client;
mod exchange;
mod forward;
mod headers;
mod host;
mod inside;
mod names;
mod proxy;
mod ready;
mod refusal;
mod serving;

pub use forward::forward;
pub use host::url;
pub use proxy::Proxy;
pub use ready::Ready;
pub use serving::Serving;
