//! `sandbox relay`: carries the connections of detached sandboxes. Started by other commands.

use crate::provider;
use anyhow::{Context, Result};
use std::path::Path;

pub(crate) fn relay(state_dir: Option<&Path>) -> Result<u8> {
    let carried = provider::local(state_dir).run_relay();
    carried.context("cannot carry the connections of sandboxes")?;
    Ok(0)
}
