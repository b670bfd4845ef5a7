//! The proxy and the forward over real sockets, with servers of a fake behind them.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of an integration test for a program"
)]

mod bounds;
mod forward;
mod http1;
mod http2;
mod refusals;
mod stage;
mod upgrade;
