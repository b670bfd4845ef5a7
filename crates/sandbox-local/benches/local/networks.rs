//! What a network costs a sandbox: when one is taken from the pool, and while a thousand do nothing.

use crate::{
    crowd,
    measure::{Aim, Bound, Row, Times},
};
use anyhow::{Result, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use sandbox_core::prelude::*;
use sandbox_local::LocalProvider;
use std::{
    path::Path,
    time::{Duration, Instant},
};

const POOL: usize = 8;
const SPACE: Duration = Duration::from_millis(50);

/// How many sandboxes are there at a time.
const MANY: usize = 1000;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Networks {
    pub(crate) row: Row,
    pub(crate) bounds: Vec<Bound>,
}

/// Makes sandboxes with a network and without one, in turns.
pub(crate) async fn measure(state: &Path, n: usize, quick: bool) -> Result<Networks> {
    raise_limit();
    let (ours, theirs) = taken(state, n).await?;
    let more = ours.p50().as_secs_f64() - theirs.p50().as_secs_f64();
    let mut bounds = vec![Bound::new(
        "a network makes taking a sandbox longer by, ms",
        more.max(0.0) * 1000.0,
        1.0,
    )];
    let many = if quick { 2 } else { MANY };
    let without = crowd::memory_each(
        &LocalProvider::builder().state_dir(state).build()?,
        many,
        NetworkPolicy::Off,
    )
    .await?;
    let with = crowd::memory_each(
        &LocalProvider::builder().state_dir(state).build()?,
        many,
        NetworkPolicy::Public,
    )
    .await?;
    bounds.push(Bound::new(
        "memory of a network beside 1,000 idle ones, MB",
        with.saturating_sub(without) as f64 / 1e6,
        0.2,
    ));
    let row = Row {
        what: "create from the pool, with a network",
        against: "without one",
        ours,
        theirs: Ok(theirs),
        aim: Aim::AtMost(2.0),
    };
    Ok(Networks { row, bounds })
}

/// Creations from a full pool of each kind.
async fn taken(state: &Path, n: usize) -> Result<(Times, Times)> {
    let provider = LocalProvider::builder()
        .state_dir(state)
        .pool(POOL)
        .build()?;
    let [mut with, mut without] = [(); 2].map(|()| Times::default());
    // The first of a kind has it kept from then on.
    for turn in 0..=n {
        for (policy, times) in [
            (NetworkPolicy::Public, &mut with),
            (NetworkPolicy::Off, &mut without),
        ] {
            while turn > 0 && provider.pool_status().ready < 2 * POOL {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(SPACE).await;
            let missed = provider.pool_status().missed;
            let start = Instant::now();
            let sandbox = provider
                .create(CreateOptions::new().network(policy))
                .await?;
            if turn > 0 {
                times.since(start);
                ensure!(
                    provider.pool_status().missed == missed,
                    "the pool had none ready"
                );
            }
            sandbox.kill().await?;
        }
    }
    Ok((with, without))
}

/// A sandbox takes some descriptors of this program.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    // With fewer there is an error that says so.
    let _ = setrlimit(Resource::Nofile, raised);
}
