//! Where the time of one creation goes, by the spans of its steps.

use crate::measure::Times;
use anyhow::Result;
use sandbox_core::prelude::*;
use sandbox_local::LocalProvider;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tracing::{Id, Subscriber, subscriber};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

/// Times of steps, by their names.
type Steps = Arc<Mutex<BTreeMap<&'static str, Times>>>;

/// Takes the time between the beginning and the end of each step.
struct Clock(Steps);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Clock {
    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(Instant::now());
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(start) = span.extensions().get::<Instant>()
        {
            let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            steps.entry(span.name()).or_default().since(*start);
        }
    }
}

/// Makes `n` sandboxes under the default limits, and tells the median of each step and of what comes after.
pub(crate) async fn measure(state: &Path, n: usize) -> Result<Vec<String>> {
    let provider = LocalProvider::builder().state_dir(state).build()?;
    // Starts the zygote.
    provider.create(CreateOptions::new()).await?.kill().await?;
    let steps = Steps::default();
    let clock = tracing_subscriber::registry().with(Clock(Arc::clone(&steps)));
    // Creation is work for threads of its own, so for all of them.
    subscriber::set_global_default(clock)?;
    let [mut whole, mut first, mut gone] = [(); 3].map(|()| Times::default());
    for _ in 0..n {
        let start = Instant::now();
        let sandbox = provider.create(CreateOptions::new()).await?;
        whole.since(start);
        let start = Instant::now();
        sandbox.exec(Command::new("true")).await?;
        first.since(start);
        let start = Instant::now();
        sandbox.kill().await?;
        gone.since(start);
    }
    let steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lines = vec![format!("one creation, with limits       {whole}")];
    lines.extend(
        steps
            .iter()
            .map(|(name, times)| format!("  {name:<30}{times}")),
    );
    lines.push(format!("first exec true                 {first}"));
    lines.push(format!("kill                            {gone}"));
    Ok(lines)
}
