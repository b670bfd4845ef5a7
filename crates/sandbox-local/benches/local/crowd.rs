//! How the cost of a sandbox grows with the number of others: one, ten, a hundred, a thousand that do nothing.

use crate::measure::{Aim, Bound, Row, Times};
use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use sandbox_core::prelude::*;
use sandbox_local::LocalProvider;
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

const SIZES: [usize; 4] = [1, 10, 100, 1000];
/// Calls under way at a time.
const AT_A_TIME: usize = 8;

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) rows: Vec<Row>,
    pub(crate) bounds: Vec<Bound>,
    /// A table, for people.
    pub(crate) growth: Vec<String>,
}

type Sandboxes = Vec<Arc<dyn Sandbox>>;

/// Makes more and more sandboxes under the default limits, and ends them.
pub(crate) async fn measure(state: &Path, quick: bool) -> Result<Crowd> {
    let provider = LocalProvider::builder().state_dir(state).build()?;
    let sizes = if quick { &SIZES[..2] } else { &SIZES[..] };
    let mut crowd = Crowd::default();
    let header =
        "sandboxes   created   each        exec true p50 (p99)          memory each   gone";
    crowd.growth.push(header.to_owned());
    // Before and after the others, so that a change of the machine's mood shows.
    let mut alone = Times::default();
    let single = create(&provider, 1).await?;
    exec(&single, &mut alone, 150).await?;
    for size in sizes {
        let last = Some(size) == sizes.last();
        let among = one_size(&provider, *size, last, &mut crowd).await?;
        if last {
            exec(&single, &mut alone, 150).await?;
            crowd.rows.push(Row {
                what: "exec true beside 1,000 idle",
                against: "exec true alone",
                ours: among,
                theirs: Ok(alone.clone()),
                aim: Aim::AtMost(1.5),
            });
        }
    }
    kill(single).await?;
    Ok(crowd)
}

async fn one_size(
    provider: &LocalProvider,
    size: usize,
    last: bool,
    crowd: &mut Crowd,
) -> Result<Times> {
    let before = memory()?;
    let start = Instant::now();
    let sandboxes = create(provider, size).await?;
    let created = start.elapsed();
    let each = memory()?.saturating_sub(before) / size as u64;
    let mut times = Times::default();
    exec(&sandboxes, &mut times, 300).await?;
    let start = Instant::now();
    kill(sandboxes).await?;
    let gone = start.elapsed();
    let kib = each / 1024;
    crowd.growth.push(format!(
        "{size:>9} {:>7.2} s {:>7.2} ms   {times}   {kib:>7} KiB {:>7.2} s",
        created.as_secs_f64(),
        created.as_secs_f64() * 1000.0 / size as f64,
        gone.as_secs_f64(),
    ));
    if last {
        let seconds = |time: Duration| time.as_secs_f64();
        crowd.bounds = vec![
            Bound::new("1,000 sandboxes created, seconds", seconds(created), 8.0),
            Bound::new("1,000 sandboxes gone, seconds", seconds(gone), 4.0),
            Bound::new(
                "memory of an idle sandbox, MiB",
                each as f64 / 1048576.0,
                1.0,
            ),
        ];
    }
    Ok(times)
}

/// Bytes of memory that each of some idle sandboxes with this network takes.
pub(crate) async fn memory_each(
    provider: &LocalProvider,
    size: usize,
    network: NetworkPolicy,
) -> Result<u64> {
    // What is made once for all is made by the first one.
    let first = create_with(provider, 1, network.clone()).await?;
    let before = memory()?;
    let sandboxes = create_with(provider, size, network).await?;
    let each = memory()?.saturating_sub(before) / size as u64;
    kill(sandboxes).await?;
    kill(first).await?;
    Ok(each)
}

async fn create(provider: &LocalProvider, size: usize) -> Result<Sandboxes> {
    create_with(provider, size, NetworkPolicy::Off).await
}

async fn create_with(
    provider: &LocalProvider,
    size: usize,
    network: NetworkPolicy,
) -> Result<Sandboxes> {
    let options = || CreateOptions::new().lifetime(Duration::from_secs(3600));
    let created = stream::iter(0..size)
        .map(|_| provider.create(options().network(network.clone())))
        .buffer_unordered(AT_A_TIME)
        .try_collect();
    Ok(created.await?)
}

async fn kill(sandboxes: Sandboxes) -> Result<()> {
    let killed = stream::iter(&sandboxes)
        .map(|sandbox| sandbox.kill())
        .buffer_unordered(AT_A_TIME)
        .try_for_each(|_| async { Ok(()) });
    Ok(killed.await?)
}

/// Runs `true` in some of them in turn. The first one in each is not timed: it finds nothing ready, here or alone.
async fn exec(sandboxes: &Sandboxes, times: &mut Times, n: usize) -> Result<()> {
    let step = sandboxes.len().div_ceil(10);
    let some: Vec<_> = sandboxes.iter().step_by(step).collect();
    for sandbox in &some {
        sandbox.exec(Command::new("true")).await?;
    }
    for sandbox in some.iter().cycle().take(n) {
        let start = Instant::now();
        let output = sandbox.exec(Command::new("true")).await?;
        times.since(start);
        ensure!(output.status.success(), "true failed");
    }
    Ok(())
}

/// What the kernel and processes hold, in bytes, without what is only cached: files of others come and go meanwhile.
fn memory() -> Result<u64> {
    const HELD: [&str; 7] = [
        "AnonPages",
        "KernelStack",
        "PageTables",
        "Percpu",
        "Shmem",
        "SUnreclaim",
        "VmallocUsed",
    ];
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim().strip_suffix(" kB")?;
        HELD.contains(&name).then(|| value.parse().unwrap_or(0))
    });
    Ok(kib.sum::<u64>() * 1024)
}
